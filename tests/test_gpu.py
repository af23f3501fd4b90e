"""What travels to a GPU machine comes back byte for byte, and its script runs from end to end, here on the CPU."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from deepfer_yolo.painted import paint_csv

ROOT = Path(__file__).parents[1]
GPU = ROOT / "docs" / "gpu"

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the codec needs a C compiler")


@pytest.fixture(scope="module")
def pack() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pack", GPU / "pack.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("spread", [0.0, 0.3, 30.0], ids=["flat", "likely", "wild"])
def test_the_codec_gives_the_same_pixels_back_by_any_network(pack: ModuleType, tmp_path: Path, spread: float) -> None:
    random = np.random.default_rng(0)
    sizes = (len(pack.neighbours()) + 5, *pack.HIDDEN, 3 * pack.PARTS)
    layers = [
        (random.normal(0, spread, (after, before)).astype(np.float32), np.zeros(after, np.float32))
        for before, after in itertools.pairwise(sizes)
    ]
    network = pack.struct(layers)
    codec = tmp_path / "codec.so"
    pack.build_codec(codec)
    noise = random.integers(0, 256, (3, 48, 48)).astype(np.uint8)
    smooth = np.add.outer(np.zeros(3), np.add.outer(np.arange(48), 2 * np.arange(48))).astype(np.uint8)
    edges = np.where(random.random((2, 48, 48)) < 0.5, 0, 255).astype(np.uint8)
    images = np.concatenate([noise, smooth, edges])
    stream = pack.code(codec, network, images.copy())
    found = np.zeros_like(images)
    pack.code(codec, network, found, stream)
    assert (found == images).all()
    assert len(stream) < 3 * images.nbytes


@pytest.mark.slow
def test_the_run_goes_from_the_pack_to_its_summary(tmp_path: Path) -> None:
    """Two minutes: five trainings of one or two epochs."""
    paint_csv(tmp_path / "fer2013.csv", seed=3, n_train=140, n_val=35)
    usages = [line.rpartition(",")[2] for line in (tmp_path / "fer2013.csv").read_text().splitlines()[1:]]
    names = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    votes = "".join(f"{usage},fer{number:07}.png,{'1,' * 9}1\n" for number, usage in enumerate(usages))
    (tmp_path / "votes.csv").write_text(f"Usage,Image name,{names}\n{votes}")
    making = [GPU / "pack.py", "make", tmp_path / "fer2013.csv", tmp_path / "votes.csv", tmp_path / "pack" / "p.npz"]
    subprocess.run([sys.executable, *making, "--minutes", "0"], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    training = "--epochs 1 --batch 32 --model cnn-xs --precision fp32"
    done = subprocess.run(
        ["bash", GPU / "run.sh"], check=False, capture_output=True, text=True,
        env={
            **os.environ, "OUT": str(tmp_path / "out"), "WORK": str(tmp_path / "work"), "PYTHON": sys.executable,
            "PACK": str(tmp_path / "pack" / "p.npz"), "WHEELS": str(tmp_path / "none"), "DEVICE": "cpu",
            "SPEED": "--batches 32 --epochs 2 --stock-epochs 2 --workers 2 --precision fp32 --threads 1 --limit-s 600",
            "ACCURACY": "--target 0.01 --threads 1 --limit-s 600", "RECIPE": training, "JOB_OPTIONS": training,
            "STEP1_S": "600", "STEP2_S": "600", "STEP3_S": "600",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    speed, accuracy = summary["step-speed"]["32"], summary["step-accuracy"][training]
    assert [side["trouble"] for side in speed.values() if "trouble" in side] == ["", "", ""]
    assert speed["ratio_of_the_slower"].keys() == {"training", "whole_epochs"}
    assert accuracy["reached_s"] is not None
    assert summary["step-tensorrt"]["built"] is False
    with tarfile.open(tmp_path / "out" / "runs.tar.0") as archive:
        # The other job starts from a backbone that is not here: one that fails costs no other.
        assert {"logs/small.log", "runs/train/wide/weights/best.pt"} <= set(archive.getnames())
