"""Image files: our own PNG both ways, what is left to Pillow, what is refused before it is decoded."""

from __future__ import annotations

import io
import resource
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deepfer_yolo.data.images import SIGNATURE, decode_png, encode_png, load_image
from deepfer_yolo.errors import DatasetError, ImageTooLargeError

LIMIT = 1_000_000


def random_pixels(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@given(st.integers(1, 300), st.integers(1, 300), st.booleans(), st.integers(0, 9))
def test_both_ways_and_as_pillow_reads_it(height: int, width: int, grey: bool, seed: int) -> None:
    pixels = random_pixels((height, width) if grey else (height, width, 3), seed)
    content = encode_png(pixels)
    found = decode_png(content, LIMIT)
    assert found is not None
    assert found.dtype == np.uint8
    is_one_channel = pixels.ndim == 3 and bool((pixels == pixels[:, :, :1]).all())  # as `encode_png` then writes it
    assert np.array_equal(found, pixels[:, :, 0] if is_one_channel else pixels)
    assert np.array_equal(load_image(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def test_every_single_flipped_bit_and_every_cut_is_left_to_pillow() -> None:
    content = encode_png(random_pixels((4, 5)))
    for place in range(len(content)):
        for bit in range(8):
            broken = bytearray(content)
            broken[place] ^= 1 << bit
            assert decode_png(bytes(broken), LIMIT) is None
        assert decode_png(content[:place], LIMIT) is None
    assert decode_png(content + b"x", LIMIT) is None


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA", "I;16"])
def test_the_pngs_of_others_are_left_to_pillow(mode: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(random_pixels((40, 30, 3))).convert("L" if mode == "I;16" else mode).convert(mode).save(
        buffer, "PNG"
    )
    assert decode_png(buffer.getvalue(), LIMIT) is None


def test_too_many_pixels_are_left_to_pillow_which_refuses_them(tmp_path: Path) -> None:
    content = encode_png(random_pixels((20, 30)))
    assert decode_png(content, 599) is None
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DatasetError, match="more than the limit"):
        load_image(tmp_path / "a.png", max_pixels=599)


def test_a_file_of_ours_is_read_without_pillow_and_a_broken_one_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = random_pixels((48, 48))
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(pixels))
    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.open", None)
        assert np.array_equal(load_image(path)[..., 0], pixels)
    path.write_bytes(encode_png(pixels)[:-30])
    with pytest.raises(DatasetError, match=r"a\.png"):
        load_image(path)


def test_compressed_data_are_never_unpacked() -> None:
    packed = zlib.compress(bytes(1001 * 1000))
    content = encode_png(np.zeros((1000, 1000), np.uint8))
    start = content.index(b"IDAT")
    chunk = b"IDAT" + packed
    bomb = (
        content[: start - 4]
        + len(packed).to_bytes(4, "big")
        + chunk
        + zlib.crc32(chunk).to_bytes(4, "big")
        + content[-12:]
    )
    assert load_image(bomb).shape == (1000, 1000, 3)
    assert decode_png(bomb, LIMIT) is None


def bomb_png(width: int, height: int) -> bytes:
    """A valid one-bit PNG of nothing but zeros."""
    line = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj(1)
    content = b"".join([packer.compress(line * 100) for _ in range(height // 100)]) + packer.flush()
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x01\x00\x00\x00\x00"
    parts = ((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))
    return SIGNATURE + b"".join(
        len(c).to_bytes(4, "big") + k + c + zlib.crc32(k + c).to_bytes(4, "big") for k, c in parts
    )


def test_an_image_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = bomb_png(30000, 30000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageTooLargeError, match="more than 50,000,000 pixels"):
        load_image(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000


def test_a_long_gif_and_a_long_jpeg(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), index % 256) for index in range(10_000)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "a.gif").shape == (4, 4, 3)
    Image.new("L", (65500, 8)).save(tmp_path / "b.jpg")
    assert load_image(tmp_path / "b.jpg").shape == (8, 65500, 3)
