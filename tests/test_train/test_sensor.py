"""The simulated camera, stage by stage, against what each must do by hand or by Pillow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from deepfer_yolo.painted import paint_faces
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.train import sensor
from deepfer_yolo.train.sensor import SensorDraws, photograph

SIZE = 64
ALL: dict[str, Any] = {
    "least_face_px": 12, "defocus_px": 2.5, "motion_px": 8, "sharpen": 1.5, "dark_stops": 4, "bright_stops": 1.5,
    "shot_noise": 0.1, "read_noise": 0.02, "least_quality": 8, "shade": 0.8, "haze": 0.6, "covering": 0.5,
    "ghost_px": 5, "dead_pixels": 0.1, "banding": 0.9, "warp_px": 4,
}  # fmt: skip


def faces(n: int = 6) -> torch.Tensor:
    return torch.from_numpy(paint_faces(3, n, SIZE)[0]).view(n, 1, SIZE, SIZE).float() / 255


def draws(n: int = 6, epoch: int = 0, **keys: Any) -> SensorDraws:
    return SensorDraws(TrainConfig(**{"sensor": 1.0, "stage_chance": 1.0, **keys}), n, epoch)


def taken(images: torch.Tensor, **keys: Any) -> torch.Tensor:
    return photograph(images, draws(len(images), **keys), torch.arange(len(images)))


def detail(images: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of neighbouring pixels, (n,)."""
    return images.diff(dim=3).square().mean((1, 2, 3)) + images.diff(dim=2).square().mean((1, 2, 3))


def test_a_camera_with_every_stage_off_only_rounds_to_8_bits() -> None:
    images = faces()
    assert float((taken(images) - images).abs().max()) <= 1 / 255


def test_images_that_pass_no_camera_are_not_touched() -> None:
    images = faces(200)
    camera = draws(200, **{**ALL, "sensor": 0.5})
    out = photograph(images, camera, torch.arange(200))
    same = (out == images).flatten(1).all(1)
    assert torch.equal(same, ~camera.seen)
    assert 0.35 < float(same.float().mean()) < 0.65


@pytest.mark.parametrize("stage", sorted(ALL))
def test_every_stage_changes_images_and_keeps_them_in_range(stage: str) -> None:
    images = faces(16)
    out = taken(images, **{stage: ALL[stage]})
    assert float((out - images).abs().mean((1, 2, 3)).max()) > 2 / 255, stage
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1


def test_what_happens_follows_from_seed_epoch_and_index_alone() -> None:
    images, camera = faces(12), draws(12, **ALL)
    whole = photograph(images, camera, torch.arange(12))
    order = torch.tensor([7, 2, 11, 0])
    assert torch.allclose(photograph(images[order], draws(12, **ALL), order), whole[order], atol=1e-5)
    assert not torch.allclose(photograph(images, draws(12, epoch=1, **ALL), torch.arange(12)), whole, atol=0.05)


def test_defocus_motion_and_resolution_take_detail_away_and_sharpening_adds_it() -> None:
    images = faces(24)
    before = detail(images)
    for key, value in (("defocus_px", 2.5), ("motion_px", 8.0), ("least_face_px", 12)):
        # The weakest of each kind is next to nothing.
        assert float((detail(taken(images, **{key: value})) / before).mean()) < 0.85, key
    assert float((detail(taken(images, sharpen=2.0)) / before).mean()) > 1.1


def test_a_reduced_face_is_what_pillow_makes_of_it() -> None:
    """Reduced to 16 pixels, enlarged to the 48 that a face has, then to the input: as a far face comes in."""
    down, up = sensor._resamplers(SIZE)
    image = (faces(1)[0, 0] * 255).round()
    ours = up[16, 0] @ (down[16, 0] @ image @ down[16, 0].T) @ up[16, 0].T
    wanted = PillowImage.fromarray(image.numpy().astype(np.uint8))
    for side in (16, 48, 64):
        wanted = wanted.resize((side, side), PillowImage.Resampling.BILINEAR)
    assert np.abs(ours.numpy() - np.asarray(wanted, np.float32)).max() < 2


