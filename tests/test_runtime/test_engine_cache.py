"""Engines built at the first run, without a GPU: a stand-in builds a text file, another answers for it; lock, cache and
proof are real.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepfer_yolo.errors import MissingDependencyError
from deepfer_yolo.files import sha256_of
from deepfer_yolo.runtime.card import read_sidecar
from deepfer_yolo.runtime.classifier import opened_file
from deepfer_yolo.runtime.engine_cache import build_engine

RUN = """
import sys, time
from pathlib import Path
from deepfer_yolo.runtime import classifier, engine_cache, first_contact
from deepfer_yolo.runtime.backends import tensorrt
from deepfer_yolo.runtime.backends.onnx import OnnxBackend
source, log, wrong = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "wrong"
engine_cache.require_driver = lambda: None
engine_cache.import_tensorrt = lambda full: None
engine_cache.environment = lambda trt: {"tensorrt": "11.4", "compute_capability": "8.7", "system": "linux-x"}
def build(graph, out, here, *, batch, version_compatible):
    with log.open("a") as file:
        file.write("built\\n")
    time.sleep(1.0)
    out.write_text("an engine")
engine_cache.build_engine = build
class Answers(OnnxBackend):
    provider = "tensorrt"
    def run(self, crops):
        return super().run(crops)[:, ::-1].copy() if wrong else super().run(crops)
tensorrt.require_driver = lambda: None
tensorrt.TensorRtBackend = lambda path, threads: Answers(source)
first_contact.ensure_contact = lambda path, provider, timeout_s: None
try:
    print(classifier.opened_file(source, "tensorrt"))
except classifier.ModelError as error:
    print("refused:", error.message)
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "DEEPFER_CACHE": str(tmp_path / "cache")}


def test_two_first_runs_build_once(exported: Path, tmp_path: Path, home: dict[str, str]) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", RUN, str(exported), str(log), "right"]
    runs = [subprocess.Popen(command, env=home, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (Path(run.communicate(timeout=100)[0].strip()) for run in runs)
    assert first == second
    assert log.read_text() == "built\n"
    assert first.read_text() == "an engine"
    card = read_sidecar(first)
    assert card.file_sha256 == sha256_of(first)
    assert card.producer["compute_capability"] == "8.7"
    began = time.monotonic()
    third = subprocess.run(command, env=home, capture_output=True, text=True, check=True)
    assert Path(third.stdout.strip()) == first
    assert log.read_text() == "built\n"
    assert time.monotonic() - began < 60
    assert sorted(path.name for path in (tmp_path / "cache" / "tensorrt").iterdir()) == [
        first.parent.name,
        f"{first.parent.name}.lock",
    ]


def test_an_engine_that_answers_otherwise_is_not_kept(exported: Path, tmp_path: Path, home: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(exported), str(tmp_path / "log"), "wrong"],
        env=home,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "answers otherwise than the card says" in done.stdout
    assert not list((tmp_path / "cache").rglob("*.engine"))


def test_without_a_gpu_one_error_says_so(exported: Path) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU")
    with pytest.raises(MissingDependencyError, match="TensorRT needs an NVIDIA GPU"):
        opened_file(exported, "tensorrt")


def test_what_the_building_child_says_is_raised_here(exported: Path, tmp_path: Path) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU")
    here = {"tensorrt": "11.4", "compute_capability": "8.7", "system": "linux-x"}
    with pytest.raises(MissingDependencyError, match="TensorRT needs an NVIDIA GPU"):
        build_engine(exported, tmp_path / "engine", here, batch=None, version_compatible=False)
    assert list(tmp_path.iterdir()) == []
