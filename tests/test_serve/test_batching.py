"""Requests that arrive together are labelled together, and each gets its own rows."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np

from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.serve.batching import Batcher
from deepfer_yolo.serve.metrics import Metrics
from deepfer_yolo.servers import ServeConfig


class Slow:
    """A classifier whose every inference takes 20 ms, and which remembers its batches."""

    def __init__(self, path: Path) -> None:
        self._classifier = Classifier(path)
        self.card = self._classifier.card
        self.batches: list[int] = []

    def predict(self, crops: Crops) -> Probs:
        self.batches.append(len(crops))
        time.sleep(0.02)
        return self._classifier.predict(crops)


async def ask_all(model: Slow, groups: list[Crops], **settings: Any) -> list[Probs]:
    batcher = Batcher(model, ServeConfig(**settings), Metrics())
    await batcher.start()
    answers = await asyncio.gather(*(batcher.predict(group) for group in groups))
    await batcher.close()
    return list(answers)


def test_waiting_requests_are_labelled_together_and_get_their_own_rows(linear_model: Path) -> None:
    model = Slow(linear_model)
    crops = np.random.RandomState(0).randint(0, 256, (24, 24, 24, 3)).astype(np.uint8)
    groups = [crops[:1], crops[1:4], crops[4:4], crops[4:14], crops[14:24]]
    answers = asyncio.run(ask_all(model, groups, max_batch=16, max_wait_ms=0))
    assert model.batches[1:] == [14, 10]
    assert [len(answer) for answer in answers] == [1, 3, 0, 10, 10]
    assert np.allclose(np.concatenate(answers), Classifier(linear_model).predict(crops), atol=1e-6)


def test_a_batch_waits_for_company_only_while_some_is_coming(linear_model: Path) -> None:
    model = Slow(linear_model)
    crop = np.zeros((1, 24, 24, 3), np.uint8)

    async def ask(n_coming: int) -> float:
        batcher = Batcher(model, ServeConfig(max_batch=2, max_wait_ms=300), Metrics())
        await batcher.start()
        batcher.n_coming = n_coming
        began = time.perf_counter()
        await batcher.predict(crop)
        waited = time.perf_counter() - began
        await batcher.close()
        return waited

    assert asyncio.run(ask(0)) < 0.29 < asyncio.run(ask(1))


def test_a_failing_inference_fails_its_requests_and_no_others(linear_model: Path) -> None:
    class Failing(Slow):
        def predict(self, crops: Crops) -> Probs:
            if crops.any():
                raise RuntimeError("broken")
            return super().predict(crops)

    async def ask() -> list[Any]:
        batcher = Batcher(Failing(linear_model), ServeConfig(max_batch=1, max_wait_ms=0), Metrics())
        await batcher.start()
        dark, bright = np.zeros((1, 24, 24, 3), np.uint8), np.ones((1, 24, 24, 3), np.uint8)
        answers = await asyncio.gather(
            batcher.predict(dark), batcher.predict(bright), batcher.predict(dark), return_exceptions=True
        )
        await batcher.close()
        return answers

    assert [type(answer).__name__ for answer in asyncio.run(ask())] == ["ndarray", "RuntimeError", "ndarray"]
