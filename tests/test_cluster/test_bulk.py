"""What needs no running cluster: addresses, folders of rows, and workers, called as Ray calls them."""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepfer_yolo.cli.options import open_classifier
from deepfer_yolo.cluster import bulk, engine, tasks
from deepfer_yolo.config import AuditConfig, EvaluateConfig, PredictConfig, StreamConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.audit.parts import checks_with, items_of
from deepfer_yolo.data.audit.parts import job_of as audit_job
from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.data.layouts.boxes import Box
from deepfer_yolo.data.layouts.item import Item
from deepfer_yolo.data.row_files import ITEMS, ROWS, SUMMARY, RowFolder, claim
from deepfer_yolo.data.shards import Job, Names
from deepfer_yolo.errors import ConfigError, DatasetError, DeepferError
from deepfer_yolo.evaluate.predictions import job_of as evaluate_job
from deepfer_yolo.evaluate.predictions import score_dataset
from deepfer_yolo.painted import paint_faces
from deepfer_yolo.stream.batch import label_images, named_images
from deepfer_yolo.stream.parts import job_of as predict_job
from deepfer_yolo.stream.parts import rows_again
from deepfer_yolo.stream.recordings import job_of as recordings_job
from deepfer_yolo.stream.recordings import recorded_again, recordings_of
from deepfer_yolo.stream.session import run_stream

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
Deepfer = Callable[..., Any]


def work_through(task: Any, items: dict[str, list[Any]], job: Job, out: Path, size: int = 7) -> RowFolder:
    """What `bulk.run` does, with one worker in this process, the last block first."""
    claim(out, job)
    table = pa.table(items)
    with pa.OSFile(str(out / ITEMS), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=size)
    worker = bulk._Worker(task, str(out / ITEMS))
    for start in reversed(range(0, job.n, size)):
        places = pa.table({"index": np.arange(start, min(start + size, job.n))})
        pq.write_table(worker(places), out / ROWS / f"{start}.parquet")
    (out / SUMMARY).write_text("{}")
    return RowFolder(out)


@pytest.mark.parametrize("faces", [False, True])
def test_a_worker_labels_as_one_process_does(linear_model: Path, tmp_path: Path, faces: bool) -> None:
    folder = tmp_path / "faces"
    folder.mkdir()
    for i, face in enumerate(paint_faces(3, 20)[0]):
        photo = np.full((160, 160), 90, np.uint8)
        photo[56:104, 56:104] = face
        Image.fromarray(photo if faces and i % 2 else face).resize((160, 160)).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"x")
    images, config = list(named_images([str(folder)])), PredictConfig(faces=faces, detector="haar", batch=4)
    opening = functools.partial(open_classifier, linear_model)
    model, job = opening(), predict_job(images, opening(), config)
    found = work_through(tasks.PredictTask(opening, config), tasks.predict_items(images), job, tmp_path / "out")
    again = [row.to_json() for row in rows_again(images, model, config, found)]
    assert again == [row.to_json() for row in label_images((path for _, path in images), model, config)]
    assert len(again) >= 21
    rows = pq.read_table(tmp_path / "out" / ROWS).to_pylist()
    assert {row["path"] for row in rows} == {str(path) for _, path in images}
    assert sum(row["error"] is not None for row in rows) == 1


def test_a_worker_scores_as_one_process_does(painted_dataset: Path, linear_model: Path, tmp_path: Path) -> None:
    dataset, config = open_dataset(painted_dataset), EvaluateConfig(tta="flip")
    opening, rows = functools.partial(open_classifier, linear_model), dataset.rows("val")
    task = tasks.EvaluateTask(opening, dataset.root, config)
    job = evaluate_job(opening(), dataset, rows, config, flip=True)
    found = work_through(task, tasks.evaluate_items(rows), job, tmp_path / "out")
    scores = [score_dataset(opening(), dataset, config, flip=True, answers=answers) for answers in (None, found)]
    np.testing.assert_array_equal(scores[0].probs, scores[1].probs)


@pytest.mark.parametrize("form", ["folder", "csv"])
def test_a_worker_audits_as_one_process_does(
    painted_dataset: Path, painted_csv: Path, linear_model: Path, tmp_path: Path, form: str
) -> None:
    source = painted_csv
    if form == "folder":
        source = tmp_path / "set"
        shutil.copytree(painted_dataset, source)
        first, *others = sorted((source / "train/happy").iterdir())
        shutil.copy(first, max((source / "train/sad").iterdir()))
        others[0].write_bytes(b"x")
    config, opening = AuditConfig(), functools.partial(open_classifier, linear_model)
    items = tasks.audit_items(items_of(source))
    job = audit_job(config, checks_with(opening(), None)).over(Names.of(items["key"]))
    found = work_through(tasks.AuditTask(opening, config, False), items, job, tmp_path / "out")
    whole, again = (audit(source, config, classifier=opening(), answers=answers) for answers in (None, found))
    assert again.to_json() == whole.to_json()
    assert any(finding.kind == ("duplicate" if form == "folder" else "label-error") for finding in whole.findings)


