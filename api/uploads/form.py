"""Streaming parser of `multipart/form-data` with one file: the file goes to the disk, the fields stay small."""

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.http.problems import INVALID_REQUEST, MALFORMED_UPLOAD, HttpError
from api.http.strict_json import pointer_part
from api.uploads.spool import SpooledFile
from core.domain.errors import FieldError

FILE_FIELD = "file"
MAX_FIELD_BYTES = 64 * 1024
MAX_PARTS = 32
MAX_OVERHEAD_BYTES = 4 * 1024 * 1024
"""Limit of a form beside its file: fields, headers and boundaries at their limits."""
MAX_FORM_FRAME_BYTES = 4096
"""Size of an ordinary form beside its file, so that a file that just fits is not refused for its frame."""


@dataclass
class _Part:
    headers: dict[str, str] = field(default_factory=dict)
    name: str = ""
    value: bytearray = field(default_factory=bytearray)
    is_file: bool = False


class FormReader:
    """Parser to be fed the body; afterwards it has the fields, in whatever order they came."""

    def __init__(self, content_type: str, file: SpooledFile, file_field: str = FILE_FIELD) -> None:
        _, options = parse_options_header(content_type.encode("latin-1"))
        boundary = options.get(b"boundary")
        if not boundary:
            raise HttpError(MALFORMED_UPLOAD, "The Content-Type of the form names no boundary.")
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.file_headers: dict[str, str] = {}
        self._file = file
        self._file_field = file_field
        self._has_file = False
        self._has_ended = False
        self._num_parts = 0
        self._part = _Part()
        self._header_name = bytearray()
        self._header_value = bytearray()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_part_data": self._add_data,
                    "on_part_end": self._end_part,
                    "on_header_field": self._add_header_name,
                    "on_header_value": self._add_header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _malformed() from error

    def feed(self, data: bytes) -> None:
        """Parse a chunk; raises HttpError, and what writing the file raises."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed() from error

    def finish(self) -> None:
        """Check the end; raises HttpError for a form that was cut short, or has no file."""
        if not self._has_ended:
            raise HttpError(MALFORMED_UPLOAD, "The form ends before its last boundary.")
        if not self._has_file:
            raise _refused(self._file_field, "is required: the data file itself")

    def _begin_part(self) -> None:
        self._num_parts += 1
        if self._num_parts > MAX_PARTS:
            raise HttpError(MALFORMED_UPLOAD, f"The form has more than {MAX_PARTS} parts.")
        self._part = _Part()

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        name = self._header_name.decode("latin-1").lower()
        self._part.headers[name] = self._header_value.decode("utf-8", "replace")
        self._header_name.clear()
        self._header_value.clear()

    def _end_headers(self) -> None:
        disposition = self._part.headers.get("content-disposition", "")
        _, options = parse_options_header(disposition.encode())
        if b"name" not in options:
            raise HttpError(MALFORMED_UPLOAD, "A part of the form has no name.")
        self._part.name = options[b"name"].decode("utf-8", "replace")
        if self._part.name in self.fields or (self._part.name == self._file_field and self._has_file):
            raise _refused(self._part.name, "is given more than once")
        self._part.is_file = self._part.name == self._file_field
        if b"filename" in options and not self._part.is_file:
            raise _refused(self._part.name, f"is a file; the file goes into the field `{self._file_field}`")
        if self._part.is_file:
            self._has_file = True
            self.file_headers = self._part.headers
            self.filename = options.get(b"filename", b"").decode("utf-8", "replace") or None

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.is_file:
            self._file.write(data[start:end])
            return
        self._part.value += data[start:end]
        if len(self._part.value) > MAX_FIELD_BYTES:
            raise _refused(self._part.name, f"has more than {MAX_FIELD_BYTES:,} bytes")

    def _end_part(self) -> None:
        if self._part.is_file:
            return
        try:
            self.fields[self._part.name] = self._part.value.decode()
        except UnicodeDecodeError:
            raise _refused(self._part.name, "is not UTF-8 text") from None

    def _end(self) -> None:
        self._has_ended = True


def _malformed() -> HttpError:
    return HttpError(MALFORMED_UPLOAD, "The body is not well-formed multipart/form-data.")


def _refused(name: str, why: str) -> HttpError:
    error = FieldError(pointer_part(name), why)
    return HttpError(INVALID_REQUEST, f"{error.pointer}: {why}", errors=[error])
