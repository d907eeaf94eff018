"""Common bases of all answers."""

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")

Id = Annotated[str, Field(description="Opaque, without `/`, with a prefix that names the kind.")]
Number = Annotated[float | None, Field(description="Finite, or null where the value was not.")]


class Answer(BaseModel):
    """Base of answers, made from services' plain values. Strict JSON: no NaN, no infinity."""

    model_config = ConfigDict(from_attributes=True, ser_json_inf_nan="null")


class Page(Answer, Generic[Item]):
    """One page of a list, newest first unless said otherwise."""

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """Return the page's name in the API's description, such as `JobPage`."""
        return f"{params[0].__name__}Page"

    data: list[Item] = Field(description="The items of this page.")
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last page.")
