"""docs/ci: a retraining job from data to a verified model, shell commands only."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from deepfer_yolo.painted import paint_csv

CI = Path(__file__).resolve().parents[2] / "docs" / "ci"
LABELS = ("happy", "surprise")
NETWORK = """nc: 2
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [-1, 1, Classify, [nc]]
"""
RECIPE = """{mixup: 0, erasing: 0, degrees: 0, label_smoothing: 0, warmup_epochs: 0.2, ema_epochs: 0.2,
lr0: 0.02, epochs: 2, imgsz: 32, batch: 16, threads: 1}"""


def paint(folder: Path, counts: dict[str, int], seed: int = 5) -> None:
    """Stripes across or along, under noise: what the smallest network learns in two epochs."""
    random = np.random.RandomState(seed)
    wave = 40 * np.sin(np.arange(32) * 12 * np.pi / 32)
    for split, n in counts.items():
        for k, label in enumerate(LABELS):
            (folder / split / label).mkdir(parents=True)
            for i in range(n):
                stripes = np.roll(wave, random.randint(6))
                pixels = 128 + (stripes[:, None] if k else stripes[None]) + random.normal(0, 30, (32, 32))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / split / label / f"{i:03d}.png")


def environment(env: dict[str, str]) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"} | env


def shell(command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command], cwd=cwd, capture_output=True, text=True, check=False, timeout=900, env=environment(env)
    )


def paint_fer2013(path: Path, seed: int, n_train: int, n_val: int, n_test: int) -> None:
    """A fer2013.csv.gz of painted faces with the faults of the real one: copies across splits, some under two labels,
    and blank images.
    """
    paint_csv(path.with_suffix(""), seed, n_train, n_val, n_test)
    with path.with_suffix("").open(newline="") as file:
        header, *rows = csv.reader(file)
    code, pixels, usage = (header.index(name) for name in ("emotion", "pixels", "Usage"))
    for i in range(max(1, n_test // 40)):
        for part, step in (("PublicTest", 0), ("PrivateTest", 1)):
            copy = list(rows[2 * i + step])
            copy[usage] = part
            copy[code] = str((int(copy[code]) + i % 2) % 7)
            rows.append(copy)
    blank = list(rows[0])
    blank[pixels] = " ".join(["0"] * 48 * 48)
    rows.append(blank)
    with gzip.open(path, "wt", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def test_a_retraining_job_from_data_to_a_verified_model(
    tmp_path: Path, write_linear_model: Callable[..., Path]
) -> None:
    paint(tmp_path / "faces", {"train": 96, "val": 24, "test": 130})
    paint(
        tmp_path / "few", {"train": 2, "val": 2, "test": 6}, seed=6
    )  # other images: the model has learned those of seed 5
    write_linear_model(tmp_path / "old.onnx", np.zeros((2, 192), np.float32), np.array([1, 0], np.float32), LABELS)
    (tmp_path / "net-cls.yaml").write_text(NETWORK)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    job = {"SOURCE": "faces", "DATA": "data", "TRAIN": "--model net-cls.yaml --config recipe.yaml"}

    # A champion from before; then the job: a better model is promoted, exported and proven.
    (tmp_path / "floor.yaml").write_text("floors: {top1: 0.3}\n")
    gate = "deepfer gate data -m old.onnx --config floor.yaml --promote champions"
    first = shell(f"deepfer convert faces data && {gate}", tmp_path)
    assert first.returncode == 0, first.stderr
    done = shell(f"sh {CI / 'retrain.sh'}", tmp_path, **job)
    assert done.returncode == 0, done.stderr
    assert "Promoted to champions/champion/model.pt" in done.stdout
    assert "verified: dist/model.onnx" in done.stdout
    champion = (tmp_path / "champions/champion/model.pt").read_bytes()
    [gated] = [path for path in tmp_path.glob("runs/gate/*/gate.json") if json.loads(path.read_text()).get("pair")]
    assert json.loads(gated.read_text())["pair"]["d_interval"][0] > 0.2

    # A worse one is refused, an identical one is not inferior, a tiny test set cannot tell.
    gate = "deepfer convert few small >&2; deepfer gate {} -m {} {}; echo $?"
    worse = shell("deepfer gate data -m old.onnx --champion dist/model.onnx; echo $?", tmp_path).stdout.splitlines()[-1]
    same = shell(
        "deepfer gate data -m dist/model.onnx --champion dist/model.onnx; echo $?", tmp_path
    ).stdout.splitlines()[-1]
    tiny = shell(gate.format("small", "dist/model.onnx", "--champion dist/model.onnx"), tmp_path).stdout.splitlines()[
        -1
    ]
    assert (worse, same, tiny) == ("3", "0", "5")
    assert (tmp_path / "champions/champion/model.pt").read_bytes() == champion
    history = [json.loads(line) for line in (tmp_path / "champions/history.jsonl").read_text().splitlines()]
    assert [entry["promoted"] for entry in history] == [True, True]


@pytest.mark.slow
def test_the_job_on_a_set_with_the_faults_of_fer2013(tmp_path: Path) -> None:
    script = f"sh {CI / 'retrain.sh'}"
    paint_fer2013(tmp_path / "fer2013.csv.gz", 3, 700, 140, 420)
    paint_fer2013(tmp_path / "few.csv.gz", 4, 70, 28, 14)
    (tmp_path / "short.yaml").write_text(
        "{optimizer: adamw, lr0: 0.001, mixup: 0, erasing: 0, epochs: 3, threads: 1}\n"
    )
    job = {"SOURCE": "fer2013.csv.gz", "TRAIN": "--config short.yaml"}

    # Its own faults stop the audit, which names the preset that knows them; then nothing is trained.
    stopped = shell(script, tmp_path, **job)
    assert stopped.returncode == 3, stopped.stderr
    assert "deepfer audit datasets/retrain --config fer2013" in stopped.stderr
    assert 'AUDIT="--config fer2013"' in stopped.stderr
    assert not (tmp_path / "runs").exists()

    # A kill in training: the next job goes on with the run, and its model beats the shipped one.
    job["AUDIT"] = "--config fer2013"
    killed = subprocess.Popen(script.split(), cwd=tmp_path, env=environment(job), start_new_session=True)
    while killed.poll() is None and not list(tmp_path.glob("runs/train/*/weights/last.pt")):
        time.sleep(0.5)
    assert killed.poll() is None, "it ended before the first checkpoint"
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not list(tmp_path.glob("runs/train/*/metrics.json"))
    first = shell(script, tmp_path, **job)
    assert first.returncode == 0, first.stderr
    assert "the shipped deepfer-n stood in for one" in first.stdout
    [run] = tmp_path.glob("runs/train/*")
    trained = (run / "metrics.json").stat().st_mtime_ns
    champion = (tmp_path / "champions/champion/model.pt").read_bytes()

    # Again: nothing is trained twice.
    again = shell(script, tmp_path, **job)
    assert again.returncode == 0, again.stderr
    assert "already trained" in again.stderr
    assert (run / "metrics.json").stat().st_mtime_ns == trained

    # A worse challenger, and a test set that cannot tell.
    (tmp_path / "idle.yaml").write_text("{optimizer: sgd, lr0: 0.000001, mixup: 0, epochs: 1, threads: 1}\n")
    worse = shell(script, tmp_path, **job | {"TRAIN": "--config idle.yaml --model deepfer-xs"})
    assert worse.returncode == 3, worse.stderr
    assert "worse than allowed" in worse.stdout
    few = shell(script, tmp_path, **job | {"SOURCE": "few.csv.gz", "DATA": "few", "AUDIT": "--fail-on never"})
    assert few.returncode == 5, few.stderr
    assert (tmp_path / "champions/champion/model.pt").read_bytes() == champion


def test_the_job_stops_where_a_step_fails(tmp_path: Path) -> None:
    done = shell(f"sh {CI / 'retrain.sh'}", tmp_path, SOURCE="nothing.csv")
    assert done.returncode == 1
    assert "nothing.csv" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml"])
def test_workflows_are_yaml_and_run_the_tested_chain(name: str) -> None:
    text = (CI / name).read_text(encoding="utf-8")
    job = yaml.safe_load(text)
    job = job.get("jobs", job)["retrain"]
    steps = [step.get("run", "") for step in job["steps"]] if "steps" in job else job["script"]
    assert sum("retrain.sh" in step for step in steps) == 1
    assert "runs/gate" in text


def test_scripts_and_workflows_pass_their_checkers() -> None:
    """shellcheck of each script; each workflow against GitHub's or GitLab's schema, which check-jsonschema carries."""
    root = CI.parents[1]
    scripts = [CI / "retrain.sh", root / ".ci" / "run", *root.glob("docs/**/*.sh"), *root.glob("findings/*.sh")]
    check = ["shellcheck", "--severity=warning", *map(str, scripts)]
    github = ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"]
    gitlab = ["check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", str(CI / "gitlab.yml")]
    for words in (check, [*github, str(CI / "github.yml"), str(CI / "release.yml")], gitlab):
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment({}))
        assert done.returncode == 0, done.stdout + done.stderr


def test_make_target(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(f"include {CI / 'retrain.mk'}\n")
    done = shell("make retrain SOURCE=nothing.csv", tmp_path)
    assert done.returncode == 2
    assert "nothing.csv" in done.stderr
