"""Random curves of tones, textures and hidden parts: what each must do, and that nothing but the draws decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.train.primitives import PrimitiveDraws, disturb
from deepfer_yolo.train.sensor import SensorDraws, photograph

SIZE = 64
ALL: dict[str, Any] = {"texture": 0.2, "hidden": 0.5, "tone_curve": 0.25}


def draws(n: int, epoch: int = 0, **keys: Any) -> PrimitiveDraws:
    return PrimitiveDraws(TrainConfig(**{"sensor": 1.0, "stage_chance": 1.0, **keys}), n, epoch)


def disturbed(images: torch.Tensor, **keys: Any) -> torch.Tensor:
    return disturb(images, draws(len(images), **keys), torch.arange(len(images)))


def ramps(n: int) -> torch.Tensor:
    return torch.linspace(0, 1, SIZE).expand(n, 1, SIZE, SIZE).contiguous()


def test_what_happens_follows_from_seed_epoch_and_index_alone() -> None:
    images = ramps(12)
    whole = disturbed(images, **ALL)
    order = torch.tensor([7, 2, 11, 0])
    assert torch.equal(disturb(images[order], draws(12, **ALL), order), whole[order])
    assert not torch.allclose(disturb(images, draws(12, epoch=1, **ALL), torch.arange(12)), whole, atol=0.05)
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 1


def test_each_change_comes_by_the_recipes_chance_and_up_to_its_bound() -> None:
    given = draws(4000, stage_chance=0.2, **ALL)
    for strength, bound in ((given.texture, 0.2), (given.hidden, 0.5), (given.tone, 0.25)):
        assert 0.17 < float((strength > 0).float().mean()) < 0.23
        assert 0.9 * bound < float(strength.max()) <= bound


def test_textures_have_mean_0_and_deviation_1_and_are_of_all_kinds_of_roughness() -> None:
    textures, ranks = draws(1, **ALL).textures(SIZE)
    assert torch.allclose(textures.mean((1, 2, 3)), torch.zeros(len(textures)), atol=1e-4)
    assert torch.allclose(textures.std((1, 2, 3)), torch.ones(len(textures)), atol=1e-2)
    step = textures.diff(dim=3).square().mean((1, 2, 3))  # of neighbours: 2 in white noise
    assert float(step.max()) > 1.5
    assert float(step.min()) < 0.1
    assert np.allclose(ranks.flatten(1).sort(1).values[:, [0, -1]], [0, 1 - 1 / SIZE**2])


def test_a_texture_deviates_by_its_strength() -> None:
    grey = torch.full((200, 1, SIZE, SIZE), 0.5)
    given = draws(200, texture=0.1)
    out = disturb(grey, given, torch.arange(200))
    assert torch.allclose(out.std((1, 2, 3)), given.texture, atol=0.004)


def test_as_much_is_hidden_as_the_share_says_and_the_rest_is_as_it_was() -> None:
    white = torch.full((200, 1, SIZE, SIZE), 2.0)  # no texture is as bright
    given = draws(200, hidden=0.5)
    out = disturb(white, given, torch.arange(200))
    hidden = out != 2
    assert torch.allclose(hidden.float().mean((1, 2, 3)), given.hidden, atol=1e-3)
    assert float(out[hidden].max()) <= 1


def test_a_curve_of_tones_gives_equal_values_equal_values_and_keeps_black_black() -> None:
    images = ramps(200)
    given = draws(200, tone_curve=0.25)
    out = disturb(images, given, torch.arange(200))
    assert bool((out == out[:, :, :1]).all())  # each column of a ramp is one value
    assert bool((out[..., 0] == 0).all())
    moved = (out - images)[:, 0, 0].square().mean(1).sqrt()
    assert bool((moved <= given.tone * 1.05).all())  # clipping takes some of it away
    assert float((moved / given.tone).median()) > 0.5


def test_they_touch_only_images_that_pass_the_camera() -> None:
    images = ramps(200) * 0.8 + 0.1
    camera = SensorDraws(TrainConfig(sensor=0.5, stage_chance=1.0, **ALL), 200, 0)
    same = (photograph(images, camera, torch.arange(200)) == images).flatten(1).all(1)
    assert torch.equal(same, ~camera.seen)
    assert 0.35 < float(same.float().mean()) < 0.65


def test_random_filters_keep_the_mean_of_a_plain_image_near_and_change_edges() -> None:
    camera = SensorDraws(TrainConfig(sensor=1.0, stage_chance=1.0, any_filter=0.6), 64, 0)
    grey = torch.full((64, 1, SIZE, SIZE), 0.5)
    assert torch.allclose(photograph(grey, camera, torch.arange(64)), grey, atol=1 / 255)
    edge = ramps(64).round() * 0.5 + 0.25
    changed = (photograph(edge, camera, torch.arange(64)) - edge).abs().amax((1, 2, 3))
    assert float((changed > 0.05).float().mean()) > 0.5
