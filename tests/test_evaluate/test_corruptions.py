"""Each corruption does what its name and its level say, the same for the same seed, to grey and to colour."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from deepfer_yolo.errors import ConfigError
from deepfer_yolo.evaluate.corruptions import (
    CHUNK,
    FURTHER,
    KINDS,
    NINE,
    SIDE,
    UNSEEN,
    corrupted,
    faces_of,
    kinds_named,
)
from deepfer_yolo.painted import paint_faces

Faces = NDArray[np.uint8]


@pytest.fixture(scope="module")
def faces() -> Faces:
    return faces_of([np.repeat(face[:, :, None], 3, axis=2) for face in paint_faces(3, 5)[0]])


def at(faces: Faces, name: str, severity: int, seed: int = 0) -> NDArray[np.float64]:
    return np.concatenate(list(corrupted(faces, name, severity, seed))).astype(np.float64)


def detail(faces: NDArray[np.generic]) -> float:
    return float(np.abs(np.diff(faces.astype(float), axis=2)).mean())


@pytest.mark.parametrize("name", list(KINDS))
def test_each_kind_grows_with_its_severity_and_repeats(name: str, faces: Faces) -> None:
    levels = KINDS[name].levels
    assert levels in (tuple(sorted(levels)), tuple(sorted(levels, reverse=True)))
    changed = [at(faces, name, severity) for severity in (1, 3, 5)]
    assert all(one.shape == faces.shape for one in changed)
    distances = [float(np.abs(one - faces).mean()) for one in changed]
    assert 0 < distances[0] < distances[1] < distances[2]
    assert np.array_equal(changed[1], at(faces, name, 3))
    if name not in (
        "small face",
        "defocus",
        "over-exposure",
        "sharpened",
        "reflection",
        "smeared",
    ):  # these draw nothing
        assert not np.array_equal(changed[1], at(faces, name, 3, seed=1))


@pytest.mark.parametrize("name", list(KINDS))
def test_colour_keeps_its_channels(name: str, faces: Faces) -> None:
    tinted = np.concatenate([faces, faces // 2, faces // 4], axis=3)
    red, green, blue = np.moveaxis(at(tinted, name, 2), 3, 0)
    assert red.mean() > green.mean() > blue.mean()


def test_images_of_any_size_become_faces_of_48_pixels(faces: Faces) -> None:
    grey, colour = np.full((60, 80, 3), 9, np.uint8), np.full((30, 30, 3), (1, 2, 3), np.uint8)
    assert faces_of([grey, grey]).shape == (2, SIDE, SIDE, 1)
    both = faces_of([grey, colour])
    assert both.shape == (2, SIDE, SIDE, 3)
    assert both[1, 5, 5].tolist() == [1, 2, 3]


def test_a_part_of_the_images_is_answered_as_it_was_alone(faces: Faces) -> None:
    many = np.concatenate([faces] * (CHUNK // len(faces) + 2))
    parts = list(corrupted(many, "noise", 1))
    assert [len(part) for part in parts] == [CHUNK, len(many) - CHUNK]
    assert np.array_equal(parts[0], next(corrupted(many[:CHUNK], "noise", 1)))


def test_what_takes_detail_away_and_what_adds_it(faces: Faces) -> None:
    for name in ("small face", "defocus", "motion", "fog", "ghosting", "smeared"):
        assert detail(at(faces, name, 5)) < 0.9 * detail(faces), name
    for name in ("noise", "dead pixels", "sharpened"):
        assert detail(at(faces, name, 3)) > 1.1 * detail(faces), name


def test_light_goes_and_comes(faces: Faces) -> None:
    assert at(faces, "low light", 1).mean() < 0.8 * faces.mean()
    assert at(faces, "low light", 5).mean() < at(faces, "low light", 1).mean()
    assert at(faces, "over-exposure", 3).mean() > faces.mean()
    assert (at(faces, "over-exposure", 5) == 255).mean() > (faces == 255).mean() + 0.1
    lit = at(faces, "shadow", 5) / np.maximum(faces, 1)
    assert (lit < 0.4).mean() > 0.2
    assert (lit > 0.9).mean() > 0.2
    assert at(faces, "fog", 5).std((1, 2)).mean() < 0.4 * faces.std((1, 2)).mean()


def test_a_reflection_is_the_next_image_upside_down() -> None:
    pair = np.zeros((2, SIDE, SIDE, 1), np.uint8)
    pair[1, :8] = 255
    mirrored = at(pair, "reflection", 5)
    assert (mirrored[0, -8:] > 150).all()
    assert (mirrored[0, :-8] == 0).all()


def test_levels_are_the_shares_and_numbers_that_they_are_called() -> None:
    flat = np.full((40, SIDE, SIDE, 1), 120, np.uint8)
    for name in ("covering", "dead pixels"):
        share = (np.abs(at(flat, name, 4) - 120) > 0).mean()
        assert share == pytest.approx(KINDS[name].levels[3], abs=0.02), name
    ramp = np.tile(np.arange(SIDE, dtype=np.uint8) * 5, (40, SIDE, 1))[..., None]
    values = [len(np.unique(image)) for image in at(ramp, "posterised", 1)]
    assert max(values) == KINDS["posterised"].levels[0]
    shot = at(flat, "noise", 1)
    light = (shot / 255) ** 2.2 * KINDS["noise"].levels[0]
    assert light.std() == pytest.approx(np.sqrt((120 / 255) ** 2.2 * KINDS["noise"].levels[0] + 4), rel=0.05)


def test_geometry_moves_what_it_says() -> None:
    dot = np.zeros((60, SIDE, SIDE, 1), np.uint8)
    dot[:, 22:26, 22:26] = 255
    places = np.arange(SIDE) - (SIDE - 1) / 2

    def moved(name: str, severity: int) -> NDArray[np.float64]:
        mass = at(dot, name, severity)[..., 0]
        x, y = (mass.sum(axis) @ places / mass.sum((1, 2)) for axis in (1, 2))
        return np.hypot(x, y)

    assert moved("framing", 3).mean() == pytest.approx(KINDS["framing"].levels[2] * SIDE, rel=0.15)
    assert moved("ghosting", 1).mean() == pytest.approx(KINDS["ghosting"].levels[0] / 2, rel=0.15)
    stripe = np.zeros((20, SIDE, SIDE, 1), np.uint8)
    stripe[:, :, 20:28] = 255
    combed = at(stripe, "interlacing", 4)
    kept = (combed == stripe).all((2, 3))
    assert kept.sum(1).tolist() == [SIDE // 2] * 20
    assert (np.diff(kept.astype(int), axis=1) != 0).all()
    spread = np.count_nonzero(at(dot, "motion", 5).sum(1)[..., 0], axis=1) + np.count_nonzero(
        at(dot, "motion", 5).sum(2)[..., 0], axis=1
    )
    assert spread.mean() > 16


def test_kinds_are_chosen_by_name_and_by_group() -> None:
    assert kinds_named(()) == tuple(KINDS)
    assert [len(kinds_named([group])) for group in (NINE, FURTHER, UNSEEN)] == [9, 7, 5]
    assert kinds_named(["fog", "motion"]) == ("motion", "fog")
    with pytest.raises(ConfigError, match="'moton' \\(did you mean 'motion'"):
        kinds_named(["moton"])
