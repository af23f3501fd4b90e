"""Forms with files, read into memory, with every limit enforced while they arrive; nothing touches a disk.

Starlette's own form parser keeps files of more than 1 MB on a disk, takes a form that is cut short as a whole one, and
reads files of unexpected fields to their end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from deepfer_yolo.serve.schemas import ProblemError

MAX_NAME = 255
MAX_FIELD_BYTES = 1000
MAX_FIELDS = 8
MAX_HEADERS = 8
MAX_HEADER_BYTES = 2000
BOOLEAN = TypeAdapter(bool)


@dataclass(frozen=True, slots=True)
class Upload:
    """One uploaded file. `name` is what the sender calls it: shown back, never used as a path."""

    name: str
    content: bytes


class Form:
    """The files of one field and the other fields as text, gathered by the callbacks (`_on_…`) of a multipart parser.

    They raise ProblemError as soon as a limit is passed.
    """

    def __init__(self, file_field: str, max_files: int) -> None:
        self.files: list[Upload] = []
        self.fields: dict[str, str] = {}
        self.is_complete = False
        self._file_field = file_field
        self._max_files = max_files
        self._n_fields = 0
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._field = ""
        self._file: str | None = None
        self._content: list[bytes] = []
        self._size = 0

    def _on_part_begin(self) -> None:
        self._disposition, self._content, self._size = b"", [], 0

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _on_header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = bytes(self._header[1])
        self._header = (bytearray(), bytearray())

    def _on_headers_finished(self) -> None:
        """Decide what the part is."""
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise ProblemError(400, "a part of the form has no Content-Disposition: form-data with a name")
        self._field = options[b"name"].decode("utf-8", "replace")
        name = options.get(b"filename")
        self._file = None if name is None else _shown(name)
        if self._file is None:
            self._n_fields += 1
            if self._n_fields > MAX_FIELDS:
                raise ProblemError(413, f"the form has more than {MAX_FIELDS} text fields")
        elif self._field != self._file_field:
            raise ProblemError(422, f"files belong into the form field '{self._file_field}'")
        elif len(self.files) >= self._max_files:
            raise ProblemError(413, f"more than {self._max_files} file{'s' * (self._max_files > 1)} in one request")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._file is None and self._size > MAX_FIELD_BYTES:
            raise ProblemError(413, f"a text field of the form is longer than {MAX_FIELD_BYTES} bytes")
        self._content.append(data[start:end])

    def _on_part_end(self) -> None:
        content = b"".join(self._content)
        if self._file is not None:
            self.files.append(Upload(self._file, content))
        elif self._field == self._file_field:
            raise ProblemError(422, f"the form field '{self._field}' must be a file, with a file name")
        else:
            self.fields[self._field] = content.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self.is_complete = True

    def flag(self, name: str, default: bool) -> bool:
        """A text field as yes or no, in the words that a query knows. Raises ProblemError for anything else."""
        try:
            return BOOLEAN.validate_python(self.fields.get(name, default))
        except ValidationError:
            raise ProblemError(422, f"the form field '{name}' must be true or false") from None


async def read_form(request: Request, *, file_field: str, max_files: int) -> Form:
    """The form of a request. Raises ProblemError where it is not one, is cut short or passes a limit."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise ProblemError(415, "send multipart/form-data with a boundary")
    form = Form(file_field, max_files)
    callbacks: Any = {name[1:]: getattr(form, name) for name in vars(Form) if name.startswith("_on_")}
    try:
        parser = MultipartParser(boundary, callbacks, max_header_count=MAX_HEADERS, max_header_size=MAX_HEADER_BYTES)
        async for chunk in request.stream():
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise ProblemError(400, f"the form cannot be read: {error}") from None
    if not form.is_complete:
        raise ProblemError(400, "the form ends before its closing boundary")
    if not form.files:
        raise ProblemError(422, f"no file in the form field '{file_field}'")
    return form


def _shown(name: bytes) -> str:
    """A sender's file name for showing: its last part, without control characters, bounded."""
    text = name.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in text if c.isprintable())[:MAX_NAME] or "file"
