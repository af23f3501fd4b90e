"""Cards for models that have none: a stock YOLO-cls checkpoint, or a classifier ONNX made by someone else."""

from __future__ import annotations

import ast
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from deepfer_yolo.config import CardConfig, Precision, ScoringConfig
from deepfer_yolo.data.corrected import taught_by
from deepfer_yolo.data.dataset import Dataset, open_dataset
from deepfer_yolo.data.leaks import LeakGuard, check_models
from deepfer_yolo.emotions import can_rename
from deepfer_yolo.errors import ConfigError, ModelError
from deepfer_yolo.evaluate.evaluation import measure
from deepfer_yolo.evaluate.predictions import MAP_HINT, common_labels, score_dataset
from deepfer_yolo.export.foreign import CANONICAL, Form, completed, form_of, precision_of, renamed, wrap
from deepfer_yolo.files import atomic_path, sha256_of, write_atomic
from deepfer_yolo.records import plain
from deepfer_yolo.runtime.card import (
    HASHES_KEY,
    METADATA_KEY,
    Card,
    InputSpec,
    pack_hashes,
    producer,
    read_sidecar,
    sidecar_path,
    write_sidecar,
)
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.golden import check_golden, make_golden
from deepfer_yolo.runtime.model_file import STEM, attach, checked_sidecar, locate, parts
from deepfer_yolo.runtime.onnx_graph import io_shapes, metadata, open_graph, read_graph, with_card, with_metadata
from deepfer_yolo.runtime.protobuf import Message

STRIDE = 32
"""Of which Ultralytics makes the side of its inputs a multiple."""
HEADLINE = ("n", "top1", "macro_f1", "balanced_accuracy", "nll", "ece", "ece_noise_floor", "confusion")
UNKNOWN_LICENCE = "unknown: ask who made the model"
"""Of a foreign file that nobody said the licence of."""


def card_checkpoint(
    checkpoint: Path, facts: CardConfig, *, overwrite: bool = False, taught: Dataset | None = None
) -> tuple[Path, Card]:
    """Write the sidecar of a stock `.pt`: labels from its names, size from its training arguments, both overridden by
    `facts`.

    `taught` is the data set whose train split it learned; None keeps the hashes of the checkpoint and of its old card.
    """
    from deepfer_yolo.yolo import (
        TRAINED_HASHES,
        TorchClassifier,
        labels_of,
        load_checkpoint,
        read_checkpoint,
        trained_hashes,
    )

    target = sidecar_path(checkpoint)
    if target.exists() and not overwrite:
        raise ModelError(f"the file exists: {target}", "add --overwrite to replace it")
    network = load_checkpoint(checkpoint)
    own, before, file_sha256 = labels_of(network), _card_before(checkpoint), sha256_of(checkpoint)
    # Of a card for other weights or other labels nothing stays but what it says was learned.
    is_its = before is not None and before.file_sha256 in {None, file_sha256} and can_rename(own, before.labels)
    old = before if is_its and _only_renames(facts) else None
    labels = renamed(own, facts.labels or (old.labels if old else None), checkpoint)
    arguments = getattr(network, "args", None) or read_checkpoint(checkpoint).get("train_args")
    is_own = getattr(network, TRAINED_HASHES, None) is not None
    size = facts.size_px or _trained_size(arguments, step=1 if is_own else STRIDE)
    if size is None:
        raise ModelError(f"{checkpoint} does not say its input size", "name it: --size 64")
    known = trained_hashes(network, before)
    learned = {"file_sha256": file_sha256, "trained_hashes": None if known is None else pack_hashes(known)}
    card = _card(facts.model_copy(update={"labels": labels, "size_px": size}), checkpoint, old)
    card = _taught(card.model_copy(update=learned), taught)
    # It is opened with the new card elsewhere: one that cannot answer, or a run cut short, keeps the old card.
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(checkpoint, folder))
        write_sidecar(card, copy)
        card = _with_golden(card, TorchClassifier(copy))
    return write_sidecar(card, checkpoint), card


def add_metrics(
    model: Path, classifier: Classifier, dataset: Path, split: str, *, allow_leak: bool = False
) -> tuple[Card, list[str]]:
    """Measure `classifier` on one split of `dataset`; the headline numbers, 95 % intervals and the confusion matrix go
    into `model`'s card.

    Returns the card, and lines to show about images that the model has learned. Raises LeakError, see `check_models`.
    """
    opened = open_dataset(dataset)
    learned = check_models({model.name: classifier}, opened, split, allow=allow_leak)
    config = ScoringConfig.model_validate({"split": split})
    labels = common_labels([classifier.labels], opened.labels, hint=MAP_HINT)
    scores = score_dataset(classifier, opened, config, labels=labels)
    result = measure(scores, config)
    numbers = {
        "dataset": opened.name,
        "fingerprint": opened.fingerprint,
        "split": split,
        **{key: getattr(result, key) for key in HEADLINE},
        "intervals": result.intervals.of_card(),
        "learned_before": learned.to_json(),
    }
    card = classifier.card.model_copy(update={"metrics": classifier.card.metrics | plain(numbers)})
    return attach(card, model), list(learned.lines)


