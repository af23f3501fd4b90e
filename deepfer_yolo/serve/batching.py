"""Requests that arrive together are labelled together: one inference for the crops of many."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.backends.protocol import Model
from deepfer_yolo.serve.metrics import Metrics
from deepfer_yolo.servers import ServeConfig


class _Waiting(NamedTuple):
    crops: Crops
    answer: asyncio.Future[Probs]


class Batcher:
    """Collects crops for at most `max_wait_ms`, or until there are `max_batch`, and gives each request its own rows
    back.

    While one inference runs the next batch gathers by itself, so that waiting costs a lone request nothing but
    `max_wait_ms`.
    """

    def __init__(self, model: Model, config: ServeConfig, metrics: Metrics) -> None:
        self._model = model
        self._metrics = metrics
        self._max_batch = config.max_batch
        self._max_wait_s = config.max_wait_ms / 1000
        self._waiting: deque[_Waiting] = deque()
        self._has_some = asyncio.Event()
        self._has_enough = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._task: asyncio.Task[None] | None = None
        self.n_coming = 0
        """Requests whose crops are on their way: with none, there is nothing to wait for."""

    async def start(self) -> None:
        """Begin to work, with one inference to warm up."""
        size = self._model.card.input.size
        await asyncio.get_running_loop().run_in_executor(
            self._thread, self._model.predict, np.zeros((1, size, size, 3), np.uint8)
        )
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop; what still waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
        for waiting in self._waiting:
            waiting.answer.cancel()
        self._thread.shutdown(wait=True)

    async def predict(self, crops: Crops) -> Probs:
        """Probabilities, float32 (n, C), of uint8 crops (n, S, S, 3)."""
        if len(crops) == 0:
            return np.zeros((0, len(self._model.card.labels)), np.float32)
        answer: asyncio.Future[Probs] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(crops, answer))
        self._has_some.set()
        if sum(len(waiting.crops) for waiting in self._waiting) >= self._max_batch:
            self._has_enough.set()
        return await answer

    async def _run(self) -> None:
        while True:
            await self._has_some.wait()
            await self._gather()
            batch = self._take()
            crops = batch[0].crops if len(batch) == 1 else np.concatenate([waiting.crops for waiting in batch])
            self._metrics.batches.observe(len(crops))
            try:
                probs = await asyncio.get_running_loop().run_in_executor(self._thread, self._model.predict, crops)
            except Exception as error:
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                continue
            start = 0
            for waiting in batch:
                end = start + len(waiting.crops)
                if not waiting.answer.done():  # a request may have been given up
                    waiting.answer.set_result(probs[start:end])
                start = end

    async def _gather(self) -> None:
        """Wait for company, if any is on its way."""
        if self.n_coming == 0 or self._max_wait_s == 0 or self._has_enough.is_set():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._max_wait_s):
                await self._has_enough.wait()

    def _take(self) -> list[_Waiting]:
        """The next batch; a request that alone is larger than `max_batch` is not split."""
        batch = [self._waiting.popleft()]
        n = len(batch[0].crops)
        while self._waiting and n + len(self._waiting[0].crops) <= self._max_batch:
            batch.append(self._waiting.popleft())
            n += len(batch[-1].crops)
        self._has_enough.clear()
        if not self._waiting:
            self._has_some.clear()
        return batch
