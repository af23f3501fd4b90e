"""`predict --faces`: pictures to faces to labels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepfer_yolo.config import FaceConfig
from deepfer_yolo.faces.detect import WholeDetector, open_detector
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.stream.batch import predict_faces


def test_pictures_without_faces_and_broken_ones_have_their_rows(tmp_path: Path, model: Classifier) -> None:
    Image.fromarray(np.full((200, 300, 3), 90, np.uint8)).save(tmp_path / "flat.png")
    (tmp_path / "broken.png").write_bytes(b"x")
    paths = [tmp_path / name for name in ("flat.png", "broken.png", "missing.png")]
    rows = list(predict_faces(paths, model, lambda: open_detector(FaceConfig(detector="haar"), "image")))
    assert [(row.path, row.prediction, row.face) for row in rows] == [(path, None, None) for path in paths]
    assert [row.error is None for row in rows] == [True, False, False]
    assert next(iter(predict_faces(paths[:1], model, WholeDetector))).prediction is not None


def test_the_command_finds_faces_without_torch(shared_dir: Path, model_file: Path) -> None:
    picture = shared_dir / "media" / "zidane.jpg"
    if not picture.is_file():
        pytest.skip("no example picture")
    code = "import sys; from deepfer_yolo.cli.app import app; app(sys.argv[1:], standalone_mode=False); assert 'torch' not in sys.modules"
    face_model = shared_dir / "models" / "face_detection_yunet_2023mar.onnx"
    command = [
        sys.executable,
        "-c",
        code,
        "predict",
        str(picture),
        "-m",
        str(model_file),
        "--faces",
        "--face-model",
        str(face_model),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 2
    assert all(row["score"] > 0.8 and sum(row["probs"].values()) == pytest.approx(1, abs=1e-3) for row in rows)
