"""One protocol with child processes: messages of a JSON head and binary blobs, over pipes or sockets.

A message is the length of its JSON (4 bytes, big-endian), the JSON `[head, sizes of the blobs]`, and the blobs as they
are. `Child` and `answer_parent` are the two ends of a child that a program waits for; a server speaks the same by
`frames` and `receive`.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from deepfer_yolo import errors
from deepfer_yolo.errors import DeepferError, ModelError
from deepfer_yolo.records import Json, plain

if TYPE_CHECKING:
    import asyncio
    from io import BufferedRWPair

    from numpy.typing import NDArray

    Blob = bytes | NDArray[Any]

LENGTH = struct.Struct(">I")
MAX_HEAD, MAX_BLOB = 16_000_000, 1_000_000_000
TIMEOUT_S = 120.0
HANGS = "the library hangs on this machine; use another format or provider"
ERRORS = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, DeepferError)
}
"""What passes from process to process as itself; a subclass from elsewhere passes as the nearest of these."""


@dataclass(frozen=True, slots=True)
class Message:
    """What the other side said, and the bytes that came with it."""

    head: dict[str, Any]
    blobs: tuple[bytes, ...] = ()


def frames(head: Json, *blobs: Blob) -> list[bytes | memoryview]:
    """A message as pieces for `writelines`. Blobs are bytes or C-contiguous arrays, and are not copied."""
    views = [memoryview(blob) for blob in blobs]  # type: ignore[arg-type]  # NumPy arrays are buffers
    text = json.dumps([head, [view.nbytes for view in views]]).encode()
    return [LENGTH.pack(len(text)) + text, *(view.cast("B") for view in views if view.nbytes)]


async def receive(reader: asyncio.StreamReader) -> Message:
    """The next message of a stream. Raises EOFError where the other side is gone, ValueError for what is no message."""
    head, sizes = _parsed(await reader.readexactly(_head_size(await reader.readexactly(LENGTH.size))))
    return Message(head, tuple([await reader.readexactly(size) for size in sizes]))


def _head_size(start: bytes) -> int:
    size: int = LENGTH.unpack(start)[0]
    if size > MAX_HEAD:
        raise ValueError(f"a message of {size} bytes")
    return size


def _parsed(text: bytes) -> tuple[Any, list[int]]:
    try:
        head, sizes = json.loads(text)
    except (TypeError, RecursionError):
        head = sizes = None
    if not isinstance(head, dict) or not isinstance(sizes, list):
        raise ValueError("a message is a JSON object and the sizes of its blobs")
    if not all(isinstance(size, int) and 0 <= size <= MAX_BLOB for size in sizes):
        raise ValueError(f"blobs of {sizes} bytes")
    return head, sizes


class Channel:
    """One end of a connection that is waited for: two binary files, or one of a socket for both."""

    def __init__(self, source: IO[bytes] | BufferedRWPair, sink: IO[bytes] | BufferedRWPair) -> None:
        self._source, self._sink = source, sink

    def send(self, head: Json, *blobs: Blob) -> None:
        """Send one message."""
        self._sink.writelines(frames(head, *blobs))
        self._sink.flush()

    def receive(self) -> Message | None:
        """The next message, None at the end of the connection. Raises EOFError where it ends inside a message."""
        start = self._source.read(1)
        if not start:
            return None
        start += self._exactly(LENGTH.size - 1)
        head, sizes = _parsed(self._exactly(_head_size(start)))
        return Message(head, tuple(self._exactly(size) for size in sizes))

    def _exactly(self, size: int) -> bytes:
        content = self._source.read(size)
        if len(content) < size:
            raise EOFError(f"{len(content)} of {size} bytes")
        return content


class Child:
    """A module of this package in a process of its own, which answers questions.

    Its errors are raised here with type and fields. Its death, and a silence of `timeout_s`, become a ModelError that
    begins with `what`; the hint after a silence is `when_late`.
    """

    def __init__(self, module: str, what: str, timeout_s: float = TIMEOUT_S, when_late: str = HANGS) -> None:
        self._what, self._timeout_s, self._when_late, self._is_late = what, timeout_s, when_late, False
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (`close` does)
        pipe = subprocess.PIPE
        # -P: what lies in the working folder, such as a random.py, must not be imported.
        program = [sys.executable, "-P", "-m", module]
        self._process = subprocess.Popen(program, stdin=pipe, stdout=pipe, stderr=self._stderr)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._channel = Channel(self._process.stdout, self._process.stdin)

    def ask(self, head: Json, *blobs: Blob) -> Message:
        """Send a question and wait for its answer."""
        watchdog = threading.Timer(self._timeout_s, self._give_up)
        watchdog.start()
        try:
            with suppress(BrokenPipeError):  # the reason is what the answer, or its absence, tells
                self._channel.send(head, *blobs)
            answer = self._channel.receive()
        except (EOFError, ConnectionError):
            answer = None
        finally:
            watchdog.cancel()
        if answer is None:
            raise self._end()
        if "error" in answer.head:
            raise received_error(answer.head)
        return answer

    def _give_up(self) -> None:
        self._is_late = True
        self._process.kill()

    def _end(self) -> ModelError:
        code = self._process.wait()
        if self._is_late:
            return ModelError(f"{self._what}: no answer within {self._timeout_s:g} s", self._when_late)
        if code < 0:
            return ModelError(
                f"{self._what}: the native library crashed ({signal.Signals(-code).name})",
                "use another format or provider, or another version of the library",
            )
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip().splitlines()
        return ModelError(
            f"{self._what}: the child process ended with {code}: {(said or ['no output'])[-1][:300]}",
        )

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._stderr):
            if file is not None:
                with suppress(BrokenPipeError):
                    file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def answer_parent(answer: Callable[[Message], Json]) -> None:
    """The life of a `Child`'s process: one answer for each question, until the connection ends.

    The connection is stdin and stdout; what libraries print goes to stderr.
    """
    channel = Channel(*parent_files())
    while (question := channel.receive()) is not None:
        try:
            reply = answer(question)
        except DeepferError as error:
            reply = error_head(error)
        channel.send(reply)


def parent_files() -> tuple[IO[bytes], IO[bytes]]:
    """A child's stdin and stdout for itself alone: what libraries print goes to stderr, and they have none to read."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return source, sink


def error_head(error: DeepferError) -> Json:
    """The head of an answer that is an error, fields and all."""
    kind = next(kind.__name__ for kind in type(error).__mro__ if ERRORS.get(kind.__name__) is kind)
    return {"error": kind, "fields": plain(vars(error))}


def received_error(head: Mapping[str, Any]) -> DeepferError:
    """The error of `error_head` as it was raised in the child."""
    kind, fields = ERRORS.get(head["error"], DeepferError), head["fields"]
    error = kind.__new__(kind, fields["message"])
    vars(error).update(fields)
    return error
