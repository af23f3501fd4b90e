"""One export from start to proof: graph, card, golden answers and parity, and only then the final name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from deepfer_yolo.config import ExportConfig
from deepfer_yolo.errors import ModelError
from deepfer_yolo.export.onnx import build_graph, save
from deepfer_yolo.export.parity import Parity, compare, require
from deepfer_yolo.export.pictures import PAINTED_N, Pictures, load_pictures, paint_pictures
from deepfer_yolo.files import atomic_path, sha256_of
from deepfer_yolo.runtime.card import Card, producer
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.golden import make_golden
from deepfer_yolo.runtime.graph import put_card, read_graph
from deepfer_yolo.yolo import TorchClassifier, load_checkpoint


@dataclass(frozen=True, slots=True)
class Export:
    """A finished export: the file, its card and the proof that it answers like the checkpoint."""

    path: Path
    card: Card
    parity: Parity
    n_bytes: int


def export_model(checkpoint: Path, config: ExportConfig, *, out: Path | None = None, data: Path | None = None, overwrite: bool = False) -> Export:
    """Write `checkpoint` in the wanted format and prove it. Nothing appears under the final name unless the proof succeeds.

    Raises ParityError where the file does not answer like the checkpoint, and ModelError where `out` exists and `overwrite` is not set.
    """
    out = out or default_name(checkpoint, config)
    if out.exists() and not overwrite:
        raise ModelError(f"the file exists: {out}", "name another one with --out, or add --overwrite")
    if out.suffix != ".onnx":
        raise ModelError(f"an ONNX model must be named .onnx, not {out.name}", "change --out")
    reference = TorchClassifier(checkpoint, threads=2)
    pictures = pictures_for(reference, config, data)
    with atomic_path(out) as part:
        card = _write_onnx(checkpoint, reference, config, part)
        parity = require(_named(compare(reference, Classifier(part), pictures, config.precision), out))
        card = _record_proof(part, card, parity, checkpoint)
        n_bytes = part.stat().st_size
    return Export(out, card, parity, n_bytes)


def default_name(checkpoint: Path, config: ExportConfig) -> Path:
    """`best.onnx` beside `best.pt`; other precisions say so: `best-int8.onnx`."""
    precision = "" if config.precision == "fp32" else f"-{config.precision}"
    return checkpoint.with_name(f"{checkpoint.stem}{precision}.onnx")


def pictures_for(reference: Classifier, config: ExportConfig, data: Path | None) -> Pictures:
    """The pictures of the parity run: from `data`, or painted ones."""
    if data is None:
        return paint_pictures(min(PAINTED_N, config.pictures))
    return load_pictures(data, config.split, reference.labels, config.pictures)


def _write_onnx(checkpoint: Path, reference: TorchClassifier, config: ExportConfig, part: Path) -> Card:
    old = reference.card
    model = build_graph(load_checkpoint(checkpoint), old.input.size, temperature=old.temperature, opset=config.opset, batch=config.batch)
    card = old.model_copy(
        update={
            "precision": config.precision,
            "golden": None,
            "producer": old.producer | producer("torch", "ultralytics", "onnx", "onnxruntime"),
        }
    )
    put_card(model, card)
    save(model, part)
    golden = make_golden(Classifier(part).predict, card.input.size)
    card = put_card(model, card.model_copy(update={"golden": golden}))
    save(model, part)
    return card


def _record_proof(part: Path, card: Card, parity: Parity, checkpoint: Path) -> Card:
    """Add to the card what the file was compared with and how close it came."""
    proof = {
        "checkpoint_sha256": sha256_of(checkpoint),
        "pictures": parity.pictures,
        "n": parity.n,
        "max_diff": parity.max_diff,
        "agreement": parity.agreement,
    }
    model = read_graph(part)
    card = put_card(model, card.model_copy(update={"metrics": card.metrics | {"parity": proof}}))
    save(model, part)
    return card


def _named(parity: Parity, out: Path) -> Parity:
    """The report under the final name of the file instead of its temporary one."""
    return replace(parity, candidate=str(out))
