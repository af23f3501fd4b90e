"""Many files: read in turn, finished for good, resumed after a kill, and those that failed given back."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.errors import DeepferError
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.stream.session import run_stream
from deepfer_yolo.stream.sinks.lines import JsonlSink
from deepfer_yolo.stream.sinks.worker import SinkWorker

WHOLE = StreamConfig(detector="whole")
KILLED_WHILE_WRITING = """
import os, signal, sys
from deepfer_yolo.cli import app
from deepfer_yolo.stream.sinks.lines import LineSink

left, put = int(sys.argv.pop(1)), LineSink._put

def put_or_die(sink, data):
    global left
    left -= len(data)
    if left < 0:
        put(sink, data[:-len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    put(sink, data)

LineSink._put = put_or_die
app.main()
"""
"""The program, which is killed in the middle of a line once so many bytes of lines are written."""


@pytest.fixture
def clips(make_clip: Callable[..., Path], tmp_path: Path) -> Path:
    """A folder of 24 clips of 2 to 5 frames."""
    folder = tmp_path / "clips"
    folder.mkdir()
    made = [make_clip(f"{n}.mp4", times=[i / 25 for i in range(n)]) for n in (2, 3, 5)]
    for index in range(24):
        shutil.copyfile(made[index % 3], folder / f"c{index:02d}.mp4")
    return folder


def stream(*words: str | Path, n_files: int = 0, dies_at: int = 0) -> subprocess.CompletedProcess[str]:
    """The program over `words`, with at most `n_files` open, or killed after `dies_at` bytes of lines."""
    program = ["-c", KILLED_WHILE_WRITING, str(dies_at)] if dies_at else ["-m", "deepfer_yolo"]

    def limit() -> None:
        if n_files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (n_files, n_files))

    command = [sys.executable, *program, "stream", *map(str, words), "--detector", "whole", "--quiet"]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=1500, preexec_fn=limit)


def by_source(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The records of each source in their order, without the id of the run."""
    found = defaultdict(list)
    for record in records:
        found[record["source"]].append({key: value for key, value in record.items() if key != "run"})
    return found


def jsonl_of(folder: Path) -> list[dict[str, Any]]:
    """The records of all jsonl files of a folder, by the order of their names."""
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def csv_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of all csv files of a folder, by the order of their names."""
    found = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            found += list(csv.DictReader(file))
    return found


def n_frames(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def sinks_in(folder: Path) -> list[str]:
    """The options for sinks of three kinds, which rotate often."""
    sinks = (f"jsonl={folder / 'o.jsonl'}", f"csv={folder / 'o.csv'}", f"video={folder / 'v.mp4'}")
    return [*(word for sink in sinks for word in ("--sink", sink)), "--max-bytes", "9000"]


def test_files_are_read_in_turn(clips: Path, model: Classifier, tmp_path: Path) -> None:
    most = 0

    def tick(pipeline: Any) -> None:
        nonlocal most
        most = max(most, len(pipeline.reading))

    config = WHOLE.model_copy(update={"jobs": 3})
    summary = run_stream([str(clips)], model, [f"jsonl={tmp_path / 'o.jsonl'}"], config, on_tick=tick)
    assert most <= 3
    assert summary.states == {"ended": 24}
    assert summary.processed == 8 * (2 + 3 + 5)
    states = [record for record in jsonl_of(tmp_path) if record["kind"] == "state"]
    open_at = np.cumsum([{"connecting": 1, "ended": -1}.get(record["state"], 0) for record in states])
    assert 1 <= open_at.max() <= 3
    assert [record["complete"] for record in states if record["state"] == "ended"] == [True] * 24
    assert {record["run"] for record in jsonl_of(tmp_path)} == {summary.run}


def test_live_sources_are_all_read_while_files_wait(
    run_of: Callable[..., Any], make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    files = [str(make_clip(f"{n}.mp4", times=[i / 25 for i in range(50)])) for n in range(3)]
    cameras = [f"testsrc=size={32 + n}x32:rate=20" for n in range(4)]
    run = run_of([*files, *cameras], jobs=1, slow_s=0.02)
    assert [reader.address.name for reader in run.pipeline.reading] == [*cameras, files[0]]
    run.start()
    run.wait_for(lambda: all("live" in run.sink.states(camera) for camera in cameras))
    run.wait_for(lambda: len(run.sink.results) > 30)
    summary = run.stop()
    assert [source.state for source in summary.sources] == ["ended", "waiting", "waiting", *["ended"] * 4]
    assert [r["complete"] for r in run.sink.records if r["kind"] == "state" and r["state"] == "ended"] == [False] * 5


def test_a_killed_run_goes_on_without_a_record_lost_or_doubled(clips: Path, model_file: Path, tmp_path: Path) -> None:
    """Killed three times in the middle of a line, of jsonl or csv; the records are those of a run without a kill."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    common = (clips, "-m", model_file, "--jobs", "2")
    assert stream(*common, *sinks_in(whole)).returncode == 0
    size = sum(path.stat().st_size for path in whole.glob("o*"))
    runs = [stream(*common, *sinks_in(killed), "--resume", dies_at=size // 4 + n) for n in (0, 70, 130)]
    assert [run.returncode for run in runs] == [-9, -9, -9]
    assert len(list(killed.glob("o.0*.jsonl"))) > 2
    done = sum(record.get("complete", False) for record in jsonl_lines(killed))
    assert 6 < done < 24
    last = stream(*common, *sinks_in(killed), "--resume", "--json")
    assert last.returncode == 0, last.stderr
    assert json.loads(last.stdout)["states"] == {"ended": 24 - done, "done": done}
    assert by_source(jsonl_of(killed)) == by_source(jsonl_of(whole))
    assert by_source(csv_of(killed)) == by_source(csv_of(whole))
    assert len({record["run"] for record in jsonl_of(killed)}) == 4
    videos = {path.name: n_frames(path) for path in whole.glob("v*.mp4")}
    assert {path.name: n_frames(path) for path in killed.glob("v*.mp4")} == videos
    assert len(videos) == 24

    before = {path: path.read_bytes() for path in killed.glob("o*")}
    again = stream(*common, *sinks_in(killed), "--resume", "--json")
    assert (again.returncode, json.loads(again.stdout)["states"]) == (0, {"done": 24})
    assert {path: path.read_bytes() for path in killed.glob("o*")} == before


def jsonl_lines(folder: Path) -> list[dict[str, Any]]:
    """What can be read of files that a kill may have cut."""
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]


def test_what_failed_is_listed_and_can_be_given_back(clips: Path, model_file: Path, tmp_path: Path) -> None:
    """With names that a list would read as something else, and bytes that are no text."""
    good = (clips / "c00.mp4").read_bytes()
    odd = [clips / name for name in ("#1.mp4", "-.mp4", "@a.mp4", "[x].mp4", os.fsdecode(b"\xff.mp4"))]
    for path in odd:
        path.write_bytes(b"no video")
    failed, out = tmp_path / "failed.txt", tmp_path / "out"
    words = ("-m", model_file, "--sink", f"jsonl={out / 'o.jsonl'}", "--sink", f"csv={out / 'o.csv'}")
    listing = ["--detector", "whole", "-q", "--failed", str(failed)]
    first = subprocess.run(
        [sys.executable, "-m", "deepfer_yolo", "stream", ".", *map(str, words), *listing],
        check=False,
        capture_output=True,
        cwd=clips,
    )
    assert first.returncode == 4, first.stderr
    lines = failed.read_bytes().splitlines()
    assert lines[1::2] == [os.fsencode(f"./{path.name}" if path.name[0] in "#@-" else path.name) for path in odd]
    assert all(line.startswith(b"# opening ") for line in lines[::2])
    for path in odd:
        path.write_bytes(good)
    again = ["stream", f"@{failed}", *map(str, words), "--detector", "whole", "-q", "--resume", "--json"]
    second = subprocess.run(
        [sys.executable, "-m", "deepfer_yolo", *again, "--failed", str(failed)],
        check=False,
        capture_output=True,
        cwd=clips,
    )
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["states"] == {"ended": 5}
    assert [row["source"] for row in json.loads(second.stdout)["sources"]] == [path.name for path in odd]
    assert failed.read_bytes() == b""
    again[1] = "."
    third = subprocess.run([sys.executable, "-m", "deepfer_yolo", *again], check=False, capture_output=True, cwd=clips)
    assert json.loads(third.stdout)["states"] == {"done": 29}, third.stderr
    found = by_source(jsonl_of(out))
    assert {len([r for r in records if r["kind"] == "state"]) for records in found.values()} == {3}
    assert len(found) == 29
    rows = {name.removeprefix("'"): len(records) for name, records in by_source(csv_of(out)).items()}
    assert rows == {name.encode("utf-8", "backslashreplace").decode(): len(records) for name, records in found.items()}


def test_a_resume_keeps_what_live_sources_gave(clips: Path, model: Classifier, tmp_path: Path) -> None:
    sources = [str(clips / "c00.mp4"), "testsrc=size=64x48:rate=25:duration=0.2"]
    sinks = [f"jsonl={tmp_path / 'o.jsonl'}"]
    config = WHOLE.model_copy(update={"policy": "lossless", "resume": True})
    first = run_stream(sources, model, sinks, config)
    second = run_stream(sources, model, sinks, config)
    assert (first.states, second.states) == ({"ended": 2}, {"ended": 1, "done": 1})
    faces = [(r["run"], r["source"]) for r in jsonl_of(tmp_path) if r["kind"] == "face"]
    assert faces.count((first.run, sources[0])) == 2
    assert faces.count((first.run, sources[1])) == faces.count((second.run, sources[1])) == 5
    assert len(faces) == 12


def test_a_resume_of_cameras_adds_to_a_log_that_keeps_the_newest(model: Classifier, tmp_path: Path) -> None:
    config = WHOLE.model_copy(update={"policy": "lossless", "resume": True, "keep": 6, "max_bytes": 1500})
    order: list[str] = []
    for seconds in (1.0, 0.1, 0.1):
        source = f"testsrc=size=64x48:rate=50:duration={seconds}"
        order.append(run_stream([source], model, [f"jsonl={tmp_path / 'o.jsonl'}"], config).run)
        paths = sorted(tmp_path.glob("o*.jsonl"))
        assert [len(paths), paths[-1].name] == [7, "o.jsonl"]
        runs = [order.index(json.loads(line)["run"]) for path in paths for line in path.read_text().splitlines()]
        assert runs == sorted(runs)  # names sort by age
    assert len(set(runs)) > 1


def test_a_file_is_not_complete_before_every_sink_has_it(
    run_of: Callable[..., Any], clips: Path, collect: Any, tmp_path: Path
) -> None:
    """A run that goes on after a resume must not leave out what a sink that failed did not get."""

    class Failing(collect):  # type: ignore[misc]
        def write(self, output: Any) -> None:
            super().write(output)
            if len(self.results) > 12:
                raise OSError(28, "No space left on device")

    workers = [SinkWorker(JsonlSink(str(tmp_path / "o.jsonl"), WHOLE)), SinkWorker(Failing(name="failing"))]
    run = run_of([str(clips)], workers=workers, jobs=1).start()
    assert run.finish(60).exit_code == 1
    ends = [r["complete"] for r in jsonl_of(tmp_path) if r["kind"] == "state" and r["state"] == "ended"]
    assert len(ends) == 24
    assert ends == [True] * 4 + [False] * 20


@pytest.mark.parametrize(
    ("settings", "sinks", "words"),
    [
        ({}, ["jsonl=-"], "--resume needs the file"),
        ({}, ["csv=o.csv"], "--resume needs the file"),
        ({"overwrite": True}, ["jsonl=o.jsonl"], "--overwrite"),
        ({"keep": 3}, ["jsonl=o.jsonl"], "--keep"),
    ],
)
def test_a_resume_that_cannot_be_is_refused(
    settings: dict[str, Any],
    sinks: list[str],
    words: str,
    clips: Path,
    model: Classifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeepferError, match=words):
        run_stream([str(clips)], model, sinks, WHOLE.model_copy(update={"resume": True, **settings}))
    assert not list(tmp_path.glob("o.*"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("o.jsonl", '{"source": "a"}\nnotes\n{"source": "b"}\n'),
        ("o.jsonl", '["source"]\n'),
        ("o.jsonl", '{"a": 1}\n'),
        ("o.csv", "a,b\n1,2\n"),
        ("o.000001.jsonl", "[" * 5000 + "\n"),
    ],
)
def test_a_resume_leaves_files_of_other_kinds_alone(
    name: str, text: str, clips: Path, model: Classifier, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    sinks = [f"jsonl={tmp_path / 'o.jsonl'}", f"csv={tmp_path / 'o.csv'}"]
    with pytest.raises(DeepferError, match=rf"{name}, line \d: no record"):
        run_stream([str(clips)], model, sinks, WHOLE.model_copy(update={"resume": True}))
    assert (tmp_path / name).read_text() == text


def test_a_resume_waits_for_no_run_that_still_writes(clips: Path, model: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    config = WHOLE.model_copy(update={"resume": True})
    other = JsonlSink(str(path), config)
    other.open()
    path.write_text('{"source": "half a li')
    with pytest.raises(DeepferError, match="another run is writing"):
        run_stream([str(clips)], model, [f"jsonl={path}"], config)
    assert path.read_text() == '{"source": "half a li'
    other.close()
    assert run_stream([str(clips)], model, [f"jsonl={path}"], config).states == {"ended": 24}


def test_a_resume_holds_the_file_until_it_writes(tmp_path: Path) -> None:
    """Of two that go on at once, none rewrites the file below the other."""
    path, config = tmp_path / "o.jsonl", WHOLE.model_copy(update={"resume": True})
    path.write_text('{"source": "a"}\n')
    first, second = JsonlSink(str(path), config), JsonlSink(str(path), config)
    parts = first.contents()
    with pytest.raises(DeepferError, match="another run is writing"):
        second.contents()
    first.forget({"a"}, parts)
    first.open()
    with pytest.raises(DeepferError, match="another run is writing"):
        second.contents()
    first.close()
    second.contents()
    second.close()


def test_no_run_deletes_the_full_files_of_one_that_writes(tmp_path: Path) -> None:
    path, full = tmp_path / "o.jsonl", tmp_path / "o.000001.jsonl"
    writing, other = JsonlSink(str(path), WHOLE), JsonlSink(str(path), WHOLE)
    writing.open()
    full.write_text("full\n")
    with pytest.raises(DeepferError, match="another run is writing"):
        other.open()
    assert full.read_text() == "full\n"
    writing.close()
    other.close()
    other.open()
    other.close()
    assert not full.exists()


def test_a_table_that_a_resume_adds_is_whole(clips: Path, model: Classifier, tmp_path: Path) -> None:
    log, table, config = f"jsonl={tmp_path / 'o.jsonl'}", f"csv={tmp_path / 'o.csv'}", WHOLE
    assert run_stream([str(clips)], model, [log], config).states == {"ended": 24}
    resumed = config.model_copy(update={"resume": True})
    assert run_stream([str(clips)], model, [log, table], resumed).states == {"ended": 24}
    assert len(csv_of(tmp_path)) == len(jsonl_of(tmp_path))
    assert run_stream([str(clips)], model, [log, table], resumed).states == {"done": 24}


def test_what_is_read_again_has_its_snapshots_and_videos_once(
    make_clip: Callable[..., Path], model: Classifier, tmp_path: Path
) -> None:
    """A file that breaks off fails, and is read again by every resume."""
    clip = make_clip(times=[i / 25 for i in range(60)], container={"movflags": "faststart"})
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    out = tmp_path / "out"
    sinks = [f"jsonl={out / 'o.jsonl'}", f"snapshots={out / 'seen'}", f"video={out / 'v.mkv'}"]
    config = StreamConfig(detector="whole", resume=True, min_confidence=0.0, smooth_s=0.1)
    for _ in range(2):
        assert run_stream([str(clip)], model, sinks, config).states == {"failed": 1}
    names = sorted(path.name for path in (out / "seen").iterdir())
    assert names
    assert not [name for name in names if name.endswith("-2.jpg")]
    assert sorted(path.name for path in out.glob("v*")) == ["v.mkv"]
    assert len([r for r in jsonl_of(out) if r["kind"] == "state" and r["state"] == "failed"]) == 1


def test_more_files_than_may_be_open(make_clip: Callable[..., Path], model_file: Path, tmp_path: Path) -> None:
    """100 clips, too long to be read at one go, with 64 open files; the program itself has about 40."""
    clip, folder = make_clip(times=[i / 25 for i in range(10)]), tmp_path / "clips"
    folder.mkdir()
    for index in range(100):
        os.link(clip, folder / f"c{index:02d}.mp4")
    done = stream(folder, "-m", model_file, "--sink", f"jsonl={tmp_path / 'o.jsonl'}", n_files=64)
    assert done.returncode == 0, done.stderr
    assert "100 ended" in done.stdout


@pytest.mark.slow
def test_1200_files_a_kill_and_a_resume(make_clip: Callable[..., Path], model_file: Path, tmp_path: Path) -> None:
    """With 256 open files; the peak memory of 300 files is that of 10."""
    clip, folder = make_clip(times=[i / 25 for i in range(8)], size=(640, 360)), tmp_path / "clips"
    folder.mkdir()
    for index in range(1200):
        os.link(clip, folder / f"c{index:04d}.mp4")

    def peak_mb(n: int) -> float:
        """Peak resident memory of a run over the first n files."""
        before = tmp_path / f"peak{n}"
        code = "import resource, sys; from deepfer_yolo.cli.app import app; app(sys.argv[1:], standalone_mode=False); "
        code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        words = [*sorted(map(str, folder.iterdir()))[:n], "-m", str(model_file), "--detector", "whole", "-q"]
        words += ["--sink", f"jsonl={before / 'o.jsonl'}", "--jobs", "2", "--json"]
        done = subprocess.run(
            [sys.executable, "-c", code, "stream", *words], capture_output=True, text=True, check=True
        )
        return int(done.stdout.split()[-1]) / 1024

    small, large = peak_mb(10), peak_mb(300)
    print(f"peak memory: {small:.0f} MB over 10 files, {large:.0f} MB over 300")
    assert large < small + 20

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    common = (folder, "-m", model_file)
    first = stream(*common, *sinks_in(whole), n_files=256)
    assert first.returncode == 0, first.stderr
    size = sum(path.stat().st_size for path in whole.glob("o*"))
    cut = stream(*common, *sinks_in(killed), n_files=256, dies_at=size // 2)
    assert cut.returncode == -9
    last = stream(*common, *sinks_in(killed), "--resume", "--json", n_files=256)
    assert last.returncode == 0, last.stderr
    states = json.loads(last.stdout)["states"]
    print(f"after the kill: {states}")
    assert states["ended"] + states["done"] == 1200
    assert states["done"] > 300
    assert by_source(jsonl_of(killed)) == by_source(jsonl_of(whole))
    assert by_source(csv_of(killed)) == by_source(csv_of(whole))
    assert {path.name for path in killed.glob("v*")} == {path.name for path in whole.glob("v*")}