def test_a_worker_reads_recordings_as_one_process_does(
    make_clip: Callable[..., Path], linear_model: Path, tmp_path: Path
) -> None:
    """Three clips and a broken one: the lines of `--sink jsonl`, source by source."""
    folder = tmp_path / "2026"
    folder.mkdir()
    for name, n in (("a", 5), ("b", 3), ("c", 9)):
        make_clip(f"2026/{name}.mp4", times=[i / 25 for i in range(n)])
    (folder / "d.mp4").write_bytes(b"x")
    config, opening = StreamConfig(detector="whole"), functools.partial(open_classifier, linear_model)
    recordings = recordings_of([str(folder)], None)
    job = recordings_job(recordings, opening(), config)
    items = tasks.recording_items(recordings)
    found = work_through(tasks.RecordingTask(opening, config), items, job, tmp_path / "out", size=1)
    again = list(recorded_again(recordings, opening(), config, found))
    run_stream([str(folder)], opening(), [f"jsonl={tmp_path / 'plain.jsonl'}"], config)
    plain = [json.loads(line) for line in (tmp_path / "plain.jsonl").read_text().splitlines()]
    for recorded in again:
        lines = [json.loads(line) | {"run": ""} for line in recorded.records]
        assert lines == [line | {"run": ""} for line in plain if line["source"] == recorded.source]
    assert sum(len(recorded.records) for recorded in again) == len(plain) > 17
    assert [recorded.error is None for recorded in again] == [True, True, True, False]
    other = config.model_copy(update={"smooth_s": 0.1})
    with pytest.raises(DatasetError, match=r"is made with other settings: smooth_s 0\.6, not 0\.1"):
        recorded_again(recordings, opening(), other, found).__next__()


def test_progress_shows_while_what_libraries_say_goes_into_a_file(tmp_path: Path) -> None:
    code = """
import os
from pathlib import Path
from deepfer_yolo.cli.options import progress, tracked
from deepfer_yolo.cluster.bulk import said_into
with progress() as bar:
    show = tracked(bar, "labelling")
    with said_into(Path("log")):
        os.write(2, b"of no use")
        print(", nor this")
        show(3, 7)
        bar.refresh()
"""
    leader, follower = os.openpty()
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent), "TERM": "xterm"}
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=follower, cwd=tmp_path, env=env, check=True
    )
    seen = os.read(leader, 100_000)
    os.close(leader)
    os.close(follower)
    assert b"labelling" in seen
    assert b"3/7" in seen
    assert b"of no use" not in seen
    assert done.stdout == b""
    assert (tmp_path / "log").read_bytes() == b"of no use, nor this\n"


def test_progress_counts_the_files_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "LOOK_S", 0.01)
    (tmp_path / "earlier").touch()
    told: list[tuple[int, int]] = []
    with bulk._watched(tmp_path, 5, 28, 10, lambda *done: told.append(done)):
        (tmp_path / "one").touch()
        while (15, 28) not in told:
            time.sleep(0.01)
    assert told[0] == (5, 28)
    assert told[-1] == (28, 28)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has a name whose bytes are no text"):
        bulk._table({"path": ["/x/a.png", "/x/\udcff.png"]})


def test_a_cluster_reads_files_alone(deepfer: Deepfer, tmp_path: Path) -> None:
    over = ("--cluster", "local", "--out", tmp_path / "rows")
    for words, why in (
        (("testsrc", *over), "testsrc is no video file, and a cluster reads those alone"),
        (("a.mp4", *over, "--sink", "csv=x.csv", "--show"), "--sink and --show: workers leave records in --out"),
        (("a.mp4", "--cluster", "local"), "--cluster needs a folder to write into"),
    ):
        done = deepfer("stream", *words)
        assert done.returncode == 1
        assert why in done.stderr


def test_items_travel_as_they_are() -> None:
    item = Item("happy", "train", "a", "place", file=Path("/x/a.png"), source_id="a", box=Box(1, 2, 3, 4, size=(9, 9)))
    inside = Item("sad", "", "b", "place", pixels=np.arange(6, dtype=np.uint8).reshape(2, 3), listed_as="b")
    one, two = (tasks.item_again(row) for row in pa.table(tasks.audit_items([item, inside])).to_pylist())
    assert (one.key, one.file, one.box) == ("a", item.file, item.box)
    assert two.key == "b"
    assert inside.pixels is not None
    np.testing.assert_array_equal(two.pixels, inside.pixels)


