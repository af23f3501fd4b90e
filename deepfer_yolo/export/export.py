"""One export from start to proof: model, card, golden answers and parity, and only then the final name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deepfer_yolo.config import ExportConfig
from deepfer_yolo.errors import ConfigError, ModelError, ParityError
from deepfer_yolo.export.candidates import Candidate, Request, candidates
from deepfer_yolo.export.onnx import build_graph
from deepfer_yolo.export.parity import Parity, Sample, choose_sample, compare
from deepfer_yolo.files import atomic_path, sha256_of, staged_tree
from deepfer_yolo.records import Json, JsonValue
from deepfer_yolo.runtime.card import Card, producer
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.formats import BY_SUFFIX, FORMATS, OPENVINO, Format
from deepfer_yolo.runtime.golden import FP16, golden_inputs, make_golden
from deepfer_yolo.runtime.model_file import STEM, attach, by_name, check_pin, is_for_torch, n_bytes
from deepfer_yolo.runtime.preprocess import to_inputs
from deepfer_yolo.yolo import TorchClassifier, load_checkpoint

N_EMULATED = 64
"""Images on which fp16 arithmetic is worked out in numpy, at some 50 ms each."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One candidate and how it fared."""

    name: str
    precision: str
    n_bytes: int
    parity: Parity

    def to_json(self) -> Json:
        """Its name, its size and what it missed."""
        return {"name": self.name, "n_bytes": self.n_bytes, "failures": list(self.parity.failures)}


@dataclass(frozen=True, slots=True)
class ExportResult:
    """A finished export: the file or folder, its card, the proof that it answers like the checkpoint, and what was
    tried before; `triton` is the model's folder in a Triton repository where one was written.
    """

    path: Path
    card: Card
    parity: Parity
    n_bytes: int
    attempts: tuple[Attempt, ...]
    triton: Path | None = None

    def to_json(self) -> Json:
        """All of it but the golden answers."""
        return {
            "path": str(self.path),
            "n_bytes": self.n_bytes,
            "parity": self.parity.to_json(),
            "triton": None if self.triton is None else str(self.triton),
            "attempts": [attempt.to_json() for attempt in self.attempts],
            "card": self.card.model_dump(mode="json", exclude={"golden"}),
        }


def export_model(
    checkpoint: Path,
    config: ExportConfig,
    *,
    out: Path | None = None,
    data: Path | None = None,
    overwrite: bool = False,
    sha256: str | None = None,
    on_attempt: Callable[[Attempt], None] = lambda _: None,
) -> ExportResult:
    """Write `checkpoint` in the wanted format and prove it. Nothing appears under the final name unless the proof
    succeeds.

    Raises ParityError where no attempt answers like the checkpoint, and ModelError where `out` exists and `overwrite`
    is not set.
    """
    wanted = _format(config, data)
    # Of the name as given: an export of a shipped model lands in the working folder.
    out = out or default_name(checkpoint, config)
    checkpoint = by_name(checkpoint, ".pt")
    if checkpoint.suffix != ".pt":
        raise ModelError(
            f"an export starts from a checkpoint (.pt), not from {checkpoint}", "name the .pt that it was made from"
        )
    _check_name(out, wanted, overwrite=overwrite)
    check_pin(checkpoint, sha256)
    reference = TorchClassifier(checkpoint, threads=2)
    stock = reference.card
    sample = choose_sample(data, config.split, stock.labels, config.pictures)
    graph = build_graph(
        load_checkpoint(checkpoint),
        stock.input.size,
        temperature=stock.temperature,
        opset=config.opset,
        batch=config.batch,
    )
    attempts: list[Attempt] = []
    with (
        _place(out, wanted, overwrite=overwrite) as part,
        tempfile.TemporaryDirectory(prefix="deepfer-export-") as scratch,
    ):
        request = Request(checkpoint, stock, config, data, frozenset(sample.hashes), Path(scratch))
        for candidate in candidates(wanted, graph, request):
            candidate.write(part)
            card, parity = _prove(candidate, attach(_card(candidate, stock, wanted), part), part, reference, sample)
            parity = replace(parity, candidate=str(out))
            attempts.append(Attempt(candidate.name, candidate.precision, n_bytes(part), parity))
            on_attempt(attempts[-1])
            if parity.passed:
                break
        parity.require()
        card = attach(_with_proof(card, parity, checkpoint, candidate.name), part)
        if candidate.finish is not None:
            candidate.finish(part, card)
        size = n_bytes(part)
    return ExportResult(out, card, parity, size, tuple(attempts))


def default_name(checkpoint: Path, config: ExportConfig) -> Path:
    """`best.onnx` beside `best.pt`, `best-int8.onnx`, and `best-openvino-fp16` for formats that are folders."""
    precision = "" if config.precision == "fp32" else f"-{config.precision}"
    if config.format == "onnx":
        return checkpoint.with_name(f"{checkpoint.stem}{precision}.onnx")
    return checkpoint.with_name(f"{checkpoint.stem}-{config.format}{precision}")


