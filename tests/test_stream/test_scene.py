"""What is known of one source: tracks end at a cut, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.records import Face, Frame, Image
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.stream.records import Result
from deepfer_yolo.stream.scene import Scene


class Fixed:
    """A detector that sees a face in the same place of every image."""

    name = "fixed"
    boxes = "face"

    def detect(self, image: Image) -> list[Face]:
        return [Face(np.array([40, 30, 90, 80], np.float32), 0.9)]


def shot(seed: int) -> Image:
    coarse = np.random.RandomState(seed).randint(0, 255, (9, 16, 3)).astype(np.uint8)
    return np.repeat(np.repeat(coarse, 16, axis=0), 16, axis=1)


def play(model: Classifier, images: list[Image]) -> list[Result]:
    scene = Scene(Fixed(), model.card, StreamConfig())  # type: ignore[arg-type]
    return [scene.label(Frame(i, i / 10, "pts", image, "cam"), model) for i, image in enumerate(images)]


def test_a_cut_ends_the_tracks_and_their_events(model: Classifier) -> None:
    results = play(model, [*[shot(1)] * 8, *[shot(2)] * 8])
    assert [result.tracks[0].id for result in results] == [1] * 8 + [2] * 8
    ended = [event for result in results for event in result.events]
    assert all(event.end_s <= 0.8 for event in ended)
    assert results[8].tracks[0].age_s == 0


@pytest.mark.parametrize("gain", [0.4, 1.6])
def test_light_that_changes_is_no_cut(model: Classifier, gain: float) -> None:
    bright = np.clip(shot(1) * gain, 0, 255).astype(np.uint8)
    results = play(model, [*[shot(1)] * 5, *[bright] * 5])
    assert {result.tracks[0].id for result in results} == {1}


def test_somebody_who_walks_through_is_no_cut(model: Classifier) -> None:
    images = []
    for step in range(10):
        image = shot(1).copy()
        image[:, step * 20 : step * 20 + 60] = 20
        images.append(image)
    assert {result.tracks[0].id for result in play(model, images)} == {1}
