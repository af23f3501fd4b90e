"""Forms with files, read into memory, with every limit enforced while they arrive; nothing touches a disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from deepfer_yolo.serve.schemas import ProblemError

MAX_NAME = 255
MAX_FIELD_BYTES = 1000
MAX_FIELDS = 8
MAX_HEADERS = 8
MAX_HEADER_BYTES = 2000


@dataclass(frozen=True, slots=True)
class Upload:
    """One uploaded file. `name` is what the sender calls it: shown back, never used as a path."""

    name: str
    content: bytes


@dataclass(slots=True)
class Form:
    """The files of the expected field, and the other fields as text."""

    files: list[Upload] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


class FormReader:
    """Callbacks of the multipart parser; refuses as soon as a limit is passed."""

    def __init__(self, file_field: str, max_files: int) -> None:
        self.form = Form()
        self._file_field = file_field
        self._max_files = max_files
        self._n_fields = 0
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._field = ""
        self._file: str | None = None
        self._content: list[bytes] = []
        self._size = 0
        self.is_complete = False

    def on_part_begin(self) -> None:
        """A part starts."""
        self._disposition, self._content, self._size = b"", [], 0

    def on_header_begin(self) -> None:
        """A part's header starts."""
        self._header = (bytearray(), bytearray())

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's name."""
        self._header[0].extend(data[start:end])

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's value."""
        self._header[1].extend(data[start:end])

    def on_header_end(self) -> None:
        """A header is complete."""
        if self._header[0].lower() == b"content-disposition":
            self._disposition = bytes(self._header[1])

    def on_headers_finished(self) -> None:
        """A part's headers are complete: decide what it is."""
        from python_multipart.multipart import parse_options_header

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
        elif len(self.form.files) >= self._max_files:
            raise ProblemError(413, f"more than {self._max_files} file{'s' * (self._max_files > 1)} in one request")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """A piece of a part's content."""
        self._size += end - start
        if self._file is None and self._size > MAX_FIELD_BYTES:
            raise ProblemError(413, f"a text field of the form is longer than {MAX_FIELD_BYTES} bytes")
        self._content.append(data[start:end])

    def on_part_end(self) -> None:
        """A part is complete."""
        content = b"".join(self._content)
        if self._file is not None:
            self.form.files.append(Upload(self._file, content))
        elif self._field == self._file_field:
            raise ProblemError(422, f"the form field '{self._field}' must be a file, with a file name")
        else:
            self.form.fields[self._field] = content.decode("utf-8", "replace")

    def on_end(self) -> None:
        """The closing boundary was seen."""
        self.is_complete = True


CALLBACKS = tuple(name for name in vars(FormReader) if name.startswith("on_"))


async def read_form(request: Request, *, file_field: str, max_files: int) -> Form:
    """The form of a request. Raises ProblemError where it is not one, is cut short or passes a limit."""
    from python_multipart.exceptions import MultipartParseError
    from python_multipart.multipart import MultipartParser, parse_options_header

    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise ProblemError(415, "send multipart/form-data with a boundary")
    reader = FormReader(file_field, max_files)
    callbacks: Any = {name: getattr(reader, name) for name in CALLBACKS}
    try:
        parser = MultipartParser(boundary, callbacks, max_header_count=MAX_HEADERS, max_header_size=MAX_HEADER_BYTES)
        async for chunk in request.stream():
            parser.write(chunk)
        parser.finalize()
    except MultipartParseError as error:
        raise ProblemError(400, f"the form cannot be read: {error}") from None
    if not reader.is_complete:
        raise ProblemError(400, "the form ends before its closing boundary")
    if not reader.form.files:
        raise ProblemError(422, f"no file in the form field '{file_field}'")
    return reader.form


def flag(text: str | None, default: bool, name: str) -> bool:
    """A form field as yes or no. Raises ProblemError for anything else."""
    if text is None:
        return default
    words = {"true": True, "1": True, "on": True, "yes": True, "false": False, "0": False, "off": False, "no": False}
    if text.strip().lower() not in words:
        raise ProblemError(422, f"the form field '{name}' must be true or false")
    return words[text.strip().lower()]


def _shown(name: bytes) -> str:
    """A sender's file name for showing: its last part, without control characters, bounded."""
    text = name.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in text if c.isprintable())[:MAX_NAME] or "file"
