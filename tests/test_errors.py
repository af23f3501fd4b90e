"""Errors as data: fields beside the message, in any process."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfer_yolo.data.images import load_image
from deepfer_yolo.errors import (
    DatasetError,
    DeepferError,
    ImageTooLargeError,
    LeakError,
    MissingDependencyError,
    listed,
    redact,
)
from deepfer_yolo.files import explain_os_error, os_reason
from deepfer_yolo.stream.source_errors import SourceReadError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DatasetError("there are none"), "there are none"),
        (DatasetError("broken", path=Path("a: b.png")), "a: b.png: broken"),
        (DatasetError("two values", path="t.csv", line=7), "t.csv, line 7: two values"),
        (DatasetError("holds {nothing}", path="{a}"), "{a}: holds {nothing}"),
    ],
)
def test_the_message_is_made_of_the_fields(error: DatasetError, message: str) -> None:
    assert (error.message, str(error)) == (message, message)


def test_the_same_error_about_another_path() -> None:
    moved = ImageTooLargeError("is huge", "shrink it", path="a.png", line=2).at("b.png")
    assert (type(moved), moved.message, moved.hint) == (ImageTooLargeError, "b.png, line 2: is huge", "shrink it")


@pytest.mark.parametrize(
    "error",
    [
        LeakError("learned", "another model", path=Path("val/a.png"), line=3),
        DatasetError("broken", path="a.png"),
        SourceReadError("gone", "not-found"),
        MissingDependencyError.for_extra("train", "torch"),
    ],
)
def test_errors_keep_their_fields_from_process_to_process(error: DeepferError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), str(arrived), vars(arrived)) == (type(error), str(error), vars(error))


def test_an_image_error_says_why_apart_from_where(tmp_path: Path, png: bytes) -> None:
    path = tmp_path / "not an image in a known format: a.png"
    path.write_bytes(b"text")
    with pytest.raises(DatasetError) as caught:
        load_image(path)
    assert (caught.value.path, caught.value.reason) == (str(path), "not an image in a known format")
    assert caught.value.message == f"{path}: not an image in a known format"
    path.write_bytes(png)
    with pytest.raises(ImageTooLargeError) as large:
        load_image(path, max_pixels=11)
    assert (large.value.path, large.value.reason) == (str(path), "4×3 pixels are more than the limit of 11")
    with pytest.raises(ImageTooLargeError) as unnamed:
        load_image(png, max_pixels=11)
    assert (unnamed.value.path, unnamed.value.message) == (None, "4×3 pixels are more than the limit of 11")


def test_an_error_of_the_disk_says_why_apart_from_where(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "none").read_bytes()
    assert os_reason(caught.value) == "no such file or folder"
    explained = explain_os_error(caught.value)
    assert explained is not None
    assert explained.message == f"no such file or folder: {tmp_path / 'none'}"
    assert os_reason(OSError("something else")) == "something else"


@pytest.fixture
def png() -> bytes:
    """A picture of 4×3 pixels."""
    import io

    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", (4, 3)).save(content, "PNG")
    return content.getvalue()


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="&#=@"), min_size=3))
def test_values_of_a_query_are_hidden(token: str) -> None:
    assert redact(f"https://host/cam.mjpg?token={token}&size=2") == "https://host/cam.mjpg?token=***&size=***"


def test_plain_urls_and_paths_stay_as_they_are() -> None:
    assert redact("rtsp://camera.local:8554/a/b") == "rtsp://camera.local:8554/a/b"
    assert redact("/srv/a@b.mp4") == "/srv/a@b.mp4"


def test_a_long_list_is_cut() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(i) for i in range(1234)], 2) == "0, 1 and 1,232 more"