def card_onnx(
    source: Path, out: Path, facts: CardConfig, *, overwrite: bool = False, taught: Dataset | None = None
) -> Card:
    """Write `source` with a card as the new file `out`.

    A graph in this program's form is kept as it is. One of float images gets a cast, transpose and scale in front, and
    a softmax behind where it answers with logits; what the file does not say itself must be in `facts`. Raises
    ModelError for any other form, ConfigError where the file's shapes are not those of `facts`.
    """
    if out.exists() and not overwrite:
        raise ModelError(f"the file exists: {out}", "name another one with --out, or add --overwrite")
    if out.suffix != ".onnx":
        raise ModelError(f"an ONNX model must be named .onnx, not {out.name}", "change --out")
    model = read_graph(source)
    old = None
    if any(key == METADATA_KEY for key, _ in metadata(model)):
        old = open_graph(source)[1] if facts.labels is not None and _only_renames(facts) else None
        if old is None and not overwrite:
            raise ModelError(f"{source} has a card already", "add --overwrite to write a new one")
    if old is not None:
        facts = facts.model_copy(update={"labels": renamed(old.labels, facts.labels, source)})
    else:
        form = form_of(model, facts, source)
        facts = _complete(model, form, facts, source)
        if form is not None:
            model = wrap(model, form, facts, source)
            facts = facts.model_copy(update={"license": facts.license or UNKNOWN_LICENCE})
    card = _taught(_card(facts, source, old, precision_of(model)), taught)
    with atomic_path(out) as part:
        model, card = with_card(model, card)
        part.write_bytes(model.content)
        classifier = Classifier(part)
        _check_batches(classifier, source)
        model, card = with_card(model, _with_golden(card, classifier))
        part.write_bytes(model.content)
    return card


def public_copy(source: Path, out: Path | None = None, *, overwrite: bool = False) -> tuple[Path, Card]:
    """Write a copy of a model, `STEM-public` beside it unless `out` says otherwise, without the hashes of the images
    that it has learned; all else stays. Returns the copy's path and card.
    """
    model = locate(source)
    stem = model.parent if model.stem == STEM else model.with_suffix("")  # a folder of the format's own, or a file
    default = Path(f"{stem}-public", model.name) if model.stem == STEM else Path(f"{stem}-public{model.suffix}")
    target = out or default
    if target.suffix != model.suffix:
        raise ModelError(f"a copy of {model.name} must end in {model.suffix}, not {target.name}", "change --out")
    if target.exists() and not overwrite:
        raise ModelError(f"the file exists: {target}", "name another one with --out, or add --overwrite")
    if target.resolve() == model.resolve():
        raise ModelError(f"{target} is the model itself", "name another file with --out")
    target.parent.mkdir(parents=True, exist_ok=True)
    if model.suffix == ".onnx":
        graph, card = open_graph(model)
        bare = with_metadata(graph, {key: value for key, value in metadata(graph) if key != HASHES_KEY})
        graph, card = with_card(bare, card.model_copy(update={"trained_hashes": None}))
        write_atomic(target, bytes(graph.content))
        return target, card
    card = checked_sidecar(model)
    if model.suffix == ".pt":
        from deepfer_yolo.yolo import without_hashes

        write_atomic(target, without_hashes(model))
    else:
        for part in parts(model):
            write_atomic(target.with_suffix(part.suffix), part.read_bytes())
    return target, attach(card.model_copy(update={"trained_hashes": None}), target)


def _only_renames(facts: CardConfig) -> bool:
    """Whether nothing is said but other labels or another name, so that all else of a card stays."""
    return facts.model_fields_set <= {"labels", "name", "split", "allow_leak"}


def _card_before(checkpoint: Path) -> Card | None:
    """The card beside `checkpoint`; None without one, and where it is no card at all. Raises ModelError where one was
    changed.
    """
    if not sidecar_path(checkpoint).exists():
        return None
    try:
        read_sidecar(checkpoint, changed=True)
    except ModelError:
        return None
    return read_sidecar(checkpoint)


