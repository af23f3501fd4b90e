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
