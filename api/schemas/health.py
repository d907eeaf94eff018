from typing import Literal

from pydantic import Field

from api.schemas.base import Answer


class Liveness(Answer):
    status: Literal["ok"] = Field(description="The process answers.")


class Readiness(Answer):
    status: Literal["ok", "degraded"] = Field(description="`degraded`: jobs still run, found by polling.")
    database: Literal["ok", "down"] = Field(description="Holds all rows.")
    store: Literal["ok", "down"] = Field(description="The object store.")
    broker: Literal["ok", "down"] = Field(description="Wakes idle workers.")
    versions: dict[str, str] | None = Field(
        None, description="Of Python and every installed package; for keys of scope `operator` only, absent for others."
    )
