from datetime import datetime

from pydantic import Field

from api.schemas.base import Answer, Id


class ArtifactFile(Answer):
    path: str = Field(description="Inside the folder, with `/`.")
    num_bytes: int = Field(description="Bytes.")
    sha256: str = Field(description="Of its bytes, hexadecimal.")
    url: str = Field(description="Where it is downloaded; ranges are honoured.")


class Artifact(Answer):
    """The published policy: a folder that transformers loads."""

    job_id: Id
    files: list[ArtifactFile] = Field(description="By path; exports, made on request, below `exports/`.")
    archive_url: str = Field(description="The published files, without exports, as one tar stream.")
    manifest_sha256: str = Field(description="SHA-256 of the list of all files and their digests.")
    created_at: datetime = Field(description="RFC 3339, UTC.")
