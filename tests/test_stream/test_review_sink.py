"""`--sink review=DIR`: what is kept of whom, how long, and what such a folder may hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from deepfer_yolo.config import ConvertConfig, StreamConfig
from deepfer_yolo.data import kept_faces
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import open_dataset, read_description, write_description
from deepfer_yolo.data.images import load_image
from deepfer_yolo.data.kept_faces import remove_old
from deepfer_yolo.errors import ConfigError, DatasetError, DeepferError
from deepfer_yolo.files import hold
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.stream.session import run_stream

SEES_ALL = dict.fromkeys(("min_contrast", "min_sharpness", "min_brightness"), 0)
UNSURE: dict[str, Any] = {"detector": "whole", "min_confidence": 0.99, **SEES_ALL}
TIMES = tuple(i / 5 for i in range(40))


@pytest.fixture
def kept(make_clip: Callable[..., Path], model: Classifier, tmp_path: Path) -> Callable[..., Path]:
    """A function that streams a clip of 8 s, of whose one face the model is never sure, into a folder."""

    def stream(name: str = "kept", **settings: Any) -> Path:
        clip = tmp_path / "clip.mp4"
        if not clip.exists():
            make_clip(times=TIMES)
        summary = run_stream([str(clip)], model, [f"review={tmp_path / name}"], StreamConfig(**{**UNSURE, **settings}))
        assert summary.exit_code == 0, summary.sinks
        return tmp_path / name

    return stream


def aged(folder: Path, days: float) -> None:
    """Make a folder as it is when its faces are `days` old."""
    when = (datetime.now(UTC) - timedelta(days=days)).strftime(kept_faces.STAMP)
    text = (folder / "manifest.csv").read_text()
    for path in list(folder.glob("train/*/*.png")):
        found = kept_faces.NAME.fullmatch(path.name)
        assert found is not None
        path.rename(path.with_name(path.name.replace(found[1], when)))
        text = text.replace(found[1], when)
    (folder / "manifest.csv").write_text(text)


def test_at_most_n_crops_a_track_a_second_apart_and_a_data_set_that_converts(
    kept: Callable[..., Path], model: Classifier, tmp_path: Path
) -> None:
    folder = kept(review_crops=4)
    opened = open_dataset(folder)
    assert opened.labels == tuple(sorted(model.labels))
    rows = opened.rows("train")
    assert len(rows) == 4
    assert len({row.subject for row in rows}) == 1  # crops of one track stay on one side of a new split
    frames = [int(row.source_id.split("-")[-1].split("#")[0]) for row in rows]
    assert all(b - a >= 5 for a, b in pairwise(frames))
    for row in rows:
        image = load_image(opened.path(row))
        assert model.labels[int(model.predict_images([image]).argmax())] == row.label
    described = convert(folder, tmp_path / "set", ConvertConfig(split="as-is", val=0.0))
    assert sum(described.counts["train"].values()) == 4
    assert "consent" in read_description(folder).notes[0]
    assert folder.stat().st_mode & 0o077 == 0


def test_nothing_is_kept_of_faces_that_have_a_label_or_are_unseen(kept: Callable[..., Path]) -> None:
    assert open_dataset(kept("sure", min_confidence=0.01)).all_rows == ()
    assert open_dataset(kept("blurred", min_sharpness=3.9)).all_rows == ()
    assert not list(kept("sure", min_confidence=0.01).glob("train"))


def test_a_second_run_adds_to_the_folder_and_the_same_images_are_kept_once(kept: Callable[..., Path]) -> None:
    first = {row.sha256 for row in open_dataset(kept()).all_rows}
    again = [row.sha256 for row in open_dataset(kept()).all_rows]
    assert len(again) == len(set(again)) == len(first) == 3
    assert len(open_dataset(kept(review_crops=6)).all_rows) == 6


def test_what_is_old_goes_when_the_stream_or_a_review_opens_the_folder(kept: Callable[..., Path]) -> None:
    folder = kept(keep_days=3)
    assert remove_old(folder) == 0
    aged(folder, 2.9)
    assert remove_old(folder) == 0
    aged(folder, 3.1)
    assert remove_old(folder) == 3
    assert open_dataset(folder).all_rows == ()
    assert not list(folder.glob("train/*/*"))

    assert len(open_dataset(kept(keep_days=3)).all_rows) == 3
    aged(folder, 3.1)
    rows = open_dataset(kept(keep_days=3)).all_rows
    assert len(rows) == len(list(folder.glob("train/*/*.png"))) == 3
    assert all(datetime.now(UTC).strftime("%Y%m%d") in row.path for row in rows)


def test_a_later_run_may_shorten_the_days_and_never_lengthen_them(kept: Callable[..., Path]) -> None:
    folder = kept(keep_days=5)
    kept(keep_days=200)
    assert read_description(folder).options["keep_days"] == 5
    kept(keep_days=2)
    assert read_description(folder).options["keep_days"] == 2
    assert "2 days" in read_description(folder).notes[0]


def test_what_a_killed_run_left_outside_the_manifest_goes(kept: Callable[..., Path]) -> None:
    folder = kept()
    orphan = next(folder.glob("train/*/*.png"))
    shutil.copy(orphan, orphan.with_name(f"{orphan.stem}7.png"))
    orphan.unlink()
    assert remove_old(folder) == 1
    rows = open_dataset(folder).all_rows
    assert sorted(row.path for row in rows) == sorted(
        path.relative_to(folder).as_posix() for path in folder.glob("train/*/*")
    )
    assert len(rows) == 2


def test_a_folder_of_other_content_is_refused_and_left_alone(
    make_clip: Callable[..., Path], model: Classifier, painted_dataset: Path, tmp_path: Path
) -> None:
    clip, other = make_clip(), tmp_path / "photos"
    other.mkdir()
    (other / "a.jpg").write_bytes(b"mine")
    link, plain = tmp_path / "link", tmp_path / "file"
    link.symlink_to(other)
    plain.write_text("x")
    config = StreamConfig(**UNSURE)
    for target in (other, painted_dataset, link, plain):
        with pytest.raises(DeepferError, match=r"something else|not a folder"):
            run_stream([str(clip)], model, [f"review={target}"], config)
    assert remove_old(painted_dataset) == 0
    assert [path.name for path in other.iterdir()] == ["a.jpg"]
    with pytest.raises(ConfigError, match="anonymise"):
        run_stream([str(clip)], model, [f"review={tmp_path / 'new'}"], config.model_copy(update={"anonymise": True}))
    assert not (tmp_path / "new").exists()


def test_hostile_content_is_refused_and_nothing_outside_is_touched(kept: Callable[..., Path], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    victim = outside / "clip-0-000001-1-20200101T000000Z-0.png"
    victim.write_bytes(b"mine")
    folder = kept()
    some = next(folder.glob("train/*"))
    moved = tmp_path / "moved"
    some.rename(moved)
    some.symlink_to(outside)
    with pytest.raises(DatasetError, match="is a link"):
        remove_old(folder)
    some.unlink()
    moved.rename(some)
    (some / victim.name).symlink_to(victim)
    with pytest.raises(DatasetError, match="is a link"):
        remove_old(folder)
    (some / victim.name).unlink()
    manifest = (folder / "manifest.csv").read_text()
    for path in ("../outside/" + victim.name, "train/happy/../../x.png", "train/happy/holiday.png"):
        line = f"{path},train,happy,,,{'0' * 64},\n"
        (folder / "manifest.csv").write_text(manifest + line)
        with pytest.raises(DatasetError, match=r"leaves the data set folder|no stream wrote"):
            remove_old(folder)
    (folder / "manifest.csv").write_text(manifest)
    for days in (0, 10**9, "soon", True):
        described = read_description(folder)
        options = {**described.options, "keep_days": days}
        write_description(described.model_copy(update={"options": options}), folder)
        with pytest.raises(DatasetError, match="keep_days"):
            remove_old(folder)
    assert victim.read_bytes() == b"mine"
    assert len(list(folder.glob("train/*/*.png"))) == 3


def test_two_writers_never_share_a_folder(
    kept: Callable[..., Path], make_clip: Callable[..., Path], model: Classifier, tmp_path: Path
) -> None:
    folder = kept()
    handle = hold(folder)
    assert handle is not None
    summary = run_stream([str(tmp_path / "clip.mp4")], model, [f"review={folder}"], StreamConfig(**UNSURE))
    assert summary.exit_code == 1
    assert "another process keeps faces" in str(summary.sinks[0].error)
    assert remove_old(folder, datetime.now(UTC) + timedelta(days=99)) == 0


def test_another_model_needs_another_folder(
    kept: Callable[..., Path], write_linear_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = kept()
    described = json.loads((folder / "dataset.json").read_text())
    described["labels"] = [*described["labels"], "contempt"]
    (folder / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(AssertionError, match="other labels than the model"):
        kept()


def test_a_full_folder_takes_no_more(kept: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_faces, "MAX_IMAGES", 2)
    assert len(open_dataset(kept()).all_rows) == 2


def test_the_command_says_what_is_kept_and_why(
    deepfer: Callable[..., Any], make_clip: Callable[..., Path], model_file: Path, tmp_path: Path
) -> None:
    clip = make_clip(times=TIMES)
    folder = tmp_path / "kept"
    config = tmp_path / "any.yaml"
    config.write_text(json.dumps(UNSURE))
    done = deepfer("stream", clip, "-m", model_file, "--config", config, "--sink", f"review={folder}", "--keep-days", 7)
    assert done.returncode == 0, done.stderr
    assert "consent" in done.stderr
    assert "7 days" in done.stderr
    assert read_description(folder).options["keep_days"] == 7


def test_a_review_opens_the_folder_without_what_is_too_old(
    deepfer: Callable[..., Any], kept: Callable[..., Path], tmp_path: Path
) -> None:
    folder = kept(keep_days=3)
    words = ["review", folder, "--only", "all", "--no-near", "--export", "csv"]
    done = deepfer(*words)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "csv" / "review.csv").read_text().splitlines()) == 4
    aged(folder, 3.1)
    done = deepfer(*words, "--to", "later")
    assert not list(folder.glob("train/*/*.png"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
