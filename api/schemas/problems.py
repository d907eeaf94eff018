from pydantic import BaseModel, ConfigDict, Field


class ProblemError(BaseModel):
    """One fault of the request."""

    pointer: str = Field(
        description="Where: a JSON pointer (RFC 6901) into the body, such as `/dpo/learning_rate`; "
        "for query parameters and form fields `/` and the name; empty for the body as a whole."
    )
    detail: str = Field(description="What is wrong there, and what would be right.")


class Problem(BaseModel):
    """Every answer of 400 and above (RFC 9457). Some codes add members, such as `report` with `dataset-rejected`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Address of an explanation of the code.")
    title: str = Field(description="The code in words; the same for every occurrence.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong in this case, and what to do.")
    instance: str = Field(description="The path that was asked for.")
    code: str = Field(description="Stable name of the problem, for programs.")
    request_id: str | None = Field(description="Finds the request in the service's log.")
    errors: list[ProblemError] = Field(
        default_factory=list, description="For payloads: every fault. Absent where there is none to point to."
    )
