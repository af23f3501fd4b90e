"""Sinks: what they write, and that a slow, failing or full one is told and harms nobody."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.data.images import load_image
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.faces.detect import WholeDetector
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.stream.display import summary_table
from deepfer_yolo.stream.draw import draw_faces
from deepfer_yolo.stream.metrics import MetricsServer
from deepfer_yolo.stream.records import Output, Result, State
from deepfer_yolo.stream.session import run_stream
from deepfer_yolo.stream.sinks.images import SnapshotSink, VideoSink
from deepfer_yolo.stream.sinks.lines import CsvSink, JsonlSink
from deepfer_yolo.stream.sinks.worker import Sink, SinkWorker

STATE = State("cam", 0, 1.0, "pts", "live", None, "why")


def video_times(path: Path) -> list[float]:
    import av

    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def test_the_video_keeps_variable_time_stamps(
    make_clip: Callable[..., Path], model: Classifier, tmp_path: Path
) -> None:
    times = (0.0, 0.04, 0.1, 0.5, 0.52, 1.7, 1.74)
    out = tmp_path / "out.mp4"
    run_stream([str(make_clip(times=times))], model, [f"video={out}"], StreamConfig(detector="whole"))
    assert video_times(out) == pytest.approx(times, abs=2e-3)


@pytest.mark.parametrize("name", ["v.mp4", "v.m4v", "v.mov"])
def test_a_video_is_written_in_fragments_that_a_kill_leaves_playable(
    name: str, tmp_path: Path, result_of: Callable[..., Result]
) -> None:
    """No table of all frames is kept in memory; every two seconds, and only then, there is a key frame."""
    import av

    sink = VideoSink(str(tmp_path / name), ["cam"], StreamConfig())
    sink.open()
    times = np.cumsum([0.04, 0.5, 0.02, 0.1] * 40)
    for index, time_s in enumerate(times):
        sink.write(Output((), result_of(0, time_s=float(time_s))))
        if index == 120:
            (part,) = tmp_path.iterdir()
            left = tmp_path / f"left-{name}"
            left.write_bytes(part.read_bytes())
    sink.close()
    assert times[120] - 3 < video_times(left)[-1] < times[120]
    assert video_times(tmp_path / name) == pytest.approx(times, abs=2e-3)
    with av.open(str(tmp_path / name)) as container:
        keys = [
            float(packet.pts * packet.time_base)
            for packet in container.demux(video=0)
            if packet.is_keyframe and packet.pts is not None
        ]
        assert container.duration / 1e6 == pytest.approx(times[-1], abs=0.2)
        container.seek(round(15e6))
        assert 12.4 < next(container.decode(video=0)).time <= 15
    assert np.diff(keys).min() > 1.9
    assert np.diff(keys).max() < 2.6


def test_a_video_goes_on_over_epochs_and_starts_anew_with_another_size(
    tmp_path: Path, result_of: Callable[..., Result]
) -> None:
    sink = VideoSink(str(tmp_path / "v.mp4"), ["cam"], StreamConfig())
    sink.open()
    for index in range(5):
        sink.write(Output((), result_of(index, time_s=1000 + index / 25)))
    for index in range(5):
        sink.write(Output((), result_of(index, epoch=1, time_s=index / 25)))
    sink.write(Output((), result_of(0, size=(361, 271), epoch=2)))
    assert video_times(tmp_path / "v.mp4") == pytest.approx([i / 25 for i in range(10)], abs=2e-3)
    assert not (tmp_path / "v-2.mp4").exists()
    sink.close()
    assert len(video_times(tmp_path / "v-2.mp4")) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v-2.mp4", "v.mp4"]


def test_annotations_are_drawn_and_anonymised_faces_cannot_be_seen(result_of: Callable[..., Result]) -> None:
    result = result_of(0)
    plain = result.frame.image
    drawn = draw_faces(result)
    assert drawn.shape == plain.shape
    changed = (drawn != plain).any(axis=2)
    assert changed[60:130, 100].mean() > 0.9, "the box's left side"
    assert not changed[140:, 200:].any(), "nothing is drawn elsewhere"
    assert not changed[75:125, 108:150].any(), "the face itself stays"

    hidden = draw_faces(result, is_anonymous=True)[65:125, 105:155]
    assert hidden.reshape(-1, 3).std(axis=0).max() < 25, "noise has become a few flat blocks"
    assert plain[60:130, 100:160].std() > 60


def test_small_images_are_enlarged_so_that_a_label_fits(result_of: Callable[..., Result]) -> None:
    result = result_of(0, size=(64, 48))
    assert draw_faces(result).shape == (288, 384, 3)


def test_faces_out_of_sight_are_anonymised_too(result_of: Callable[..., Result]) -> None:
    result = result_of(0)
    lost = Result(result.frame, 0, (), (), (result.tracks[0].face,))
    assert draw_faces(lost, is_anonymous=True)[60:130, 100:160].std(axis=(0, 1)).max() < 25


def test_csv_and_jsonl_hold_the_same(make_clip: Callable[..., Path], model: Classifier, tmp_path: Path) -> None:
    lines, table = tmp_path / "o.jsonl", tmp_path / "o.csv"
    run_stream([str(make_clip())], model, [f"jsonl={lines}", f"csv={table}"], StreamConfig(detector="whole"))
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == [record["kind"] for record in records]
    face, row = next((r, w) for r, w in zip(records, rows, strict=True) if r["kind"] == "face")
    assert float(row["p_happy"]) == face["probs"]["happy"]
    assert (float(row["x2"]), row["label"], row["age_ms"]) == (face["box"][2], face["label"], "")


def test_csv_cells_are_no_formulas(tmp_path: Path) -> None:
    sink = CsvSink(str(tmp_path / "o.csv"), StreamConfig(), EMOTIONS)
    sink.open()
    sink.write(Output((State("=cmd()", 0, 0.0, "pts", "live", None, "-x"),)))
    sink.close()
    assert "\nstate,,'=cmd()" in (tmp_path / "o.csv").read_text()


def write_states(sink: Sink, n: int) -> None:
    sink.open()
    for index in range(n):
        sink.write(Output((replace(STATE, source=f"camera {index:04d}"),)))
    sink.close()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def csv_sources(folder: Path) -> list[str]:
    """The sources in all csv files of a folder, by the order of their names."""
    found: list[str] = []
    for name in names_in(folder):
        with (folder / name).open(newline="") as file:
            found += [row["source"] for row in csv.DictReader(file)]
    return found


def test_rotation_loses_nothing_and_its_names_sort_by_age(tmp_path: Path) -> None:
    sink = JsonlSink(str(tmp_path / "log.jsonl"), StreamConfig(max_bytes=1000))
    write_states(sink, 6000)
    names = names_in(tmp_path)
    assert len(names) > 1000
    assert names == [*(f"log.{n:06d}.jsonl" for n in range(1, len(names))), "log.jsonl"]
    assert max((tmp_path / name).stat().st_size for name in names) <= 1000
    lines = [line for name in names for line in (tmp_path / name).read_text().splitlines()]
    assert [json.loads(line)["source"] for line in lines] == [f"camera {index:04d}" for index in range(6000)]
    assert sink.n_deleted == 0


def test_rotation_keeps_what_keep_says_and_counts_what_it_deletes(tmp_path: Path) -> None:
    sink = CsvSink(str(tmp_path / "log.csv"), StreamConfig(max_bytes=1000, keep=2), EMOTIONS)
    write_states(sink, 100)
    names = names_in(tmp_path)
    assert len(names) == 3
    assert names[2] == "log.csv"
    assert all((tmp_path / name).stat().st_size <= 1000 for name in names)
    kept = csv_sources(tmp_path)
    assert kept == [f"camera {index:04d}" for index in range(100 - len(kept), 100)]
    assert sink.n_deleted == 100 - len(kept) > 50


def test_what_keep_deletes_is_told_in_the_summary(
    make_clip: Callable[..., Path], model: Classifier, tmp_path: Path
) -> None:
    clip, small = str(make_clip()), StreamConfig(detector="whole", max_bytes=3000)

    def n_lines(name: str) -> int:
        return sum(path.read_text().count("\n") for path in tmp_path.glob(f"{name}*.jsonl"))

    run_stream([clip], model, [f"jsonl={tmp_path / 'all.jsonl'}"], small)
    config = small.model_copy(update={"keep": 1})
    summary = run_stream([clip], model, [f"jsonl={tmp_path / 'o.jsonl'}"], config)
    (sink,) = summary.sinks
    n_records, left = n_lines("all"), n_lines("o")
    assert n_records > summary.faces == 25
    assert (sink.deleted, sink.dropped) == (n_records - left, 0)
    assert left < n_records / 2
    console = Console(file=io.StringIO(), width=200)
    console.print(summary_table(summary))
    assert f"{sink.deleted} old records deleted (--keep)" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_new_run_in_place_of_an_old_one_leaves_none_of_its_files(tmp_path: Path) -> None:
    write_states(CsvSink(str(tmp_path / "log.csv"), StreamConfig(max_bytes=1000), EMOTIONS), 50)
    assert len(names_in(tmp_path)) > 3
    write_states(CsvSink(str(tmp_path / "log.csv"), StreamConfig(overwrite=True), EMOTIONS), 7)
    assert names_in(tmp_path) == ["log.csv"]
    assert len(csv_sources(tmp_path)) == 7


def test_a_pipe_is_never_put_aside(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with os.fdopen(os.open(fifo, os.O_RDWR), "rb", buffering=0) as reader:
        write_states(JsonlSink(str(fifo), StreamConfig(max_bytes=1000)), 20)
        lines = reader.read(60_000).splitlines()
    assert len(lines) == 20
    assert names_in(tmp_path) == ["fifo"]


def test_snapshots_come_with_new_labels_only(tmp_path: Path, result_of: Callable[..., Result]) -> None:
    sink = SnapshotSink(str(tmp_path), ["cam"], StreamConfig())
    sink.open()
    for index, label in enumerate(["uncertain", *["happy"] * 40, *["sad"] * 5]):
        sink.write(Output((), result_of(index, label="happy" if label == "uncertain" else label)))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["cam-0-000000-1-happy.jpg", "cam-0-000041-1-sad.jpg"]
    assert load_image(tmp_path / names[0]).shape == (270, 360, 3)


def test_a_failing_sink_is_told_and_the_stream_goes_on(
    run_of: Callable[..., Any], make_clip: Callable[..., Path], collect: Any
) -> None:
    class Failing(collect):  # type: ignore[misc]
        def write(self, output: Any) -> None:
            raise OSError(28, "No space left on device")

    run = run_of([str(make_clip())], workers=[SinkWorker(Failing("records", name="failing"))]).start()
    summary = run.finish()
    assert len(run.sink.results) == 25
    assert summary.exit_code == 1
    assert "the disk is full" in str(next(sink.error for sink in summary.sinks if sink.sink == "failing"))
    assert [r["reason"] for r in run.sink.records if r["source"] == "failing"] == ["the disk is full"]


def test_a_blocked_sink_costs_a_lossless_run_its_patience_once(
    run_of: Callable[..., Any], make_clip: Callable[..., Path], collect: Any, stopwatch: Callable[..., Any]
) -> None:
    gate = threading.Event()

    class Blocked(collect):  # type: ignore[misc]
        def write(self, output: Any) -> None:
            gate.wait(20)

    watch = stopwatch()
    run = run_of(
        [str(make_clip())], workers=[SinkWorker(Blocked("images", name="blocked", depth=2), patience_s=0.5)]
    ).start()
    summary = run.finish()
    gate.set()
    assert watch() < 5
    assert len(run.sink.results) == 25
    assert summary.exit_code == 1


def test_a_slow_sink_slows_a_lossless_run_and_loses_nothing(
    run_of: Callable[..., Any], make_clip: Callable[..., Path], collect: Any
) -> None:
    slow = collect(delay_s=0.02, name="slow", depth=2)
    run = run_of([str(make_clip())], workers=[SinkWorker(slow)]).start()
    summary = run.finish()
    assert len(slow.results) == 25
    assert [sink.dropped for sink in summary.sinks] == [0, 0]


def test_prometheus_tells_counters_and_health(run_of: Callable[..., Any]) -> None:
    run = run_of(["testsrc=size=64x48:rate=20"])
    server = MetricsServer("0")
    server.start(run.pipeline)
    base = f"http://127.0.0.1:{server.port}"
    try:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(base + "/healthz")
        assert caught.value.code == 503
        caught.value.close()
        run.start()
        run.wait_for(lambda: len(run.sink.results) >= 5)
        assert urllib.request.urlopen(base + "/healthz").read() == b"ok\n"
        text = urllib.request.urlopen(base + "/metrics").read().decode()
    finally:
        server.close()
    values = {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if not line.startswith("#")
    }
    name = 'source="testsrc=size=64x48:rate=20"'
    assert values[f"deepfer_processed_total{{{name}}}"] >= 5
    assert values[f"deepfer_live{{{name}}}"] == 1
    assert values[f"deepfer_age_seconds{{{name}}}"] < 1


def test_records_sinks_are_given_no_images(
    run_of: Callable[..., Any], make_clip: Callable[..., Path], collect: Any
) -> None:
    records = collect("records", name="records")
    run_of([str(make_clip())], workers=[SinkWorker(records)]).start().finish()
    assert records.results == []
    assert len(records.records) >= 25


def test_jsonl_lines_are_whole_while_it_runs(tmp_path: Path) -> None:
    sink = JsonlSink(str(tmp_path / "o.jsonl"), StreamConfig())
    sink.open()
    sink.write(Output((replace(STATE, source="fröhlich"),)))
    assert json.loads((tmp_path / "o.jsonl").read_text(encoding="utf-8"))["source"] == "fröhlich"
    sink.close()


def test_the_whole_detector_boxes_the_image() -> None:
    (face,) = WholeDetector().detect(np.zeros((48, 64, 3), np.uint8))
    assert face.box.tolist() == [0, 0, 64, 48]
