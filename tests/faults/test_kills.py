"""SIGKILL at any moment of every command that writes: what is final is whole, and the same command goes on.

One test kills 200 times, dealt out over the commands, and counts: a final file that is broken, and a command that is
refused because of what the kill left, are both 0. The first kills of each command are fast enough for `make test`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image as PillowImage

from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.files import STAGING_MARK
from deepfer_yolo.runs import state_of
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.golden import check_golden
from deepfer_yolo.runtime.model_file import PULLABLE
from deepfer_yolo.yolo import load_checkpoint

TINY = (
    "nc: 7\nbackbone:\n  - [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 1, Conv, [32, 3, 2]]\n"
    "head:\n  - [-1, 1, Classify, [nc]]\n"
)
RECIPE = ["--model", "tiny-cls.yaml", "--imgsz", "32", "--batch", "35", "--threads", "1"]


@dataclass(slots=True)
class Case:
    """One command that is killed in `folder`: its words (which may change once something is there), what is broken of
    what stands under a final name, and how to begin anew once it has ended well.
    """

    name: str
    folder: Path
    words: Callable[[Path], list[object]]
    broken: Callable[[Path], list[str]]
    forget: Callable[[Path], None]
    environ: dict[str, str] = field(default_factory=dict)
    has_ended: Callable[[Path], bool] = lambda _: False
    """Whether all that the command makes is there, so that it was killed on its way out."""

    def start(self) -> subprocess.Popen[str]:
        """The command, under way."""
        command = [sys.executable, "-m", "deepfer_yolo", *map(str, self.words(self.folder))]
        environ = {**os.environ, **self.environ}
        return subprocess.Popen(
            command, cwd=self.folder, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def finish(self) -> str:
        """Run to the end; what stderr said where it did not end well."""
        process = self.start()
        _, errors = process.communicate(timeout=300)
        return "" if process.returncode == 0 else errors


@dataclass(slots=True)
class Count:
    """What many kills came to."""

    kills: int = 0
    broken: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)


def kill_at_random(case: Case, n: int, seed: int) -> Count:
    """Kill a case `n` times, each time going on from what the last kill left, and run it to its end at last."""
    chance, count = random.Random(seed), Count()
    began = time.monotonic()
    assert case.finish() == "", case.name
    whole_s = time.monotonic() - began
    case.forget(case.folder)
    while count.kills < n:
        process = case.start()
        try:
            _, errors = process.communicate(timeout=whole_s * chance.uniform(0.15, 1.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            _, errors = process.communicate()
        count.broken += case.broken(case.folder)
        if process.returncode == -signal.SIGKILL:
            count.kills += 1
            if case.has_ended(case.folder):
                case.forget(case.folder)
        elif process.returncode == 0:
            case.forget(case.folder)
        else:
            count.blocked.append(f"{case.name}: {errors.strip()[-400:]}")
            case.forget(case.folder)
    errors = case.finish()
    count.blocked += [f"{case.name}, at the end: {errors[-400:]}"] if errors else []
    count.broken += case.broken(case.folder)
    return count


def broken_json(*paths: Path) -> list[str]:
    """Which of the JSON files that are there cannot be read."""
    found = []
    for path in paths:
        try:
            json.loads(path.read_text()) if path.exists() else None
        except ValueError as error:
            found.append(f"{path}: {error}")
    return found


def complaint_of(action: Callable[[], object], what: Path) -> list[str]:
    """What an action on a final file raises."""
    try:
        action()
    except Exception as error:
        return [f"{what}: {error}"]
    return []


def broken_dataset(folder: Path, images: int) -> list[str]:
    """What is wrong with a data set folder, if it is there."""
    if not folder.exists():
        return []
    found = complaint_of(lambda: open_dataset(folder), folder)
    return found or [f"{folder}: not {images} images"] * (len(open_dataset(folder).all_rows) != images)


def broken_model(path: Path) -> list[str]:
    """What is wrong with an exported model, if it is there: it must prove itself."""
    if not path.exists():
        return []

    def prove() -> None:
        assert check_golden(Classifier(path)).passed

    return complaint_of(prove, path)


def broken_training(run: Path) -> list[str]:
    """What is wrong with a training run: its figures, and the checkpoints under final names."""
    found = broken_json(run / "metrics.json", run / "env.json")
    for path in [*run.glob("weights/best.pt"), *run.glob("weights/last.pt")]:
        found += complaint_of(lambda path=path: load_checkpoint(path), path)  # type: ignore[misc]
    return found


def remove(*names: str) -> Callable[[Path], None]:
    """A function that removes these from a folder."""

    def forget(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    return forget


def resumed(run: str, fresh: list[object], command: str) -> Callable[[Path], list[object]]:
    """Words that go on with a run where there is something to go on with."""

    def words(folder: Path) -> list[object]:
        goes_on = (folder / run).is_dir() and state_of(folder / run) == "stopped"
        return [command, "--resume", folder / run] if goes_on else fresh

    return words


def finished(run: str) -> Callable[[Path], bool]:
    """A function that says whether a run has its figures."""
    return lambda folder: (folder / run / "metrics.json").exists()


@pytest.fixture
def mirror(shared_dir: Path) -> Iterator[str]:
    """The URL of a server that sends the YuNet file slowly."""
    content = (shared_dir / "models" / PULLABLE["yunet"].file).read_bytes()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for start in range(0, len(content), 8192):
                self.wfile.write(content[start : start + 8192])
                time.sleep(0.01)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign, assignment]  (a killed client)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/yunet"
        server.shutdown()


def convert_case(folder: Path, csv: Path) -> Case:
    words: list[object] = ["convert", csv, "data"]
    return Case(
        "convert", folder, lambda _: words, lambda at: broken_dataset(at / "data", 224), remove("data"),
        has_ended=lambda at: (at / "data").exists(),
    )  # fmt: skip


def evaluate_case(folder: Path, dataset: Path, model: Path) -> Case:
    words: list[object] = ["evaluate", dataset, "-m", model, "--name", "e"]

    def broken(at: Path) -> list[str]:
        run = at / "runs/evaluate/e"
        found = broken_json(run / "metrics.json", run / "env.json")
        report = run / "report.html"
        return found + [f"{report}: cut"] * (report.exists() and "</html>" not in report.read_text())

    return Case(
        "evaluate", folder, lambda _: words, broken, remove("runs/evaluate"), has_ended=finished("runs/evaluate/e")
    )


def export_case(folder: Path, checkpoint: Path) -> Case:
    words: list[object] = ["export", checkpoint, "--out", "best.onnx", "--pictures", "35"]
    file = folder / "best.onnx"
    return Case(
        "export", folder, lambda _: words, lambda _: broken_model(file), remove(file.name),
        has_ended=lambda _: file.exists(),
    )  # fmt: skip


def train_case(folder: Path, dataset: Path) -> Case:
    (folder / "tiny-cls.yaml").write_text(TINY)
    fresh: list[object] = ["train", dataset, *RECIPE, "--epochs", "4", "--name", "r"]
    run = "runs/train/r"
    return Case(
        "train", folder, resumed(run, fresh, "train"), lambda at: broken_training(at / run), remove("runs/train"),
        has_ended=finished(run),
    )  # fmt: skip


def tune_case(folder: Path, dataset: Path) -> Case:
    (folder / "tiny-cls.yaml").write_text(TINY)
    (folder / "space.yaml").write_text("trials: 2\nspace:\n  lr0: {low: 0.01, high: 0.1}\n")
    (folder / "recipe.yaml").write_text("model: tiny-cls.yaml\nimgsz: 32\nbatch: 35\nthreads: 1\nepochs: 2\n")
    fresh: list[object] = ["tune", dataset, "--config", "recipe.yaml", "--space", "space.yaml", "--name", "t"]
    run = "runs/tune/t"

    def broken(at: Path) -> list[str]:
        trials = [path for path in at.glob(f"{run}/train/*") if path.is_dir()]
        return broken_json(at / run / "metrics.json") + [what for trial in trials for what in broken_training(trial)]

    return Case("tune", folder, resumed(run, fresh, "tune"), broken, remove("runs/tune"), has_ended=finished(run))


def pull_case(folder: Path, url: str) -> Case:
    file = folder / "home/models" / PULLABLE["yunet"].file

    def broken(_: Path) -> list[str]:
        from deepfer_yolo.files import sha256_of

        return [f"{file}: wrong hash"] * (file.exists() and sha256_of(file) != PULLABLE["yunet"].sha256)

    words: list[object] = ["models", "pull", "yunet", "--url", url]
    environ = {"DEEPFER_HOME": str(folder / "home")}
    return Case("pull", folder, lambda _: words, broken, lambda _: file.unlink(missing_ok=True), environ)


def stream_case(folder: Path, model: Path) -> Case:
    """Six recordings to one log, which a rerun goes on with; each has all its records once at the end."""
    (folder / "clips").mkdir()
    for number in range(6):
        frames = [PillowImage.new("RGB", (64, 48), (40 * number, 20 * i, 90)) for i in range(12)]
        frames[0].save(folder / f"clips/c{number}.gif", save_all=True, append_images=frames[1:], duration=40)
    log = folder / "out.jsonl"
    words: list[object] = ["stream", "clips", "-m", model, "--detector", "whole", "--sink", "jsonl=out.jsonl"]

    def broken(_: Path) -> list[str]:
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        whole = [line for line in lines if line.endswith("\n")]  # a kill may cut the last one; a resume removes it
        faces = Counter(record["source"] for record in map(json.loads, whole) if record["kind"] == "face")
        return [f"{log}: {n} records of {source}" for source, n in faces.items() if n > 12]

    def has_ended(_: Path) -> bool:
        return log.exists() and log.read_text().count('"complete": true') == 6

    return Case(
        "stream", folder, lambda _: [*words, *["--resume"] * log.exists()], broken, remove("out.jsonl"),
        has_ended=has_ended,
    )  # fmt: skip


KILLS = {"convert": 35, "evaluate": 30, "export": 30, "train": 30, "tune": 15, "stream": 30, "pull": 30}


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLS)
def test_kills_break_and_block_nothing(
    name: str, painted_csv: Path, painted_dataset: Path, linear_model: Path, checkpoint: Path, tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    made = {
        "convert": lambda: convert_case(tmp_path, painted_csv),
        "evaluate": lambda: evaluate_case(tmp_path, painted_dataset, linear_model),
        "export": lambda: export_case(tmp_path, checkpoint),
        "train": lambda: train_case(tmp_path, painted_dataset),
        "tune": lambda: tune_case(tmp_path, painted_dataset),
        "stream": lambda: stream_case(tmp_path, linear_model),
        "pull": lambda: pull_case(tmp_path, request.getfixturevalue("mirror")),
    }
    n = int(os.environ.get("DEEPFER_KILLS", KILLS[name]))
    count = kill_at_random(made[name](), n, seed=len(name))
    print(f"{name}: {count.kills} kills, {len(count.broken)} broken, {len(count.blocked)} blocked")
    assert (count.kills, count.broken, count.blocked) == (n, [], [])
    assert [path for path in tmp_path.rglob(f"*{STAGING_MARK}*") if path.stat().st_mtime < time.time() - 60] == []