def _format(config: ExportConfig, data: Path | None) -> Format:
    wanted = FORMATS[config.format]
    if config.precision not in wanted.precisions:
        hint = f"known for it: {', '.join(wanted.precisions)}"
        if OPENVINO in wanted.libraries.values():
            hint = "OpenVINO runs int8 from ONNX: --format onnx --precision int8, then --provider openvino"
        raise ConfigError(f"{config.format} cannot be exported in {config.precision}", hint)
    if config.fp16_arithmetic and (config.format, config.precision) != ("onnx", "fp16"):
        raise ConfigError(
            f"--fp16-arithmetic is of ONNX files in fp16, not of {config.format} in {config.precision}",
            "add --format onnx --precision fp16; engine and ncnn in fp16 calculate in it anyway",
        )
    if config.precision == "int8" and data is None:
        raise ConfigError(
            "int8 is calibrated on the training images of a data set, and none was named", "add --data DATASET"
        )
    return wanted


def _check_name(out: Path, wanted: Format, *, overwrite: bool) -> None:
    if wanted.card_inside and out.suffix != wanted.suffix:
        raise ModelError(f"an ONNX model must be named .onnx, not {out.name}", "change --out")
    if wanted.card_inside and out.is_dir():
        raise ModelError(f"an ONNX model is a file, and {out} is a folder", "change --out")
    if out.exists() and not overwrite:
        raise ModelError(
            f"the {'folder' if out.is_dir() else 'file'} exists: {out}",
            "name another one with --out, or add --overwrite",
        )


@contextmanager
def _place(out: Path, wanted: Format, *, overwrite: bool) -> Iterator[Path]:
    """The file to write to: beside `out` for ONNX, else `model.*` in a staged folder that becomes `out` on success."""
    if wanted.card_inside:
        with atomic_path(out) as part:
            yield part
    else:
        with staged_tree(out, overwrite=overwrite) as folder:
            yield folder / f"{STEM}{wanted.suffix}"


def _card(candidate: Candidate, stock: Card, wanted: Format) -> Card:
    """The checkpoint's card as it holds for the candidate."""
    libraries = producer("torch", "ultralytics", "onnx", "onnxruntime", *wanted.distributions)
    changed = {
        "precision": candidate.precision,
        "arithmetic": candidate.arithmetic,
        "golden": None,
        # Measured on the checkpoint, they hold for a file that gives the same label on every image, and for no other.
        "metrics": stock.metrics if candidate.precision == "fp32" else {},
        "producer": {**stock.producer, **libraries, **candidate.producer},
    }
    return stock.model_copy(update=changed)


def _prove(candidate: Candidate, card: Card, part: Path, reference: Classifier, sample: Sample) -> tuple[Card, Parity]:
    """`card` with the golden answers of the file that was written, and how that compares with the checkpoint."""
    classifier: Classifier
    if is_for_torch(part):
        classifier = TorchClassifier(part, threads=2)
    else:
        classifier = Classifier(part, provider=next(iter(BY_SUFFIX[part.suffix].libraries)), threads=2)
    try:
        card = _with_golden(card, classifier, part)
        parity = compare(reference, classifier, sample, candidate.precision)
        if candidate.arithmetic == "fp16" and part.suffix == ".onnx":
            card, parity = _prove_in_fp16(card, parity, part, reference, sample)
    except ParityError:
        raise
    except ModelError as error:
        raise ParityError(f"{candidate.name}: {error.message}", error.hint) from None
    return card, parity


def _with_golden(card: Card, classifier: Classifier, part: Path) -> Card:
    """`card` with the golden answers of the file; those of int8 leave room for processors that round otherwise."""
    import onnx

    from deepfer_yolo.export.int8 import steady_golden

    if card.precision != "int8" or part.suffix != ".onnx":
        return card.model_copy(update={"golden": make_golden(classifier.predict, card.input.size)})
    golden, room = steady_golden(onnx.load(part), classifier.predict, card.input.size)
    return card.model_copy(update={"golden": golden, "metrics": card.metrics | {"golden_elsewhere": room}})


def _prove_in_fp16(
    card: Card, parity: Parity, part: Path, reference: Classifier, sample: Sample
) -> tuple[Card, Parity]:
    """What the file answers where fp16 is calculated in fp16, which the classifier here may not have done: the golden
    answers, and those to some of the images, must stay within what `verify` will allow there.
    """
    import onnx

    from deepfer_yolo.export.fp16 import emulated

    model, allowed = onnx.load(part), FP16["fp16"]
    images = to_inputs(sample.images[:N_EMULATED], card.input)
    crops = np.concatenate([golden_inputs(card), images])
    assert card.golden is not None
    expected = np.concatenate([np.array(card.golden.probs), reference.predict(images)])
    diff = float(np.abs(emulated(model, crops) - expected).max())
    found = {"n": len(crops), "max_diff": diff, "allowed": allowed}
    card = card.model_copy(update={"metrics": card.metrics | {"fp16_arithmetic": found}})
    if diff > allowed:
        missed = f"calculated in fp16, max |Δp| {diff:.1e} where {allowed:.0e} is allowed"
        parity = replace(parity, failures=(*parity.failures, missed))
    return card, parity


def _with_proof(card: Card, parity: Parity, checkpoint: Path, recipe: str) -> Card:
    """`card` with what the file was compared with, how close it came, and how it was made."""
    proof: dict[str, JsonValue] = {
        "checkpoint_sha256": sha256_of(checkpoint),
        "pictures": parity.pictures,
        "n": parity.n,
        "max_diff": parity.max_diff,
        "agreement": parity.agreement,
        "agreement_at_least": parity.agreement_at_least,
        "recipe": recipe,
    }
    if parity.decisions is not None:
        proof["accuracy"] = parity.decisions.accuracy_candidate
        proof["accuracy_of_checkpoint"] = parity.decisions.accuracy_reference
    return card.model_copy(update={"metrics": card.metrics | {"parity": proof}})
