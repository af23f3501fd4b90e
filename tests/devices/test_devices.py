"""The shipped models on other processors: aarch64 and x86 of fewer instructions, emulated by qemu; slow.

Needs Debian's `qemu-user-static` and `debootstrap`, and the network. $DEEPFER_DEVICES names a folder that keeps the
arm64 system and the wheels for the next run.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from deepfer_yolo.painted import paint_faces, paint_frames


def _emulation() -> ModuleType:
    """`tests/emulation.py`."""
    spec = importlib.util.spec_from_file_location("emulation", Path(__file__).parents[1] / "emulation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["emulation"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


emulation: Any = _emulation()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(emulation.MISSING), reason=f"missing: {', '.join(emulation.MISSING)} (qemu-user-static, debootstrap)"
    ),
]
ALLOWED = {"deepfer-n": 1e-5, "deepfer-live": 1e-5, "deepfer-cnn": 1e-5, "deepfer-xs": 1e-6}
"""max |Δp| to the golden answers that fp32 and, of deepfer-xs, int8 may have elsewhere."""
PATIENCE_S = "3600"


@pytest.fixture(scope="session")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return emulation.Arm(emulation.kept_folder(tmp_path_factory.mktemp("devices")))


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    for index, face in enumerate(paint_faces(5, 50)[0]):
        Image.fromarray(face).save(folder / f"{index:02}.png")
    return folder


def verify(device: Any, *models: str) -> None:
    for model in models:
        answer = json.loads(device.deepfer("verify", model, "--json", "--timeout-s", PATIENCE_S))
        print(f"{device.name} {model} {answer['precision']}: max |Δp| {answer['max_diff']:.1e}")
        assert answer["passed"]
        assert answer["max_diff"] < ALLOWED[model]


def predict_alike(device: Any, model: str, faces: Path, tmp_path: Path) -> None:
    """Labels are equal, and probabilities within 1e-4."""
    rows = [
        [json.loads(line) for line in one.deepfer("predict", faces, "-m", model, "--json").splitlines()]
        for one in (device, emulation.here(tmp_path))
    ]
    assert len(rows[0]) == 50
    probs = np.array([[list(row["probs"].values()) for row in side] for side in rows])
    print(f"{device.name} {model}: 50 faces, max |Δp| {np.abs(probs[0] - probs[1]).max():.1e}")
    assert [row["label"] for row in rows[0]] == [row["label"] for row in rows[1]]
    assert np.abs(probs[0] - probs[1]).max() < 1e-4


@pytest.mark.parametrize("cpu", ["Nehalem", "Haswell"])
def test_x86_with_fewer_instructions_verifies(cpu: str, tmp_path: Path) -> None:
    verify(emulation.x86(cpu, tmp_path), "deepfer-n", "deepfer-xs")


@pytest.mark.parametrize("cpu", ["cortex-a72", "cortex-a76", "max"])
def test_the_base_install_answers_alike_on_arm(cpu: str, arm: Any, faces: Path, tmp_path: Path) -> None:
    device = arm.device(cpu, tmp_path)
    verify(device, *(ALLOWED if cpu == "cortex-a72" else ("deepfer-n", "deepfer-xs")))
    for model in ("deepfer-n", "deepfer-xs") if cpu == "cortex-a72" else ():
        predict_alike(device, model, faces, tmp_path)


def test_a_stream_on_arm_labels_each_image_alike(arm: Any, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 160, 160, "yuv420p"
        for image in paint_frames(6, ("happy",), 12, 160):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    labels = []
    for device in (arm.device("cortex-a72", tmp_path, "live-headless"), emulation.here(tmp_path)):
        sink = tmp_path / f"{device.name}.jsonl"
        device.deepfer("stream", clip, "--detector", "whole", "--sink", f"jsonl={sink}")
        records = [json.loads(line) for line in sink.read_text().splitlines()]
        labels.append([(row["frame"], row["raw_label"]) for row in records if row["kind"] == "face"])
    assert len(labels[0]) == 12
    assert labels[0] == labels[1]
