"""A model repository for Triton Inference Server: configuration, labels, card, and the model under version 1."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from deepfer_yolo.errors import ConfigError
from deepfer_yolo.files import staged_tree
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.runtime.model_file import locate, parts
from deepfer_yolo.runtime.onnx_graph import INPUT, OUTPUT

BACKENDS = {
    ".onnx": ("onnxruntime", "model.onnx"),
    ".engine": ("tensorrt", "model.plan"),
    ".xml": ("openvino", "model.xml"),
}
"""Triton's backend, and the name under which it looks for the file."""
MAX_BATCH = 64


def check_triton(suffix: str) -> None:
    """Raise ConfigError for a format that Triton has no backend for here."""
    if suffix not in BACKENDS:
        raise ConfigError(f"--triton cannot serve {suffix} files", f"formats: {', '.join(BACKENDS)}")


def write_triton(model: Path, card: Card, repository: Path, *, batch: int | None, overwrite: bool = False) -> Path:
    """Write `repository/<name>/` for an exported model and return that folder.

    A dynamic batch is served up to 64 with Triton's dynamic batching; a fixed `batch` becomes part of the shapes.
    Raises DeepferError where the folder exists and `overwrite` is not set.
    """
    source = locate(model)
    check_triton(source.suffix)
    backend, file_name = BACKENDS[source.suffix]
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", card.name) or "deepfer"
    target = repository / name
    with staged_tree(target, overwrite=overwrite) as folder:
        (folder / "config.pbtxt").write_text(_config(name, backend, card, batch), encoding="utf-8")
        (folder / "labels.txt").write_text("".join(f"{label}\n" for label in card.labels), encoding="utf-8")
        (folder / "card.json").write_text(card.to_json(indent=1) + "\n", encoding="utf-8")
        (folder / "1").mkdir()
        for part in parts(source):
            shutil.copyfile(
                part, (folder / "1" / file_name).with_suffix(part.suffix if part != source else Path(file_name).suffix)
            )
    return target


def _config(name: str, backend: str, card: Card, batch: int | None) -> str:
    size, n_labels = card.input.size, len(card.labels)
    first = "" if batch is None else f"{batch}, "
    lines = [
        f"name: {json.dumps(name)}",
        f'backend: "{backend}"',
        f"max_batch_size: {MAX_BATCH if batch is None else 0}",
        f'input [ {{ name: "{INPUT}" data_type: TYPE_UINT8 dims: [ {first}{size}, {size}, 3 ] }} ]',
        f'output [ {{ name: "{OUTPUT}" data_type: TYPE_FP32 dims: [ {first}{n_labels} ]'
        ' label_filename: "labels.txt" } ]',
    ]
    if batch is None:
        lines.append("dynamic_batching { max_queue_delay_microseconds: 2000 }")
    return "\n".join(lines) + "\n"
