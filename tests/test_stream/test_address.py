"""Names of sources, and that no password is ever in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfer_yolo.data.shards import Shard
from deepfer_yolo.errors import DeepferError, SourceError, redact
from deepfer_yolo.stream.address import MAX_LIVE, parse_source, parse_sources, read_cameras, scrub, slug, slugs

PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=4, max_size=30)


@given(PASSWORDS)
def test_a_password_of_any_form_is_hidden(password: str) -> None:
    url = f"rtsp://user:{password}@10.0.0.9:554/live"
    shown = redact(url)
    assert shown.endswith("10.0.0.9:554/live")
    assert password not in shown.replace("10.0.0.9:554/live", "")
    assert "user" not in shown
    assert password not in scrub(f"[Errno 5] no: {url!s} ({password})", url).replace("[Errno 5] no: ", "").replace(
        "10.0.0.9:554/live", ""
    )


def test_the_address_does_not_show_its_target() -> None:
    (address,) = parse_source("rtsp://user:secret@host/x")
    assert address.kind == "network"
    assert "secret" not in f"{address} {address!r}"


def test_kinds(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.MKV", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [address.name for address in parse_source(str(tmp_path))] == [
        str(tmp_path / "a.MKV"),
        str(tmp_path / "b.mp4"),
    ]
    assert [parse_source(text)[0].kind for text in ("0", "/dev/video2", "testsrc=size=64x48", "http://host/x")] == [
        *("camera", "camera", "pattern", "network")
    ]
    assert [address.name for address in parse_sources(["0", "0", "1"])] == ["camera 0", "camera 0 #2", "camera 1"]


def test_an_error_about_a_source_hides_its_password() -> None:
    with pytest.raises(SourceError) as caught:
        parse_source("weird://user:secret@host/x")
    assert "secret" not in str(caught.value)


@given(st.text(max_size=200))
def test_slugs_are_safe_file_names(name: str) -> None:
    made = slug(name)
    assert 0 < len(made) <= 80
    assert "/" not in made
    assert not made.startswith(".")


def test_no_two_names_share_a_slug() -> None:
    assert slugs(["a/cam.mp4", "b/cam.mp4", "c/cam-2.mp4", "door"]) == {
        "a/cam.mp4": "cam",
        "b/cam.mp4": "cam-2",
        "c/cam-2.mp4": "cam-2-2",
        "door": "door",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "rtsp://",
        "http:///x",
        "http://[::1/x",
        "http://host:99999/x",
        "rtsp://bob:secret@host:abc/x",
        "rtsp://bob:secret/x@host",
    ],
)
def test_what_names_nothing_is_refused_at_once(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as caught:
        parse_source(text)
    assert "secret" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    "text", ["udp://:1234", "http://[::1]:80/x", "rtsp://bob:p@w:d@host:554/x", "http://host/a@b", "srt://host:9"]
)
def test_unusual_urls_are_taken(text: str) -> None:
    assert parse_source(text)[0].kind == "network"


def test_live_sources_are_bounded_and_files_less_so(tmp_path: Path) -> None:
    """Live ones are all open at once."""
    (tmp_path / "cameras.txt").write_text("".join(f"{n}\n" for n in range(MAX_LIVE + 1)))
    with pytest.raises(SourceError, match="1,001 sources"):
        parse_sources([f"@{tmp_path / 'cameras.txt'}"])
    for n in range(MAX_LIVE + 1):
        (tmp_path / f"{n}.mp4").touch()
    assert len(parse_sources([str(tmp_path)])) == MAX_LIVE + 1


CAMERAS = """# two doors and a test picture
front-door: rtsp://ann:s3cret@10.0.0.2/live
back door: http://10.0.0.3/x.mjpg
usb: 0
picture: testsrc=size=64x48
"""


def test_a_file_of_cameras_names_sources_and_shards_part_them(tmp_path: Path) -> None:
    file = tmp_path / "cameras.yaml"
    file.write_text(CAMERAS)
    found = read_cameras(file)
    assert [(one.name, one.kind) for one in found] == [
        ("front-door", "network"), ("back door", "network"), ("usb", "camera"), ("picture", "pattern"),
    ]  # fmt: skip
    assert found[0].target == "rtsp://ann:s3cret@10.0.0.2/live"
    assert "s3cret" not in repr(found)
    # A name decides, not the address or the place in the file: a new password moves nothing.
    file.write_text("".join(f"camera-{n}: rtsp://host/{n}\n" for n in range(100)))
    parts = [[one.name for one in parse_sources([], file, Shard(number, 4))] for number in (1, 2, 3, 4)]
    assert sorted(name for part in parts for name in part) == sorted(f"camera-{n}" for n in range(100))
    assert all(15 <= len(part) <= 35 for part in parts)
    file.write_text("".join(f"camera-{n}: http://other/{n}\n" for n in reversed(range(100))))
    assert [one.name for one in parse_sources([], file, Shard(2, 4))] == parts[1][::-1]
    file.write_text("only: testsrc\n")
    with pytest.raises(SourceError, match=r"shard ./2 has none of the 1 sources"):
        [parse_sources([], file, Shard(number, 2)) for number in (1, 2)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("front: rtsp://ann:s3cret@10.0.0.2/live: {", "not valid yaml, line 1"),
        ("a: 0\na: rtsp://ann:s3cret@h/x", "not valid yaml, line 2"),
        ("- rtsp://ann:s3cret@10.0.0.2/live", "names no camera"),
        ("", "names no camera"),
        ("front: [rtsp://ann:s3cret@10.0.0.2/live]", "'front' has no address"),
        ("rtsp://ann:s3cret@10.0.0.2/live: 0", "a name has 1 to 100 characters"),
        ("front: rtsp://ann:s3cret@", "no host and port"),
        ("all: '*.mp4'", "names no source"),
        ("x" * 101 + ": 0", "a name has 1 to 100 characters"),
    ],
)
def test_a_file_of_cameras_that_is_none_is_refused_without_its_passwords(
    content: str, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "cameras.yaml"
    file.write_text(content)
    with pytest.raises(DeepferError, match=words) as refusal:
        read_cameras(file)
    assert "s3cret" not in f"{refusal.value} {refusal.value.hint}"
    assert refusal.value.__context__ is None or refusal.value.__suppress_context__
