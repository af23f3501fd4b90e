"""Image formats beside the usual: AVIF, HEIC, the other names of JPEG, animations; and what is said of the rest."""

from __future__ import annotations

import contextlib
import io
import json
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from deepfer_yolo.cli.app import app
from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data import avif_size, image_formats
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.image_formats import is_avif, is_heif, is_image, why_not_read
from deepfer_yolo.data.images import load_image
from deepfer_yolo.errors import DatasetError, ImageTooLargeError, install_line
from deepfer_yolo.painted import paint_faces

runner = CliRunner()
needs_heif = pytest.mark.skipif(find_spec("pillow_heif") is None, reason="pillow-heif is not installed")
PICTURE = Image.fromarray(
    np.kron(np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
)
"""64 pixels high and 96 wide, in patches that a lossy format keeps."""


def encoded(kind: str, image: Image.Image = PICTURE, **options: Any) -> bytes:
    """An image as the bytes of a file."""
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def difference(content: bytes) -> float:
    """The mean difference from the picture, in levels."""
    return float(np.abs(load_image(content).astype(int) - np.asarray(PICTURE)).mean())


@pytest.fixture
def without_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if pillow-heif were not installed."""
    image_formats.reads_heif.cache_clear()
    monkeypatch.setattr(image_formats, "find_spec", lambda name: None)
    yield
    image_formats.reads_heif.cache_clear()


@pytest.mark.parametrize("kind", ["AVIF", pytest.param("HEIF", marks=needs_heif)])
def test_avif_and_heic_are_read_upright_in_every_mode(kind: str, tmp_path: Path) -> None:
    assert difference(encoded(kind, quality=95)) < 8
    assert load_image(encoded(kind, PICTURE.convert("L"))).shape == (64, 96, 3)
    assert load_image(encoded(kind, PICTURE.convert("RGBA"))).shape == (64, 96, 3)
    (tmp_path / "a.jpg").write_bytes(encoded(kind))  # named by what sent it, not by what it is
    assert load_image(tmp_path / "a.jpg").shape == (64, 96, 3)


def test_an_avif_that_is_shown_turned_is_read_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter to the right
    assert difference(encoded("AVIF", PICTURE.transpose(Image.Transpose.ROTATE_90), exif=exif, quality=95)) < 8


@pytest.mark.parametrize("suffix", [".jpe", ".jfif", ".jif", ".JPG", ".avif", ".webp", ".apng", ".dib", ".pbm"])
def test_names_of_images(suffix: str) -> None:
    assert is_image(Path(f"a{suffix}"))


def lying(kind: str, width: int, height: int) -> bytes:
    """An image of 600×400 whose container says another size."""
    content = encoded(kind, Image.new("RGB", (600, 400), (10, 20, 30)))
    place = content.index(b"ispe") + 8
    return content[:place] + struct.pack(">II", width, height) + content[place + 8 :]


@pytest.mark.parametrize("kind", ["AVIF", pytest.param("HEIF", marks=needs_heif)])
def test_a_container_that_understates_its_frames_is_refused_before_they_are_decoded(kind: str) -> None:
    assert load_image(lying(kind, 600, 400)).shape == (400, 600, 3)
    with pytest.raises(DatasetError) as caught:
        load_image(lying(kind, 30, 20), max_pixels=100_000)
    assert isinstance(caught.value, ImageTooLargeError) or "exceeds the maximum image size" in caught.value.message
    with pytest.raises(DatasetError):
        load_image(lying(kind, 60_000, 60_000))


AVIF = encoded("AVIF")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(AVIF) - 1), st.binary(min_size=1, max_size=6), st.integers(0, len(AVIF)))
def test_a_broken_avif_is_an_error_of_ours(place: int, bits: bytes, end: int) -> None:
    broken = (AVIF[:place] + bits + AVIF[place + len(bits) :])[: max(end, 40)]
    with contextlib.suppress(DatasetError):
        load_image(broken, max_pixels=100_000)


def test_an_avif_of_many_parts_is_refused_before_they_take_memory() -> None:
    with pytest.raises(DatasetError, match="more than 10,000 boxes"):
        load_image(AVIF + b"\0\0\0\x08free" * 20_000)
    units = bytes([5 << 3 | 2, 0]) * 20_000  # metadata of no length
    with pytest.raises(ValueError, match="more than 10,000 units"):
        avif_size._frame(units)
    # Places that take no bytes of their box.
    iloc = b"\0\0\0\0" + b"\0\0" + struct.pack(">HHHH", 1, 1, 0, 60_000)
    with pytest.raises(ValueError, match="more than 10,000 places"):
        list(avif_size._extents({b"iloc": iloc}, b""))


def test_an_animated_avif_is_refused_with_the_reason() -> None:
    with pytest.raises(DatasetError, match="animated AVIF"):
        load_image(encoded("AVIF", save_all=True, append_images=[PICTURE]))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    others = [Image.new("RGB", PICTURE.size, "black")] * 3
    options = {"lossless": True} if kind == "WEBP" else {}
    assert difference(encoded(kind, save_all=True, append_images=others, **options)) < (8 if kind == "GIF" else 1)


def test_alpha_is_dropped_and_not_blended() -> None:
    seen_through = Image.new("RGBA", (8, 8), (200, 100, 50, 0))
    assert load_image(encoded("PNG", seen_through))[0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", f"iPhone photo (HEIC), which needs: {install_line('heic')}"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL images are not read"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL images are not read"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 images are not read"),
        (b"<svg xmlns", "vector images are not read"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "a video, not an image; for videos there is: deepfer stream"),
        (b"\x1aE\xdf\xa3", "deepfer stream"),
        (b"hello", "not an image in a known format"),
    ],
)
def test_what_is_not_read_is_named(head: bytes, words: str, without_heif: None) -> None:
    assert words in why_not_read(head)
    with pytest.raises(DatasetError) as caught:
        load_image(head + bytes(100))
    assert words in caught.value.message


def test_the_kinds_of_one_container_are_told_apart() -> None:
    assert [is_avif(AVIF), is_heif(AVIF)] == [True, False]
    general = b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf"
    assert [is_avif(general), is_heif(general)] == [True, False]
    assert [is_avif(general.replace(b"avif", b"heic")), is_heif(general.replace(b"avif", b"heic"))] == [False, True]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A class tree with two images that are read, three that are not, and other files."""
    root = tmp_path / "mixed"
    for label in ("happy", "sad"):
        (root / "train" / label).mkdir(parents=True)
    faces = [Image.fromarray(face) for face in paint_faces(3, 2)[0]]
    faces[0].save(root / "train/happy/a.jfif", "JPEG")
    faces[1].save(root / "train/sad/b.avif")
    for name, head in (("c.HEIC", b"\0\0\0\x18ftypheic"), ("d.heic", b"\0\0\0\x18ftypheic"), ("e.jxl", b"\xff\x0a")):
        (root / "train/sad" / name).write_bytes(head + bytes(100))
    (root / "train/sad/notes.txt").write_text("nothing")
    (root / "train/sad/clip.mp4").write_bytes(b"nothing")
    return root


REASONS = {
    f"iPhone photos (HEIC), which need: {install_line('heic')}": 2,
    "JPEG XL images (.jxl), which are not read": 1,
    "files that are no images by their name": 1,
    "videos": 1,
}


def test_convert_and_audit_count_what_they_leave_out_by_reason(mixed: Path, tmp_path: Path, without_heif: None) -> None:
    written = convert(mixed, tmp_path / "out", ConvertConfig())
    assert written.left_out == REASONS
    assert written.counts["train"] == {"happy": 1, "sad": 1}
    shown = runner.invoke(app, ["audit", str(mixed), "--json"])
    (finding,) = [found for found in json.loads(shown.stdout)["findings"] if found["kind"] == "left-out"]
    assert finding["count"] == 5
    assert all(f"{n} {why}" in finding["message"] for why, n in REASONS.items())


def test_predict_gives_each_image_its_row_and_counts_the_rest(
    mixed: Path, linear_model: Path, without_heif: None
) -> None:
    shown = runner.invoke(app, ["predict", str(mixed), "-m", str(linear_model), "--json"])
    assert shown.exit_code == 4
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["a.jfif", "b.avif", "c.HEIC", "d.heic", "e.jxl"]
    assert ["error" in row for row in rows] == [False, False, True, True, True]
    lines = shown.stderr.splitlines()
    assert lines[0].startswith("left out: ")
    assert "1 files that are no images by their name" in lines[0]
    assert "1 videos" in lines[0]
    assert "3 of 5 images could not be read:" in lines
    assert f"  2 × an iPhone photo (HEIC), which needs: {install_line('heic')}" in lines


def test_a_class_of_iphone_photos_alone_says_what_is_missing(tmp_path: Path, without_heif: None) -> None:
    (tmp_path / "in/happy").mkdir(parents=True)
    (tmp_path / "in/happy/a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(DatasetError, match=r"no image that is read, but 1 iPhone photos"):
        convert(tmp_path / "in", tmp_path / "out", ConvertConfig())


@needs_heif
def test_iphone_photos_become_a_data_set(tmp_path: Path) -> None:
    for label in ("happy", "sad"):
        (tmp_path / "in/train" / label).mkdir(parents=True)
        (tmp_path / "in/train" / label / "IMG_1.HEIC").write_bytes(encoded("HEIF"))
    assert convert(tmp_path / "in", tmp_path / "out", ConvertConfig()).counts["train"] == {"happy": 1, "sad": 1}
