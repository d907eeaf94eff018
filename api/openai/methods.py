"""OpenAI's methods of fine-tuning, and what each is here: a method of a job, and places for its hyperparameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from core.domain.jobs.job_spec import Auto, Payload, PositiveInt
from core.domain.jobs.methods import MethodName, method_of
from core.domain.json_numbers import REAL, WHOLE

MULTIPLIER = "learning_rate_multiplier"
Multiplier = Annotated[float, Field(gt=0, le=1000), REAL] | Auto


class Hyperparameters(Payload):
    n_epochs: PositiveInt | Auto = "auto"
    batch_size: Annotated[int, Field(ge=1, le=65536), WHOLE] | Auto = "auto"
    learning_rate_multiplier: Multiplier = "auto"


class DpoHyperparameters(Hyperparameters):
    beta: Annotated[float, Field(gt=0, le=1000), REAL] | Auto = "auto"


class DpoMethod(Payload):
    hyperparameters: DpoHyperparameters = Field(default_factory=DpoHyperparameters)


class SupervisedMethod(Payload):
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)


class Method(Payload):
    """The method as OpenAI's clients send it: `type`, and settings under that name."""

    type: Literal["dpo", "supervised", "reinforcement"]
    dpo: DpoMethod | None = None
    supervised: SupervisedMethod | None = None
    reinforcement: dict[str, Any] | None = None

    @property
    def hyperparameters(self) -> Hyperparameters:
        """Return those of its type; reinforcement, which is refused, has none."""
        if self.type == "supervised":
            return (self.supervised or SupervisedMethod()).hyperparameters
        return (self.dpo or DpoMethod()).hyperparameters


@dataclass(frozen=True, kw_only=True)
class ServedMethod:
    """One of OpenAI's methods that this service has."""

    type: str
    """OpenAI's name."""
    method: MethodName
    fields: Mapping[str, Any]
    """Fields of the job that go with it, unless the request has them."""
    places: Mapping[str, str]
    """OpenAI's hyperparameter -> place of the same thing in the job."""
    rate: str
    """Place of the learning rate, which the multiplier is a multiple of the preset for."""

    def pointer(self, name: str) -> str:
        """Return where a hyperparameter stands in OpenAI's body."""
        return f"/method/{self.type}/hyperparameters/{name}"

    def shown(self, spec: Mapping[str, Any], requested: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hyperparameters as they were resolved."""
        found = {name: _at(spec, place) for name, place in self.places.items()}
        found["learning_rate"] = _at(spec, self.rate)
        if _at(requested, self.rate) in (None, "auto"):
            found[MULTIPLIER] = "auto"
        return found


_SERVED = (
    ServedMethod(
        type="dpo",
        method="preference",
        fields={"sft": "skip"},
        places={"beta": "beta", "n_epochs": "dpo/epochs", "batch_size": "dpo/batch_size"},
        rate="dpo/learning_rate",
    ),
    ServedMethod(
        type="supervised",
        method="supervised",
        fields={},
        places={"n_epochs": "sft/epochs", "batch_size": "sft/batch_size"},
        rate="sft/learning_rate",
    ),
)
BY_TYPE = {served.type: served for served in _SERVED}
_BY_METHOD: dict[str, ServedMethod] = {served.method: served for served in _SERVED}


def served_as(spec: Mapping[str, Any]) -> ServedMethod | None:
    """Return what a job of this spec is in OpenAI's words; None for a method that OpenAI has not."""
    return _BY_METHOD.get(method_of(spec).name)


def _at(values: Mapping[str, Any], place: str) -> Any:
    found: Any = values
    for name in place.split("/"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
