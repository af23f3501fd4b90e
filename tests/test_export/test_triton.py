"""A Triton model repository from an exported file."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepfer_yolo.errors import DeepferError
from deepfer_yolo.export.triton import write_triton
from deepfer_yolo.runtime.classifier import Classifier


def test_triton_gets_what_it_looks_for(exported: Path, tmp_path: Path) -> None:
    card = Classifier(exported).card.model_copy(update={"name": "my model"})
    folder = write_triton(exported, card, tmp_path, batch=None)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "1/model.onnx",
        "card.json",
        "config.pbtxt",
        "labels.txt",
    ]
    assert folder.name == "my-model"
    config = (folder / "config.pbtxt").read_text()
    assert 'backend: "onnxruntime"' in config
    assert 'name: "image" data_type: TYPE_UINT8 dims: [ 32, 32, 3 ]' in config
    assert 'name: "probs" data_type: TYPE_FP32 dims: [ 7 ]' in config
    assert (folder / "labels.txt").read_text().split() == list(card.labels)
    assert (folder / "1" / "model.onnx").read_bytes() == exported.read_bytes()
    assert (
        "max_batch_size: 0" in (write_triton(exported, card, tmp_path / "fixed", batch=4) / "config.pbtxt").read_text()
    )
    with pytest.raises(DeepferError, match="not empty"):
        write_triton(exported, card, tmp_path, batch=None)
