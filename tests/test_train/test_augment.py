"""Augmentation by hand-computed images, and its independence from the order of batches."""

from __future__ import annotations

import pytest
import torch

from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.train.augment import Draws, augment, cut_mix, mix, soft_targets

KEYS = ("fliplr", "degrees", "translate", "scale", "shear", "brightness", "contrast", "erasing", "mixup")
STILL = dict.fromkeys(KEYS, 0.0)


def images(n: int = 4, size: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (n, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def run(changes: dict[str, float], pixels: torch.Tensor, size: int | None = None, epoch: int = 0) -> torch.Tensor:
    config = TrainConfig(**{**STILL, **changes})  # type: ignore[arg-type]
    return augment(pixels, Draws(config, len(pixels), epoch), torch.arange(len(pixels)), size or pixels.shape[-1])


def test_with_everything_off_an_image_is_itself() -> None:
    pixels = images()
    assert torch.allclose(run({}, pixels), pixels / 255, atol=1e-6)


def test_flip_mirrors_left_and_right() -> None:
    pixels = images()
    assert torch.allclose(run({"fliplr": 1.0}, pixels), pixels.flip(3) / 255, atol=1e-5)


def test_half_of_the_images_are_flipped_at_one_half() -> None:
    draws = Draws(TrainConfig(**{**STILL, "fliplr": 0.5}), 4000, 0)  # type: ignore[arg-type]
    assert 0.45 < float((draws.theta[:, 0, 0] < 0).float().mean()) < 0.55


def test_shift_and_scale_stay_inside_their_ranges_and_reach_them() -> None:
    config = TrainConfig(**{**STILL, "translate": 0.1, "scale": 0.2, "fliplr": 0.0})  # type: ignore[arg-type]
    draws = Draws(config, 4000, 0)
    shift = draws.theta[:, :, 2].abs() / 2  # of the image's side
    zoom = 1 / draws.theta[:, 0, 0]
    assert 0.095 < float(shift.max()) <= 0.1
    assert float(zoom.min()) == pytest.approx(0.8, abs=0.005)
    assert float(zoom.max()) == pytest.approx(1.2, abs=0.005)


def test_rotation_keeps_angles_and_lengths() -> None:
    draws = Draws(TrainConfig(**{**STILL, "degrees": 10.0}), 1000, 0)  # type: ignore[arg-type]
    a = draws.theta[:, :, :2]
    assert torch.allclose(a @ a.transpose(1, 2), torch.eye(2).expand(1000, 2, 2), atol=1e-5)
    angle = torch.rad2deg(torch.atan2(a[:, 1, 0], a[:, 0, 0]))
    assert 9.8 < float(angle.abs().max()) <= 10.001


def test_contrast_keeps_the_mean_and_brightness_moves_it() -> None:
    pixels = images() // 4 + 96  # away from black and white, where clipping would move the mean
    before = (pixels / 255).mean((1, 2, 3))
    assert torch.allclose(run({"contrast": 0.5}, pixels).mean((1, 2, 3)), before, atol=1e-5)
    assert float((run({"brightness": 0.2}, pixels).mean((1, 2, 3)) - before).abs().max()) > 0.02


def test_erasing_fills_a_rectangle_with_the_mean() -> None:
    pixels = images(64, 32)
    changed = run({"erasing": 1.0}, pixels) - pixels / 255
    share = (changed.abs() > 1e-4).float().mean((1, 2, 3))
    assert float(share.min()) > 0.002
    assert float(share.max()) < 0.13


def test_an_enlarged_image_is_what_bilinear_gives() -> None:
    pixels = images(2, 8)
    wanted = torch.nn.functional.interpolate(pixels / 255, (16, 16), mode="bilinear", align_corners=False)
    assert torch.allclose(run({}, pixels, 16), wanted, atol=1e-5)


def test_what_happens_to_an_image_depends_on_seed_epoch_and_index_alone() -> None:
    pixels = images(16)
    config = TrainConfig()
    draws = Draws(config, 16, epoch=3)
    whole = augment(pixels, draws, torch.arange(16), 8)
    order = torch.tensor([5, 0, 11])
    assert torch.equal(augment(pixels[order], draws, order, 8), whole[order])
    assert torch.equal(augment(pixels, Draws(config, 16, epoch=3), torch.arange(16), 8), whole)
    assert not torch.equal(augment(pixels, Draws(config, 16, epoch=4), torch.arange(16), 8), whole)


def test_soft_targets_by_hand() -> None:
    assert torch.allclose(soft_targets(torch.eye(4)[1:2], 0.2), torch.tensor([[0.05, 0.85, 0.05, 0.05]]))


def test_mixup_by_hand() -> None:
    images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    targets = torch.eye(2)
    mixed, soft = mix(images, targets, torch.tensor([0.75, 0.6]))
    assert torch.allclose(mixed.flatten(), torch.tensor([0.25, 0.6]))
    assert torch.allclose(soft, torch.tensor([[0.75, 0.25], [0.4, 0.6]]))


def test_cutmix_takes_pixels_and_as_large_a_share_of_the_target_from_the_neighbour() -> None:
    images = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    box = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]])
    cut, targets = cut_mix(images, torch.eye(2), box)
    assert float(cut[0].sum()) == 16
    assert torch.allclose(cut[0, 0, :4, :4], torch.ones(4, 4))
    assert torch.allclose(cut[1], images[1])
    assert torch.allclose(targets, torch.tensor([[0.75, 0.25], [0.0, 1.0]]))


