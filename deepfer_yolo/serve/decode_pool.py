"""The decode workers: as many processes as configured, each serving one request at a time; one that dies is replaced."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BufferedRWPair
from typing import Any

from deepfer_yolo.errors import DeepferError
from deepfer_yolo.serve.schemas import Problem

LENGTH = struct.Struct(">I")
MAX_HEAD = 16_000_000
MAX_BLOB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Message:
    """What is said, and the bytes that go with it."""

    head: dict[str, Any]
    blobs: tuple[bytes, ...] = ()


def pack(message: Message) -> bytes:
    """A message as bytes: the length of its JSON, the JSON with the sizes of the blobs, the blobs."""
    head = json.dumps({"sizes": [len(blob) for blob in message.blobs], **message.head}).encode()
    return b"".join((LENGTH.pack(len(head)), head, *message.blobs))


def read(file: BufferedRWPair) -> Message | None:
    """The next message of a blocking file; None at its end."""
    start = file.read(LENGTH.size)
    if len(start) < LENGTH.size:
        return None
    head = json.loads(file.read(LENGTH.unpack(start)[0]))
    return Message(head, tuple(file.read(size) for size in head.pop("sizes")))


async def receive(reader: asyncio.StreamReader) -> Message:
    """The next message of a stream.

    Raises EOFError where the other side is gone and ValueError for what is no message.
    """
    length = LENGTH.unpack(await reader.readexactly(LENGTH.size))[0]
    if length > MAX_HEAD:
        raise ValueError(f"a message of {length} bytes")
    head = json.loads(await reader.readexactly(length))
    return Message(head, tuple([await reader.readexactly(size) for size in _sizes(head)]))


def _sizes(head: Any) -> Sequence[int]:
    sizes: list[int] = head.pop("sizes")
    if not all(isinstance(size, int) and 0 <= size <= MAX_BLOB for size in sizes):
        raise ValueError(f"blobs of {sizes} bytes")
    return sizes


START_S = 60.0
STOP_S = 2.0
RETRY_S = 1.0
QUEUE_S = 60.0
"""How long a task waits for an idle worker."""
LOG = logging.getLogger("deepfer.serve")
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG", "HOME", "TMPDIR")
"""What a worker sees of the environment: no token, no credentials."""

Answer = Callable[[Message], Awaitable[Message]]


class WorkerProcess:
    """One worker and the connection to it."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, setup: dict[str, Any]) -> WorkerProcess:
        """Start a worker and wait until it is ready. Raises DeepferError where it does not come up."""
        ours, theirs = socket.socketpair()
        environment = {key: os.environ[key] for key in ENVIRONMENT if key in os.environ} | {
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "deepfer_yolo.serve.decode_worker", str(theirs.fileno()),
                pass_fds=[theirs.fileno()], env=environment, stdin=asyncio.subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=4_000_000)
        worker = cls(process, reader, writer)
        try:
            async with asyncio.timeout(START_S):
                await worker.exchange(Message(setup), None)
        except (EOFError, OSError, TimeoutError):
            await worker.kill()
            raise DeepferError(
                "a decode worker did not start", "its own message stands above; deepfer doctor checks the installation"
            ) from None
        return worker

    async def exchange(self, message: Message, answer: Answer | None) -> Message:
        """Send a task and wait for its result; what the worker asks meanwhile goes to `answer`."""
        await self._send(message)
        while True:
            reply = await receive(self._reader)
            if "n" not in reply.head or answer is None:
                return reply
            await self._send(await answer(reply))

    async def _send(self, message: Message) -> None:
        self._writer.write(pack(message))
        await self._writer.drain()

    async def kill(self) -> None:
        """End the process, whatever it does."""
        self._writer.close()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """Let the process end by itself: it does when its connection closes."""
        self._writer.close()
        try:
            async with asyncio.timeout(STOP_S):
                await self.process.wait()
        except TimeoutError:
            await self.kill()


class Pool:
    """Hands tasks to idle workers, first come, first served."""

    def __init__(self, setup: dict[str, Any], n_workers: int) -> None:
        self._setup = setup
        self._n_workers = n_workers
        self._idle: asyncio.Queue[WorkerProcess] = asyncio.Queue()
        self._all: set[WorkerProcess] = set()
        self._restarts: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.n_crashes = 0
        self.n_timeouts = 0

    async def start(self) -> None:
        """Start all workers. Raises DeepferError where one does not come up."""
        await asyncio.gather(*(self._add() for _ in range(self._n_workers)))

    async def close(self) -> None:
        """Stop all workers."""
        self._is_closed = True
        for task in self._restarts:
            task.cancel()
        await asyncio.gather(*(worker.stop() for worker in self._all))
        self._all.clear()

    @property
    def n_alive(self) -> int:
        """How many workers are up."""
        return len(self._all)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are up."""
        return [worker.process.pid for worker in self._all]

    async def run(self, message: Message, *, timeout_s: float, answer: Answer | None = None) -> Message:
        """The result of one task. Raises Problem where the file is refused, took too long or took its worker down."""
        async with self._borrow() as worker:
            try:
                async with asyncio.timeout(timeout_s):
                    reply = await worker.exchange(message, answer)
            except TimeoutError:
                self.n_timeouts += 1
                self._discard(worker)
                raise Problem(422, f"decoding took longer than {timeout_s:g} s") from None
            except (EOFError, OSError, ValueError, json.JSONDecodeError):
                self.n_crashes += 1
                self._discard(worker)
                raise Problem(422, "the file could not be decoded: its decode worker stopped") from None
            except BaseException:
                # The request was given up half way: the connection holds half a conversation.
                self._discard(worker)
                raise
        if "error" in reply.head:
            raise Problem(int(reply.head["status"]), str(reply.head["error"]))
        return reply

    @asynccontextmanager
    async def _borrow(self) -> AsyncIterator[WorkerProcess]:
        try:
            async with asyncio.timeout(QUEUE_S):
                worker = await self._idle.get()
        except TimeoutError:
            raise Problem(503, "all decode workers are busy", headers={"Retry-After": "5"}) from None
        try:
            yield worker
        finally:
            if worker in self._all:
                self._idle.put_nowait(worker)

    def _discard(self, worker: WorkerProcess) -> None:
        self._all.discard(worker)
        task = asyncio.create_task(self._replace(worker))
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _replace(self, worker: WorkerProcess) -> None:
        await worker.kill()
        while not self._is_closed:
            try:
                await self._add()
            except DeepferError as error:
                LOG.error("%s", error.message)
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _add(self) -> None:
        worker = await WorkerProcess.start(self._setup)
        self._all.add(worker)
        self._idle.put_nowait(worker)
