"""Messages between processes: what is sent arrives, and whatever a child does becomes an answer or a named error."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deepfer_yolo.errors import ConfigError, DatasetError, LeakError, ModelError
from deepfer_yolo.runtime.child_process import LENGTH, MAX_BLOB, MAX_HEAD, Channel, Child, error_head, frames, receive

CHILD = """
import os, sys, time
from deepfer_yolo.errors import ConfigError, DatasetError, LeakError
from deepfer_yolo.runtime.child_process import answer_parent
class OurOwn(LeakError): pass
def answer(question):
    {body}
if __name__ == "__main__":
    answer_parent(answer)
"""
StartChild = Callable[..., Child]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StartChild:
    """Starts a child whose answer to a question is the given Python line."""

    def started(body: str, timeout_s: float = 60.0) -> Child:
        (tmp_path / "a_child.py").write_text(CHILD.format(body=body))
        paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
        return Child("a_child", "the test's child", timeout_s)

    return started


def sent(head: dict[str, object], *blobs: bytes) -> bytes:
    return b"".join(frames(head, *blobs))  # type: ignore[arg-type]


def read_all(content: bytes) -> tuple[dict[str, object], tuple[bytes, ...]]:
    """What both readers make of `content`; they must agree."""

    async def read() -> tuple[dict[str, object], tuple[bytes, ...]]:
        reader = asyncio.StreamReader()
        reader.feed_data(content)
        reader.feed_eof()
        message = await receive(reader)
        return message.head, message.blobs

    waited = Channel(io.BytesIO(content), io.BytesIO()).receive()
    assert waited is not None
    assert (waited.head, waited.blobs) == asyncio.run(read())
    return waited.head, waited.blobs


def test_blobs_arrive_as_they_are() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    probs = np.linspace(0, 1, 7, dtype=np.float32)
    content = b"".join(frames({"n": 1, "text": "Ärger"}, image, b"", probs, np.zeros((0, 5))))  # type: ignore[arg-type]
    assert read_all(content) == ({"n": 1, "text": "Ärger"}, (image.tobytes(), b"", probs.tobytes(), b""))


def test_arrays_are_sent_without_a_copy() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    _, piece = frames({}, image)
    image[0, 0, 0] = 7
    assert memoryview(piece)[0] == 7
    with pytest.raises(TypeError):
        frames({}, image[:, ::2])


def test_over_a_socket_a_message_larger_than_its_buffer_arrives() -> None:
    content = os.urandom(5_000_000)

    async def exchange() -> bytes:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        file = theirs.makefile("rwb")
        other = Channel(file, file)
        writer.writelines(frames({"task": "echo"}, content))
        question = await asyncio.to_thread(other.receive)
        assert question is not None
        answering = asyncio.to_thread(other.send, {}, *question.blobs)
        answer, _ = await asyncio.gather(receive(reader), answering)
        writer.close()
        file.close()
        theirs.close()
        return answer.blobs[0]

    assert asyncio.run(exchange()) == content


@pytest.mark.parametrize(
    "text",
    [
        *(b"[]", b"{}", b"[{}]", b"[{}, 3]", b"[[], []]", b"[{}, [-1]]", b"[{}, [1.5]]", b"no json", b"[" * 100_000),
        json.dumps([{}, [MAX_BLOB + 1]]).encode(),
    ],
)
def test_what_is_no_message_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Channel(io.BytesIO(LENGTH.pack(len(text)) + text), io.BytesIO()).receive()
    with pytest.raises(ValueError, match="a message of"):
        Channel(io.BytesIO(LENGTH.pack(MAX_HEAD + 1)), io.BytesIO()).receive()


def test_a_connection_ends_between_messages_or_is_broken() -> None:
    content = sent({"a": 1}, b"blob")
    assert Channel(io.BytesIO(), io.BytesIO()).receive() is None
    for end in (2, 8, len(content) - 1):
        with pytest.raises(EOFError):
            Channel(io.BytesIO(content[:end]), io.BytesIO()).receive()


def test_a_child_answers_whatever_its_libraries_print(start: StartChild) -> None:
    with start("print('chatter', flush=True); os.write(1, b'more'); return {'n': len(question.blobs[0])}") as child:
        for n in (3, 300_000):
            assert child.ask({}, b"x" * n).head == {"n": n}


def test_an_error_of_the_child_is_the_same_error_here(start: StartChild) -> None:
    with start("raise DatasetError('no face', 'look', path='a.png', line=3)") as child:
        for _ in range(2):  # an error ends the question, not the child
            with pytest.raises(DatasetError, match=r"a\.png, line 3: no face") as caught:
                child.ask({})
            error = caught.value
            assert (error.reason, error.hint, error.path, error.line) == ("no face", "look", "a.png", 3)
    with start("raise OurOwn('learned')") as child, pytest.raises(LeakError, match="learned") as met:
        child.ask({})
    assert type(met.value) is LeakError
    assert error_head(ConfigError("what"))["error"] == "ConfigError"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os.abort()", r"the test's child: the native library crashed \(SIGABRT\)"),
        ("sys.exit(7)", "the child process ended with 7: no output"),
        ("raise KeyError('x')", "ended with 1: KeyError: 'x'"),
        ("os.close(1); time.sleep(60)", "no answer within 3 s"),
    ],
)
def test_the_end_of_a_child_is_named(start: StartChild, body: str, reason: str) -> None:
    with start(body, timeout_s=3 if "sleep" in body else 60) as child:
        for _ in range(2):
            with pytest.raises(ModelError, match=reason):
                child.ask({})