def _with_golden(card: Card, classifier: Classifier) -> Card:
    """`card` with golden answers: new ones, or those of the card before, which the file must still give."""
    if card.golden is None:
        return card.model_copy(update={"golden": make_golden(classifier.predict, card.input.size)})
    if not check_golden(classifier).passed:
        raise ModelError(
            f"{classifier.path} does not answer as its card says, so that no label can be renamed",
            "prove the file with: deepfer verify MODEL",
        )
    return card


def _card(facts: CardConfig, source: Path, old: Card | None = None, precision: Precision = "fp32") -> Card:
    """A new card, or `old` with the labels, and the name if one is given, of `facts`."""
    if old is not None:
        return old.model_copy(update={"labels": facts.labels, "name": facts.name or old.name})
    if facts.labels is None or facts.size_px is None:
        raise ModelError(f"{source}: a card needs labels and a size")
    spec = InputSpec.model_validate({"size": facts.size_px, "colour": facts.colour, "native_px": facts.native_px})
    made = Card(
        name=facts.name or source.stem,
        labels=facts.labels,
        input=spec,
        precision=precision,
        producer=producer() | ({"source": facts.source} if facts.source else {}),
    )
    return made if facts.license is None else made.model_copy(update={"license": facts.license})


def _taught(card: Card, dataset: Dataset | None) -> Card:
    """`card` that says the model learned the train split of `dataset`."""
    if dataset is None:
        return card
    hashes = pack_hashes(LeakGuard(dataset).hashes("train"))
    return card.model_copy(update={"trained_on": taught_by(dataset), "trained_hashes": hashes})


def _trained_size(arguments: Any, step: int) -> int | None:
    """The side in pixels that a checkpoint was really trained at: Ultralytics rounds up to a multiple of 32, which its
    args.yaml hides, and `deepfer train` does not.
    """
    imgsz = arguments.get("imgsz") if isinstance(arguments, dict) else getattr(arguments, "imgsz", None)
    return -(-imgsz // step) * step if isinstance(imgsz, int) and imgsz > 0 else None


def _complete(model: Message, form: Form | None, facts: CardConfig, source: Path) -> CardConfig:
    """`facts` filled from the graph's shapes and from Ultralytics' metadata, whose values are Python literals."""
    said = dict(metadata(model))
    own = _literal_names(said["names"], source) if "names" in said else None
    if form is not None:
        if said.get("task") == "classify" and "Ultralytics" in said.get("author", ""):
            # Ultralytics' classification transform divides by 255 and normalises by nothing since 8.0.
            facts = facts.model_copy(update={"mean": facts.mean or (0.0,), "std": facts.std or (1.0,)})
        return completed(form, facts, own, source)
    if facts.order is not None:
        raise ConfigError(f"{source} is in this program's form already", "leave --as out")
    labels = facts.labels if own is None else renamed(own, facts.labels, source)
    if labels in (None, (CANONICAL,)):
        raise ModelError(
            f"{source} does not say its labels", "name them in the model's order: --labels angry,disgust,…"
        )
    shape_in, shape_out = io_shapes(model, source)
    if shape_out[-1:] and shape_out[-1] not in {None, len(labels)}:
        raise ConfigError(
            f"{source} gives {shape_out[-1]} numbers per image, but there are {len(labels)} labels: {', '.join(labels)}"
        )
    size = facts.size_px or next((side for side in shape_in[1:3] if side), None)
    if size is None:
        raise ModelError(f"{source} does not say its input size", "name it: --size 64")
    if any(side not in {None, size} for side in shape_in[1:3]):
        raise ConfigError(f"{source} takes {shape_in}, not images of {size}×{size}", "leave --size out")
    return facts.model_copy(update={"labels": labels, "size_px": size})


def _literal_names(text: str, source: Path) -> tuple[str, ...]:
    try:
        names = ast.literal_eval(text)
        return tuple(str(names[i]) for i in range(len(names)))
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError):
        raise ModelError(
            f"{source}: its metadata 'names' is not a mapping from index to label",
            "name them: --labels angry,disgust,…",
        ) from None


def _check_batches(classifier: Classifier, source: Path) -> None:
    """Refuse a graph that says its batch is dynamic and answers otherwise when images come together."""
    size = classifier.card.input.size
    crops: Any = np.random.RandomState(0).randint(0, 256, (3, size, size, 3)).astype(np.uint8)
    fixed = ModelError(
        f"{source} does not answer alike when images come in one batch: its batch is fixed inside",
        "export it with a dynamic batch",
    )
    try:
        together = classifier.predict(crops)
    except ModelError:
        raise fixed from None
    alone = np.concatenate([classifier.predict(crops[i : i + 1]) for i in range(3)])
    if together.shape != alone.shape or float(np.abs(together - alone).max()) > 1e-4:
        raise fixed