def test_a_folder_is_that_of_one_job(tmp_path: Path) -> None:
    job, out = Job(command="predict", model="a" * 64, n=3, images="x"), tmp_path / "out"
    assert not claim(out, job)
    assert claim(out, job), "what was begun goes on"
    with pytest.raises(DatasetError, match="is of another model: SHA-256 aaaaaaaaaaaa"):
        claim(out, job.model_copy(update={"model": "b" * 64}))
    with pytest.raises(DatasetError, match="is of other images: 3 in all, here 4"):
        claim(out, job.model_copy(update={"n": 4}))
    with pytest.raises(DatasetError, match="is not finished"):
        RowFolder(out)
    (out / SUMMARY).write_text("{}")
    with pytest.raises(DeepferError, match="is finished"):
        claim(out, job)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "mine.txt").write_text("mine")
    with pytest.raises(DeepferError, match="is not empty, and was not begun by --cluster"):
        claim(tmp_path / "else", job)
    (out / "job.json").write_text("{")
    with pytest.raises(DatasetError, match="is no job"):
        claim(out, job)


@pytest.mark.parametrize(
    ("places", "why"),
    [
        ([0, 1], "2 rows of 2 images, and the job has 3"),
        ([0, 1, 2, 2], "4 rows of 3 images"),
        ([0, 1, 3], "3 rows of 3"),
    ],
)
def test_rows_that_are_lost_or_doubled_are_refused(tmp_path: Path, places: list[int], why: str) -> None:
    job = Job(command="predict", n=3, images="x")
    claim(tmp_path / "out", job)
    tmp_path /= "out"
    pq.write_table(pa.table({"index": places}), tmp_path / ROWS / "a.parquet")
    (tmp_path / SUMMARY).write_text("{}")
    with pytest.raises(DatasetError, match=why):
        RowFolder(tmp_path).of(job)
    (tmp_path / ROWS / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match="holds rows that cannot be read"):
        RowFolder(tmp_path).of(job)


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match="--cluster auto finds no cluster"):
        engine.address_of("auto")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379\n")
    assert engine.address_of("auto") == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert engine.address_of("auto") == "10.0.0.2:6379"
    for wrong in ("ray://10.0.0.1:10001", "host", "host:", ":6379", "host:99999"):
        with pytest.raises(ConfigError, match="--cluster takes local, auto or HOST:PORT"):
            engine.address_of(wrong)


def test_a_worker_fits_into_a_node() -> None:
    assert engine.Cluster("x", (8, 8, 4)).workers(2) == (10, 2)
    assert engine.Cluster("x", (1, 1)).workers(2) == (2, 1), "one that no node can hold would never start"
    assert engine.Cluster("x", (8, 3)).workers(16) == (1, 8)


def test_a_dead_address_is_told_at_once(deepfer: Deepfer, painted_dataset: Path, linear_model: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    began = time.monotonic()
    words = ["predict", painted_dataset / "val", "-m", linear_model, "--cluster", f"127.0.0.1:{port}", "--out", "rows"]
    done = deepfer(*words)
    assert done.returncode == 1
    assert f"no cluster answers at 127.0.0.1:{port}: Connection refused" in done.stderr
    assert time.monotonic() - began < 60, "Ray itself tries for minutes"


def test_flags_that_do_not_go_together(deepfer: Deepfer, painted_dataset: Path, tmp_path: Path) -> None:
    for words, why in (
        (("--cluster", "local"), "--cluster needs a folder to write into"),
        (("--cluster", "local", "--shard", "1/2", "--out", "x"), "--shard and --cluster"),
        (("--cluster", "local", "--merge", "x"), "--cluster and --merge"),
    ):
        done = deepfer("audit", painted_dataset, *words)
        assert done.returncode == 1
        assert why in done.stderr


def test_an_archive_is_not_for_a_cluster(deepfer: Deepfer, painted_dataset: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "set"), "zip", painted_dataset)
    for command, hint in (("audit", "deepfer convert"), ("predict", "unpack it")):
        done = deepfer(command, archive, "--cluster", "local", "--out", tmp_path / "rows")
        assert done.returncode == 1
        assert "is an archive, which workers elsewhere cannot see into" in done.stderr
        assert hint in done.stderr


def test_an_error_of_ours_comes_back_whole(tmp_path: Path) -> None:
    def broken() -> Any:
        raise DatasetError("is\nbroken", "mend [it]", path="a.png")

    claim(tmp_path / "out", job := Job(command="predict", n=1, images="x"))
    with pytest.raises(RuntimeError) as raised:
        work_through(tasks.PredictTask(broken, PredictConfig()), {"path": ["a"]}, job, tmp_path / "out")
    found = bulk._cause(RuntimeError(f"Traceback of Ray:\n  RuntimeError: {raised.value}\nand more [so]\n"))
    assert found is not None
    assert (found.message, found.hint) == ("a.png: is\nbroken", "mend [it]")
    assert bulk._cause(RuntimeError("something else")) is None
