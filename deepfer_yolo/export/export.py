"""One export from start to proof: model, card, golden answers and parity, and only then the final name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deepfer_yolo.config import ExportConfig
from deepfer_yolo.errors import ConfigError, ModelError, ParityError
from deepfer_yolo.export.candidates import Candidate, Request
from deepfer_yolo.export.formats import FORMATS, Format
from deepfer_yolo.export.onnx import build_graph
from deepfer_yolo.export.parity import Parity, Pictures, choose_pictures, compare, require
from deepfer_yolo.files import atomic_path, sha256_of, staged_tree
from deepfer_yolo.runtime.card import Card, producer
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.golden import make_golden
from deepfer_yolo.runtime.model_file import STEM, attach, by_name, check_pin, n_bytes
from deepfer_yolo.yolo import TorchClassifier, load_checkpoint

OnAttempt = Callable[["Attempt"], None]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One rung of a precision's ladder and how it fared."""

    name: str
    precision: str
    n_bytes: int
    parity: Parity


@dataclass(frozen=True, slots=True)
class Export:
    """A finished export: the file or folder, its card, the proof that it answers like the checkpoint, and what was
    tried before.
    """

    path: Path
    card: Card
    parity: Parity
    n_bytes: int
    attempts: tuple[Attempt, ...]


def export_model(
    checkpoint: Path,
    config: ExportConfig,
    *,
    out: Path | None = None,
    data: Path | None = None,
    overwrite: bool = False,
    sha256: str | None = None,
    on_attempt: OnAttempt | None = None,
) -> Export:
    """Write `checkpoint` in the wanted format and prove it. Nothing appears under the final name unless the proof
    succeeds.

    Raises ParityError where no attempt answers like the checkpoint, and ModelError where `out` exists and `overwrite`
    is not set.
    """
    wanted = _format(config, data)
    out = out or default_name(
        checkpoint, config
    )  # of the name as given: an export of a shipped model lands in the working folder
    checkpoint = by_name(checkpoint, ".pt")
    if checkpoint.suffix != ".pt":
        raise ModelError(
            f"an export starts from a checkpoint (.pt), not from {checkpoint}", "name the .pt that it was made from"
        )
    _check_name(out, wanted, overwrite=overwrite)
    check_pin(checkpoint, sha256)
    reference = TorchClassifier(checkpoint, threads=2)
    pictures = choose_pictures(data, config.split, reference.labels, config.pictures)
    graph = build_graph(
        load_checkpoint(checkpoint),
        reference.card.input.size,
        temperature=reference.card.temperature,
        opset=config.opset,
        batch=config.batch,
    )
    attempts: list[Attempt] = []
    with (
        _place(out, wanted, overwrite=overwrite) as part,
        tempfile.TemporaryDirectory(prefix="deepfer-export-") as scratch,
    ):
        request = Request(checkpoint, reference.card, config, data, frozenset(pictures.hashes), Path(scratch))
        for candidate in wanted.candidates(graph, request):
            card, parity = _attempt(candidate, part, reference, pictures, wanted, out, wanted.describe(request))
            attempts.append(Attempt(candidate.name, card.precision, n_bytes(part), parity))
            if on_attempt is not None:
                on_attempt(attempts[-1])
            if parity.passed:
                break
        else:
            require(attempts[-1].parity)
        card = attach(_proven(card, parity, checkpoint, attempts), part)
        wanted.finish(part, card)
        size = n_bytes(part)
    return Export(out, card, parity, size, tuple(attempts))


def default_name(checkpoint: Path, config: ExportConfig) -> Path:
    """`best.onnx` beside `best.pt`, `best-int8.onnx`, and `best-openvino-int8` for formats that are folders."""
    precision = "" if config.precision == "fp32" else f"-{config.precision}"
    if config.format == "onnx":
        return checkpoint.with_name(f"{checkpoint.stem}{precision}.onnx")
    return checkpoint.with_name(f"{checkpoint.stem}-{config.format}{precision}")


def _format(config: ExportConfig, data: Path | None) -> Format:
    wanted = FORMATS[config.format]
    if config.precision not in wanted.precisions:
        raise ConfigError(
            f"{config.format} cannot be exported in {config.precision}", f"known for it: {', '.join(wanted.precisions)}"
        )
    if config.precision == "int8" and data is None:
        raise ConfigError(
            "int8 is calibrated on the training pictures of a data set, and none was named", "add --data DATASET"
        )
    return wanted


def _check_name(out: Path, wanted: Format, *, overwrite: bool) -> None:
    if wanted.suffix == ".onnx" and out.suffix != ".onnx":
        raise ModelError(f"an ONNX model must be named .onnx, not {out.name}", "change --out")
    if wanted.suffix == ".onnx" and out.is_dir():
        raise ModelError(f"an ONNX model is a file, and {out} is a folder", "change --out")
    if out.exists() and not overwrite:
        raise ModelError(
            f"the {'folder' if out.is_dir() else 'file'} exists: {out}",
            "name another one with --out, or add --overwrite",
        )


@contextmanager
def _place(out: Path, wanted: Format, *, overwrite: bool) -> Iterator[Path]:
    """The file to write to: beside `out` for ONNX, else `model.*` in a staged folder that becomes `out` on success."""
    holder: AbstractContextManager[Path] = (
        atomic_path(out) if wanted.suffix == ".onnx" else staged_tree(out, overwrite=overwrite)
    )
    with holder as part:
        yield part if wanted.suffix == ".onnx" else part / f"{STEM}{wanted.suffix}"


def _attempt(
    candidate: Candidate,
    part: Path,
    reference: Classifier,
    pictures: Pictures,
    wanted: Format,
    out: Path,
    described: dict[str, str],
) -> tuple[Card, Parity]:
    """Write one candidate to `part`, give it a card with golden answers, and compare it with the checkpoint."""
    candidate.write(part)
    old = reference.card
    card = attach(
        old.model_copy(
            update={
                "precision": candidate.precision,
                "golden": None,
                # Measured on the checkpoint, they hold for a file that gives the same label on every picture, and for
                # no other.
                "metrics": old.metrics if candidate.precision == "fp32" else {},
                "producer": old.producer
                | producer("torch", "ultralytics", "onnx", "onnxruntime", *wanted.libraries)
                | described,
            }
        ),
        part,
    )
    classifier: Classifier
    classifier = (
        TorchClassifier(part, threads=2)
        if wanted.provider == "torch"
        else Classifier(part, provider=wanted.provider, threads=2)
    )
    try:
        golden = make_golden(classifier.predict, card.input.size)
        parity = compare(reference, classifier, pictures, candidate.precision)
    except ParityError:
        raise
    except ModelError as error:
        raise ParityError(f"{candidate.name}: {error.message}", error.hint) from None
    return card.model_copy(update={"golden": golden}), replace(parity, candidate=str(out))


def _proven(card: Card, parity: Parity, checkpoint: Path, attempts: list[Attempt]) -> Card:
    """`card` with what the file was compared with, how close it came, and how it was made."""
    proof: dict[str, Any] = {
        "checkpoint_sha256": sha256_of(checkpoint),
        "pictures": parity.pictures,
        "n": parity.n,
        "max_diff": parity.max_diff,
        "agreement": parity.agreement,
        "recipe": attempts[-1].name,
    }
    if parity.decisions is not None:
        proof |= {
            "accuracy": parity.decisions["accuracy_candidate"],
            "accuracy_of_checkpoint": parity.decisions["accuracy_reference"],
        }
    return card.model_copy(update={"metrics": card.metrics | {"parity": proof}})
