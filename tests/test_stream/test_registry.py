"""Outputs: nothing that is there is lost, and what cannot be written is refused before a source is opened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.errors import DeepferError
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.stream.session import run_stream
from deepfer_yolo.stream.sinks.images import SnapshotSink, VideoSink

WHOLE = StreamConfig(detector="whole")


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a source fails the test."""

    def never(*_: Any) -> Any:
        raise AssertionError("a source was opened")

    monkeypatch.setattr("deepfer_yolo.stream.reader.open_source", never)


def test_an_existing_file_is_kept_without_overwrite(
    make_clip: Callable[..., Path], model: Classifier, tmp_path: Path
) -> None:
    old = tmp_path / "o.jsonl"
    old.write_text("precious\n")
    with pytest.raises(DeepferError, match=r"o\.jsonl"):
        run_stream([str(make_clip())], model, [f"jsonl={old}"], StreamConfig(detector="whole"))
    assert old.read_text() == "precious\n"
    run_stream([str(make_clip())], model, [f"jsonl={old}"], StreamConfig(detector="whole", overwrite=True))
    assert "precious" not in old.read_text()


@pytest.mark.usefixtures("unopened")
def test_no_video_is_replaced_unasked_where_names_come_from_sources(
    make_clip: Callable[..., Path], model: Classifier, tmp_path: Path
) -> None:
    old, clips = tmp_path / "v-door.mp4", [str(make_clip("cam.mp4")), str(make_clip("door.mp4"))]
    old.write_bytes(b"precious")
    with pytest.raises(DeepferError, match=r"exists: .*v-door\.mp4, which video="):
        run_stream(clips, model, [f"video={tmp_path / 'v.mp4'}"], WHOLE)
    overwriting = StreamConfig(detector="whole", overwrite=True)
    with pytest.raises(DeepferError, match="a source of this run"):
        run_stream([str(old), clips[1]], model, [f"video={tmp_path / 'v.mp4'}"], overwriting)
    assert old.read_bytes() == b"precious"


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("name", ["o.000001.jsonl", "o.123456789.jsonl"])
def test_full_files_of_another_run_are_refused(
    name: str, make_clip: Callable[..., Path], model: Classifier, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("precious\n")
    with pytest.raises(DeepferError, match=name):
        run_stream([str(make_clip())], model, [f"jsonl={tmp_path / 'o.jsonl'}"], WHOLE)
    assert {path.name for path in tmp_path.iterdir()} == {name, "clip.mp4"}


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize(
    "sinks",
    [
        ("jsonl=o.x", "csv=o.x"),
        ("jsonl=o.jsonl", "jsonl=o.000002.jsonl"),
        ("jsonl=o.000002.jsonl", "jsonl=o.jsonl"),
        ("video=v.mp4", "video=./v.mp4"),
    ],
)
def test_two_outputs_may_not_share_a_file(
    sinks: tuple[str, str],
    make_clip: Callable[..., Path],
    model: Classifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeepferError, match="same file"):
        run_stream([str(make_clip())], model, sinks, WHOLE)


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("kind", ["jsonl", "csv", "video", "snapshots"])
@pytest.mark.parametrize("folder", ["file/below", "file", "n" * 300])
def test_what_cannot_be_written_is_refused(
    kind: str, folder: str, make_clip: Callable[..., Path], model: Classifier, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("precious")
    target = tmp_path / folder if kind == "snapshots" else tmp_path / folder / "v.mp4"
    with pytest.raises((DeepferError, OSError), match=r"written|too long"):
        run_stream([str(make_clip())], model, ["jsonl=-", f"{kind}={target}"], WHOLE)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "clip.mp4"}
    assert (tmp_path / "file").read_text() == "precious"


def test_snapshots_of_equal_names_are_both_kept(tmp_path: Path, result_of: Callable[..., Any]) -> None:
    from deepfer_yolo.stream.records import Output

    for overwrite in (False, False, True):
        sink = SnapshotSink(str(tmp_path), ["cam"], StreamConfig(overwrite=overwrite))
        sink.open()
        sink.write(Output((), result_of(7)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cam-0-000007-1-happy-2.jpg",
        "cam-0-000007-1-happy.jpg",
    ]


def test_sources_of_equal_names_get_files_of_their_own(
    make_clip: Callable[..., Path], model: Classifier, tmp_path: Path
) -> None:
    clips = []
    for folder, n in (("a", 5), ("b", 9)):
        (tmp_path / folder).mkdir()
        clips.append(make_clip(f"{folder}/cam.mp4", times=[i / 25 for i in range(n)]))
    out = tmp_path / "out"
    lines = out / "o.jsonl"
    run_stream([str(clip) for clip in clips], model, [f"video={out / 'v.mp4'}", f"jsonl={lines}"], WHOLE)
    assert sorted(path.name for path in out.iterdir()) == ["o.jsonl", "v-cam-2.mp4", "v-cam.mp4"]
    assert sum(json.loads(line)["kind"] == "face" for line in lines.read_text().splitlines()) == 14
    import av

    for name, n in (("v-cam.mp4", 5), ("v-cam-2.mp4", 9)):
        with av.open(str(out / name)) as container:
            assert sum(1 for _ in container.decode(video=0)) == n


def test_the_files_of_one_source_leave_those_of_another_alone(tmp_path: Path, result_of: Callable[..., Any]) -> None:
    """The second file of `cam` would be called as the first of `cam-2`, which may come later."""
    from deepfer_yolo.stream.records import Output

    sink = VideoSink(str(tmp_path / "v.mp4"), ["cam", "cam-2"], WHOLE)
    sink.open()
    sink.write(Output((), result_of(0)))
    sink.write(Output((), result_of(1, size=(320, 300))))
    sink.write(Output((), result_of(2, source="cam-2")))
    sink.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v-cam-2.mp4", "v-cam-3.mp4", "v-cam.mp4"]
