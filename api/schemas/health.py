from typing import Literal

from pydantic import Field

from api.schemas.base import Answer

ServiceState = Literal["ok", "degraded"]
PartState = Literal["ok", "down"]


class Liveness(Answer):
    status: Literal["ok"] = Field(description="The process answers.")


class Readiness(Answer):
    status: ServiceState = Field(description="`degraded`: jobs still run, found by polling.")
    database: PartState = Field(description="Holds all rows.")
    store: PartState = Field(description="The object store.")
    broker: PartState = Field(description="Wakes idle workers.")
    versions: dict[str, str] | None = Field(
        None, description="Of Python and every installed package; for keys of scope `operator` only, absent for others."
    )