def test_an_image_is_cut_or_mixed_and_never_both() -> None:
    draws = Draws(TrainConfig(mixup=0.4, cutmix=0.5), 2000, 0)
    cut = draws.cut[:, 2] > 0
    assert 0.45 < float(cut.float().mean()) < 0.55
    assert bool((draws.share[cut] == 1).all())
    assert float(draws.cut[:, 2].max()) ** 2 <= 0.5


def test_gamma_keeps_black_and_white_and_moves_what_lies_between() -> None:
    pixels = torch.tensor([0, 128, 255], dtype=torch.uint8).repeat(8, 1, 3, 1)
    bent = run({"gamma": 1.0}, pixels)
    assert torch.allclose(bent[:, 0, 1, 0], torch.zeros(8), atol=1e-6)
    assert torch.allclose(bent[:, 0, 1, 2], torch.ones(8), atol=1e-6)
    assert 0.25 < float(bent[:, 0, 1, 1].min()) < 0.5 < float(bent[:, 0, 1, 1].max()) < 0.75


def test_blur_keeps_what_is_flat_and_softens_an_edge() -> None:
    pixels = torch.zeros(8, 1, 16, 16, dtype=torch.uint8)
    pixels[..., 8:] = 200
    soft = run({"blur": 1.0}, pixels)
    assert torch.allclose(soft[..., :5], torch.zeros(8, 1, 16, 5), atol=1e-6)
    assert torch.allclose(soft[..., 11:], torch.full((8, 1, 16, 5), 200 / 255), atol=1e-5)
    # Left of the edge a whole Gaussian of one pixel shows 31 % of the bright side; the share of each image is drawn.
    assert 0.2 < float(soft[:, 0, 8, 7].max()) / (200 / 255) < 0.31
    assert float(soft[:, 0, 8, 7].min()) < 0.1


def test_noise_has_the_strength_that_is_drawn_and_no_mean() -> None:
    pixels = torch.full((64, 1, 32, 32), 128, dtype=torch.uint8)
    changed = run({"noise": 0.1}, pixels) - 128 / 255
    spread = changed.std((1, 2, 3))
    assert 0.08 < float(spread.max()) < 0.11
    assert float(spread.min()) < 0.02
    assert abs(float(changed.mean())) < 0.002


def test_around_an_image_stands_its_neighbour_instead_of_a_repeated_border() -> None:
    pixels = torch.stack([torch.full((1, 8, 8), value, dtype=torch.uint8) for value in (10, 200)] * 8)
    alone, among = (run({"scale": 0.5, "surround": share}, pixels) for share in (0.0, 1.0))
    assert torch.allclose(alone, (pixels / 255).expand_as(alone), atol=1e-6)
    strange = (among - alone).abs() > 0.5
    assert bool(strange[:, 0, 0, 0].any())  # a corner of an image that was made smaller
    assert not bool(strange[:, 0, 2:6, 2:6].any())


def test_noise_and_blur_depend_on_seed_epoch_and_index_alone() -> None:
    pixels, config = images(16), TrainConfig(noise=0.1, blur=0.5)
    draws, order = Draws(config, 16, epoch=3), torch.tensor([5, 0, 11])
    whole = augment(pixels, draws, torch.arange(16), 8)
    assert torch.equal(augment(pixels[order], draws, order, 8), whole[order])
    assert not torch.equal(augment(pixels, Draws(config, 16, epoch=4), torch.arange(16), 8), whole)
