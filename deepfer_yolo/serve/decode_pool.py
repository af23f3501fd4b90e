"""The decode workers: some processes, each serving one request at a time; one that dies is replaced."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deepfer_yolo.errors import DeepferError, ImageTooLargeError, SourceTooLargeError
from deepfer_yolo.records import Face, Json, Probs
from deepfer_yolo.runtime.child_process import Message, frames, receive, received_error
from deepfer_yolo.serve.schemas import ProblemError

if TYPE_CHECKING:
    from deepfer_yolo.runtime.child_process import Blob
    from deepfer_yolo.serve.metrics import Metrics

START_S = 60.0
STOP_S = 2.0
RETRY_S = 1.0
QUEUE_S = 60.0
"""How long a task waits for an idle worker."""
LOG = logging.getLogger("deepfer.serve")
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG", "HOME", "TMPDIR")
"""What a worker sees of the environment: no token, no credentials."""

Predict = Callable[[Message], Awaitable[Probs]]
"""The probabilities of the crops that a worker asks about; it has no model."""


class Limit(NamedTuple):
    """How long a task may take, and the key that says so."""

    key: str
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a decode worker found in one image."""

    width: int
    height: int
    faces: list[Face]

    def to_json(self) -> Json:
        """The head of a worker's answer, exact; the pixels follow."""
        landmarks = [None if face.landmarks is None else face.landmarks.tolist() for face in self.faces]
        faces = [(face.box.tolist(), face.score, points) for face, points in zip(self.faces, landmarks, strict=True)]
        return {"width": self.width, "height": self.height, "faces": faces}

    @classmethod
    def of(cls, reply: Message) -> Found:
        """What `to_json` said."""
        faces = [
            Face(np.array(box, np.float32), score, None if points is None else np.array(points, np.float32))
            for box, score, points in reply.head["faces"]
        ]
        return cls(reply.head["width"], reply.head["height"], faces)


@dataclass(frozen=True, slots=True, eq=False)
class WorkerProcess:
    """One worker and the connection to it."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def start(cls, setup: Json) -> WorkerProcess:
        """Start a worker and wait until it is ready. Raises DeepferError where it does not come up."""
        ours, theirs = socket.socketpair()
        environment = {key: value for key, value in os.environ.items() if key in ENVIRONMENT}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "deepfer_yolo.serve.decode_worker", str(theirs.fileno()),
                pass_fds=[theirs.fileno()], env=environment, stdin=asyncio.subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=4_000_000)
        worker = cls(process, reader, writer)
        try:
            async with asyncio.timeout(START_S):
                await worker.exchange(setup)
        except (EOFError, OSError, TimeoutError):
            await worker.kill()
            raise DeepferError(
                "a decode worker did not start", "its own message stands above; deepfer doctor checks the installation"
            ) from None
        return worker

    async def exchange(self, head: Json, *blobs: Blob, predict: Predict | None = None) -> Message:
        """Send a task and wait for its result; meanwhile the worker may ask for probabilities."""
        await self._send(head, *blobs)
        while "n" in (reply := await receive(self.reader)).head and predict is not None:
            await self._send({}, await predict(reply))
        return reply

    async def _send(self, head: Json, *blobs: Blob) -> None:
        self.writer.writelines(frames(head, *blobs))
        await self.writer.drain()

    async def kill(self) -> None:
        """End the process, whatever it does."""
        self.writer.close()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """Let the process end by itself: it does when its connection closes."""
        self.writer.close()
        try:
            async with asyncio.timeout(STOP_S):
                await self.process.wait()
        except TimeoutError:
            await self.kill()


class Pool:
    """Hands tasks to idle workers, first come, first served."""

    def __init__(self, setup: Json, n_workers: int, metrics: Metrics) -> None:
        self._setup = setup
        self._n_workers = n_workers
        self._metrics = metrics
        self._idle: asyncio.Queue[WorkerProcess] = asyncio.Queue()
        self._all: set[WorkerProcess] = set()
        self._restarts: set[asyncio.Task[None]] = set()
        self._is_closed = False

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
    def pids(self) -> list[int]:
        """Process ids of the workers that are up."""
        return [worker.process.pid for worker in self._all]

    async def run(self, task: Json, content: bytes, *, limit: Limit, predict: Predict | None = None) -> Message:
        """The result of one task on a file's bytes; `limit` is what it may take.

        Raises ProblemError where the file is refused, took too long or took its worker down.
        """
        async with self._borrow() as worker:
            try:
                async with asyncio.timeout(limit.seconds):
                    reply = await worker.exchange(task, content, predict=predict)
            except TimeoutError:
                self._metrics.timeouts.inc()
                self._discard(worker)
                raise ProblemError(422, f"decoding took longer than {limit.seconds:g} s ({limit.key})") from None
            except (EOFError, OSError, ValueError):
                self._metrics.crashes.inc()
                self._discard(worker)
                raise ProblemError(422, "the file could not be decoded: its decode worker stopped") from None
            except BaseException:
                # The request was given up half way: the connection holds half a conversation.
                self._discard(worker)
                raise
        if "error" in reply.head:
            error = received_error(reply.head)
            is_large = isinstance(error, ImageTooLargeError | SourceTooLargeError)
            raise ProblemError(413 if is_large else 422, error.message)
        return reply

    @asynccontextmanager
    async def _borrow(self) -> AsyncIterator[WorkerProcess]:
        try:
            async with asyncio.timeout(QUEUE_S):
                worker = await self._idle.get()
        except TimeoutError:
            raise ProblemError(503, "all decode workers are busy", headers={"Retry-After": "5"}) from None
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
