"""From an image to the model's input: a grey one is resized as one channel and must give the very bits of three."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.runtime.preprocess import to_input, to_inputs

BILINEAR = Image.Resampling.BILINEAR


@pytest.mark.parametrize("size", [(48, 48), (64, 64), (200, 201), (37, 90), (111, 52), (20, 20)])
def test_one_channel_gives_the_bits_of_three(size: tuple[int, int]) -> None:
    height, width = size
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    found = to_input(image, InputSpec(size=64, colour="grey", native_px=48))
    np.testing.assert_array_equal(found, to_input(grey, InputSpec(size=64, colour="rgb", native_px=48)))
    assert found.shape == (64, 64, 3)
    assert found.dtype == np.uint8


def test_a_square_is_what_pillow_makes_of_it() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).convert("L").resize((64, 64), BILINEAR).convert("RGB"))
    np.testing.assert_array_equal(to_inputs([image], InputSpec(size=64, colour="grey", native_px=48))[0], expected)


@pytest.mark.parametrize("size", [(48, 48), (64, 64), (200, 201), (37, 90), (111, 52), (20, 20), (1, 300), (400, 300)])
@pytest.mark.parametrize("spec", [(64, "grey", 48), (64, "grey", None), (31, "grey", None), (64, "rgb", 48)])
def test_images_that_are_resized_together_have_the_bits_of_each(
    size: tuple[int, int], spec: tuple[int, str, int]
) -> None:
    random, input_size = np.random.default_rng(size[0]), InputSpec(size=spec[0], colour=spec[1], native_px=spec[2])
    planes = [random.integers(0, 256, size, dtype=np.uint8) for _ in range(5)]
    others = [random.integers(0, 256, shape, dtype=np.uint8) for shape in ((50, 50), (60, 70, 3), (*size, 3))]
    images = [planes[0], others[0], planes[1], others[1], others[2], *planes[2:]]
    found = to_inputs(iter(images), input_size)
    assert found.shape == (8, spec[0], spec[0], 3)
    for image, crop in zip(images, found, strict=True):
        of_three = np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image
        np.testing.assert_array_equal(crop, to_input(of_three, input_size))
