"""`deepfer train` as a person or a CI job meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from deepfer_yolo.yolo import load_checkpoint

TINY = (
    "nc: 7\nbackbone:\n  - [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 1, Conv, [32, 3, 2]]\n"
    "head:\n  - [-1, 1, Classify, [nc]]\n"
)


def start(folder: Path, *words: object) -> subprocess.Popen[str]:
    (folder / "tiny-cls.yaml").write_text(TINY)
    command = [sys.executable, "-m", "deepfer_yolo", "train", *map(str, words)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(folder: Path, *words: object) -> tuple[int, str, str]:
    process = start(folder, *words)
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


RECIPE = ("--model", "tiny-cls.yaml", "--imgsz", "32", "--batch", "35", "--threads", "1")


def wait_for_epochs(folder: Path, n: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    results = folder / "runs" / "train" / "r" / "results.csv"
    while (not results.exists() or len(results.read_text().splitlines()) <= n) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_json_on_stdout_and_progress_on_stderr(painted_dataset: Path, tmp_path: Path) -> None:
    code, out, err = run(tmp_path, painted_dataset, *RECIPE, "--epochs", 2, "--name", "r", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["val"]["n"] == 56
    assert Path(found["checkpoint"]) == tmp_path / "runs/train/r/weights/best.pt"
    assert "training from scratch" in err
    assert "1/2" in err
    assert "2/2" in err
    assert max(map(len, err.splitlines()[2:5])) <= 80


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_run_that_can_be_resumed(
    signum: int, code: int, painted_dataset: Path, tmp_path: Path
) -> None:
    process = start(tmp_path, painted_dataset, *RECIPE, "--epochs", 400, "--name", "r")
    wait_for_epochs(tmp_path, 2, process)
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "continue with: deepfer train --resume runs/train/r" in err
    assert list((tmp_path / "runs/train/r/weights").glob("state-*.pt"))
    assert not (tmp_path / "runs/train/r/metrics.json").exists()


EPOCHS = 30  # enough to be still under way when a busy machine gets round to the kill


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a run's two checkpoints."""
    found = {name: load_checkpoint(run / "weights" / name).state_dict() for name in ("best.pt", "last.pt")}
    return {f"{name}: {key}": value for name, state in found.items() for key, value in state.items()}


@pytest.fixture(scope="module")
def unbroken(painted_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What the run of `kill_and_resume` ends with when nobody kills it."""
    folder = tmp_path_factory.mktemp("unbroken")
    code, _, err = run(folder, painted_dataset, *RECIPE, "--epochs", EPOCHS, "--name", "r")
    assert code == 0, err
    return weights(folder / "runs" / "train" / "r")


def kill_and_resume(painted_dataset: Path, tmp_path: Path, delay_s: float, unbroken: dict[str, torch.Tensor]) -> None:
    process = start(tmp_path, painted_dataset, *RECIPE, "--epochs", EPOCHS, "--name", "r")
    wait_for_epochs(tmp_path, 1, process)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, "the run was over before the kill"
    assert not (tmp_path / "runs/train/r/metrics.json").exists(), "the run was over before the kill"
    code, _, err = run(tmp_path, "--resume", "runs/train/r")
    assert code == 0, err
    assert "resuming" in err
    epochs = [line.split(",")[0] for line in (tmp_path / "runs/train/r/results.csv").read_text().splitlines()[1:]]
    assert epochs == [str(number) for number in range(1, EPOCHS + 1)]
    found = weights(tmp_path / "runs" / "train" / "r")
    assert [key for key, value in unbroken.items() if not torch.equal(value, found[key])] == []


@pytest.mark.parametrize("delay_s", [0.0, 0.11])
def test_a_killed_run_is_resumable(
    delay_s: float, painted_dataset: Path, tmp_path: Path, unbroken: dict[str, torch.Tensor]
) -> None:
    kill_and_resume(painted_dataset, tmp_path, delay_s, unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(30))
def test_a_run_killed_at_any_moment_is_resumable(
    number: int, painted_dataset: Path, tmp_path: Path, unbroken: dict[str, torch.Tensor]
) -> None:  # fmt: skip
    kill_and_resume(painted_dataset, tmp_path, number * 0.037, unbroken)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("DATA", "--model", "yolo11n-clss"), "error: unknown model 'yolo11n-clss' (did you mean 'yolo11n-cls'?)"),
        (("DATA", "--model", "yolo11n-cls", "--device", "0"), "error: --device 0: this machine has"),
        (("DATA", "--model", "yolo11n-cls", "--config", "typo.yaml"), "unknown key 'epoch' (did you mean 'epochs'?)"),
        (("DATA", "--imgsz", "50"), "imgsz: input should be a multiple of 16, not 50"),
        (
            ("--resume", "runs", "--epochs", "3"),
            "error: --resume continues a run with its own recipe and takes no --epochs",
        ),
    ],
)
def test_mistakes_are_two_lines_and_exit_1(
    words: tuple[str, ...], message: str, painted_dataset: Path, tmp_path: Path
) -> None:
    if "--device" in words and torch.cuda.is_available():
        pytest.skip("this machine has a GPU 0")
    (tmp_path / "typo.yaml").write_text("epoch: 3\n")
    code, out, err = run(tmp_path, *(painted_dataset if word == "DATA" else word for word in words))
    assert code == 1
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_folds_print_mean_and_spread(painted_dataset: Path, tmp_path: Path) -> None:
    code, out, err = run(
        tmp_path, painted_dataset, *RECIPE, "--epochs", 1, "--folds", 3, "--group-by", "none", "--name", "cv"
    )
    assert code == 0, err
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["fold 1", "fold 2", "fold 3"]
    assert lines[3].startswith("3 folds by none: top-1 ")
    assert "±" in lines[3]
    assert lines[4].startswith("all 224 images, each tested once: top-1 ")
    assert (tmp_path / "runs/train/cv/fold-3/weights/best.pt").is_file()


def test_help_is_light() -> None:
    code = (
        "import sys; sys.argv = ['deepfer', 'train', '--help']; import deepfer_yolo.__main__ as program\n"
        "try: program.main()\nexcept SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"}
    )
    assert done.stdout.rstrip().endswith("False")