def test_blocks_are_quantised_as_a_jpeg_of_that_quality_is() -> None:
    images = faces(4)
    for quality in (8, 30, 75):
        ours = sensor._compress(images, torch.full((4,), float(quality)))
        for image, face in zip(ours, images, strict=True):
            data = io.BytesIO()
            PillowImage.fromarray((face[0] * 255).round().byte().numpy()).save(data, "JPEG", quality=quality)
            theirs = np.asarray(PillowImage.open(data), np.float32) / 255
            assert np.abs(image[0].numpy() - theirs).mean() < 1.5 / 255, quality


def test_a_dark_sensor_sees_less_light_and_more_noise() -> None:
    images = torch.full((64, 1, SIZE, SIZE), 0.5)
    dark = taken(images, dark_stops=4.0)
    assert float(dark.mean((1, 2, 3)).min()) < 0.35
    noisy = taken(images, dark_stops=4.0, shot_noise=0.1)
    assert float((noisy.std((1, 2, 3)) / noisy.mean((1, 2, 3))).mean()) > 0.03
    assert float(taken(images, bright_stops=2.0).mean((1, 2, 3)).max()) > 0.8


def test_shot_noise_grows_with_the_root_of_the_light() -> None:
    light = torch.tensor([0.1, 0.4]).pow(1 / sensor.GAMMA).view(2, 1, 1, 1).expand(2, 1, SIZE, SIZE)
    camera = draws(2)
    camera.shot[:] = 0.05
    out = photograph(light, camera, torch.arange(2)).pow(sensor.GAMMA)
    near, far = out.std((1, 2, 3))
    assert float(far / near) == pytest.approx(2, rel=0.1)


def test_covers_are_no_larger_than_the_recipe_allows_or_lie_on_mouth_or_eyes() -> None:
    boxes = draws(2000, covering=0.5).cover
    free = (boxes[:, 2] <= 0.5) & (boxes[:, 3] <= 0.5)
    mouth = (boxes[:, 2] == 1) & (boxes[:, 1] >= 0.5)
    eyes = (boxes[:, 2] == 1) & (boxes[:, 1] < 0.4) & (boxes[:, 3] <= 0.25)
    assert bool((free | mouth | eyes).all())
    assert min(float(kind.float().mean()) for kind in (free, mouth, eyes)) > 0.2


def test_colour_is_cast_and_turned_grey_only_where_there_is_any() -> None:
    grey = faces(8)
    assert float((taken(grey, colour_cast=0.4, grey_conversion=1.0) - grey).abs().max()) <= 1 / 255
    colour = torch.stack([grey[:, 0], grey[:, 0] * 0.5, grey[:, 0] * 0.2], 1)
    cast = taken(colour, colour_cast=0.4)
    ratio = cast.mean((2, 3)) / colour.mean((2, 3))
    assert float(ratio.std(1).min()) > 0.005
    turned = taken(colour, grey_conversion=1.0)
    assert float((turned[:, 0] - turned[:, 2]).abs().max()) < 1e-6


def test_as_many_pixels_are_dead_as_the_share_says() -> None:
    images = torch.full((64, 1, SIZE, SIZE), 0.5)
    camera = draws(64, dead_pixels=0.2)
    out = photograph(images, camera, torch.arange(64))
    dead = (out == 0) | (out == 1)
    assert torch.allclose(dead.float().mean((1, 2, 3)), camera.dead, atol=0.02)


def test_a_ghost_is_the_same_image_again_nearby() -> None:
    point = torch.zeros(16, 1, SIZE, SIZE)
    point[:, :, 32, 32] = 1
    out = taken(point, ghost_px=6)
    twice = (out > 0.02).flatten(1).sum(1)
    assert bool((out[:, 0, 32, 32] > 0.5).all())
    assert int((twice >= 2).sum()) >= 12


def test_a_sway_moves_no_place_by_more_than_the_recipe_allows() -> None:
    ramp = torch.linspace(0, 1, SIZE).expand(16, 1, SIZE, SIZE).contiguous()
    moved = (taken(ramp, warp_px=4) - ramp).abs()[..., 12:-12] * SIZE * sensor.FACE_PX / SIZE
    assert 1 < float(moved.max()) < 5.5


def test_each_stage_comes_by_the_recipes_chance() -> None:
    camera = draws(4000, **ALL, stage_chance=0.2)
    for stage in (camera.dead, camera.bands, camera.warp, camera.haze, camera.kernel):
        assert 0.17 < float((stage > 0).float().mean()) < 0.23
