"""Network sources, each read in a process of its own: what ends FFmpeg there ends one connection and not the run.

The reader starts `python -m deepfer_yolo.stream.source_process` and gets, by the protocol of `child_process.py`, what
the opened source is, then a message an image. The child's stdin is its lifeline: at its end, which the death of the
parent brings too, the child closes the connection and is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import IO

import numpy as np

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.errors import DeepferError
from deepfer_yolo.records import Clock
from deepfer_yolo.runtime.child_process import Channel, Message, error_head, parent_files, received_error
from deepfer_yolo.stream.address import Address
from deepfer_yolo.stream.source_errors import SourceReadError, explain
from deepfer_yolo.stream.sources import Grab, open_source

GRACE_S = 0.5
"""How long a child that is to end may take to say goodbye to its server."""
PIPE_BYTES = 1 << 20
"""Linux lets a pipe be that large: a 720p image takes three turns instead of forty-two."""

PROGRAM = (sys.executable, "-P", "-m", "deepfer_yolo.stream.source_process")
"""`-P`: what lies in the working folder, such as a `random.py`, must not be imported."""


class SourceProcess:
    """A source in a process of its own, to be opened by `open`; other threads may call `interrupt`."""

    def __init__(self, address: Address, config: StreamConfig) -> None:
        self.is_finite = self.has_pts = self.is_bursty = False
        self.clock: Clock = "pts"
        self.notes: Sequence[str] = ()
        self.period_s = 0.0
        self._address, self._config = address, config
        self._process = subprocess.Popen(PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._channel = Channel(self._stdout, self._stdin)

    def open(self) -> None:
        """Wait until the source is open. Raises SourceReadError with a reason."""
        question = {"address": asdict(self._address), "config": self._config.model_dump(mode="json")}
        with suppress(OSError, ValueError):  # the answer, or its absence, tells why
            self._channel.send(question)
        opened = self._receive().head
        self.is_finite, self.has_pts = opened["is_finite"], opened["has_pts"]
        self.is_bursty, self.period_s = opened["is_bursty"], opened["period_s"]

    def grabs(self) -> Iterator[Grab]:
        """Images in order. Raises SourceReadError where reading breaks."""
        while "end" not in (message := self._receive()).head:
            image = None
            if message.blobs:
                image = np.frombuffer(message.blobs[0], np.uint8).reshape(message.head["shape"])
            self.notes = message.head["notes"]
            yield Grab(image, message.head["pts_s"], message.head["offset_s"])

    def interrupt(self) -> None:
        """Let the child end; what waits for it is told so."""
        with suppress(OSError, ValueError):
            self._stdin.close()

    def kill(self) -> None:
        """End the child at once."""
        self._process.kill()

    def close(self) -> None:
        """End the child: by its own will, else by force."""
        self.interrupt()
        with suppress(OSError):
            self._stdout.close()
        try:
            self._process.wait(2 * GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _receive(self) -> Message:
        try:
            message = self._channel.receive()
        except (EOFError, OSError, ValueError):
            message = None
        if message is None:
            raise self._death()
        if "error" in message.head:
            error = received_error(message.head)
            raise SourceReadError(error.message, getattr(error, "reason", "network"))
        return message

    def _death(self) -> SourceReadError:
        """What the end of a child means that said nothing."""
        try:
            code = self._process.wait(2 * GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return SourceReadError(f"the process that read {self._address.name} ended ({how})", "crashed")


def main() -> None:
    """The child: open the source that stdin names, and send its images to stdout until one side ends."""
    # A terminal and systemd signal the whole group; the parent decides.
    for number in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
        signal.signal(number, signal.SIG_IGN)
    stdin, stdout = parent_files()
    with suppress(OSError, ImportError, AttributeError):
        import fcntl

        fcntl.fcntl(stdout.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    channel = Channel(stdin, stdout)
    setup = channel.receive()
    if setup is None:
        return
    stop = threading.Event()
    threading.Thread(target=_end_with_parent, args=(stdin, stop), daemon=True).start()
    with suppress(BrokenPipeError):
        _send_images(Address(**setup.head["address"]), StreamConfig.model_validate(setup.head["config"]), channel, stop)
    os._exit(0)  # a thread waits for stdin, which the interpreter's own end would wait for in turn


def _end_with_parent(stdin: IO[bytes], stop: threading.Event) -> None:
    stdin.read(1)
    stop.set()
    time.sleep(GRACE_S)
    os._exit(0)


def _send_images(address: Address, config: StreamConfig, channel: Channel, stop: threading.Event) -> None:
    try:
        source = open_source(address, config)
    except Exception as error:
        channel.send(error_head(explain(error, address, "opening")))
        return
    try:
        told = ("is_finite", "has_pts", "is_bursty", "period_s")
        channel.send({name: getattr(source, name) for name in told})
        for grab in source.grabs():
            if stop.is_set():
                return
            head = {"pts_s": grab.pts_s, "offset_s": grab.offset_s, "notes": list(source.notes)}
            if grab.image is None:
                channel.send(head)
            else:
                channel.send({**head, "shape": list(grab.image.shape)}, grab.image)
        channel.send({"end": True})
    except BrokenPipeError:
        raise
    except Exception as error:
        cause = error if isinstance(error, DeepferError) else explain(error, address, "reading")
        channel.send(error_head(cause))
    finally:
        source.close()


if __name__ == "__main__":
    main()
