"""Cards for models that have none: a stock YOLO-cls checkpoint, or a classifier ONNX made by someone else."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepfer_yolo.config import CardConfig, ScoringConfig
from deepfer_yolo.data.dataset import Dataset, open_dataset
from deepfer_yolo.data.leaks import LeakGuard, check_models
from deepfer_yolo.emotions import can_rename, canonical_label
from deepfer_yolo.errors import ConfigError, ModelError
from deepfer_yolo.evaluate.evaluation import measure
from deepfer_yolo.evaluate.predictions import MAP_HINT, common_labels, score_dataset
from deepfer_yolo.files import atomic_path, sha256_of
from deepfer_yolo.records import plain
from deepfer_yolo.runtime.card import (
    METADATA_KEY,
    Card,
    InputSpec,
    TrainedOn,
    pack_hashes,
    producer,
    read_sidecar,
    sidecar_path,
    write_sidecar,
)
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.golden import check_golden, make_golden
from deepfer_yolo.runtime.model_file import attach, checked_sidecar
from deepfer_yolo.runtime.onnx_graph import INPUT, OUTPUT, graph_inputs, open_graph, put_card, read_graph, value_shape

if TYPE_CHECKING:
    import onnx

FLOAT, UINT8 = 1, 2  # TensorProto.FLOAT and UINT8
STRIDE = 32
"""Of which Ultralytics makes the side of its inputs a multiple."""
HEADLINE = ("n", "top1", "macro_f1", "balanced_accuracy", "nll", "ece", "ece_noise_floor", "confusion")
CANONICAL = "canonical"
"""Said as --labels: the model's own, called as the data sets here call them."""
PASS_THROUGH = frozenset({"Identity", "Flatten", "Squeeze", "Reshape", "Cast"})


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
    labels = _renamed(labels_of(network), facts.labels, checkpoint)
    old = checked_sidecar(checkpoint) if target.exists() and _only_renames(facts) else None
    arguments = getattr(network, "args", None) or read_checkpoint(checkpoint).get("train_args")
    is_own = getattr(network, TRAINED_HASHES, None) is not None
    size = facts.size_px or _trained_size(arguments, step=1 if is_own else STRIDE)
    if size is None:
        raise ModelError(f"{checkpoint} does not say its input size", "name it: --size 64")
    known = trained_hashes(network, read_sidecar(checkpoint) if target.exists() else None)
    learned = {"file_sha256": sha256_of(checkpoint), "trained_hashes": None if known is None else pack_hashes(known)}
    card = _card(facts.model_copy(update={"labels": labels, "size_px": size}), checkpoint, old)
    card = _taught(card.model_copy(update=learned), taught)
    before = target.read_bytes() if target.exists() else None
    write_sidecar(card, checkpoint)
    try:
        card = _with_golden(card, TorchClassifier(checkpoint))
    except Exception:
        # The card was written so that the checkpoint could be opened; a checkpoint that cannot answer must not keep it.
        target.unlink() if before is None else target.write_bytes(before)
        raise
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

    A graph in this program's form is kept as it is. A float (n, 3, S, S) graph gets a cast, transpose and scale in
    front, and a softmax behind where it answers with logits; what the file does not say itself must be in `facts`.
    Raises ModelError for any other form.
    """
    if out.exists() and not overwrite:
        raise ModelError(f"the file exists: {out}", "name another one with --out, or add --overwrite")
    if out.suffix != ".onnx":
        raise ModelError(f"an ONNX model must be named .onnx, not {out.name}", "change --out")
    model = read_graph(source)
    old = None
    if any(entry.key == METADATA_KEY for entry in model.metadata_props):
        old = open_graph(source)[1] if _only_renames(facts) else None
        if old is None and not overwrite:
            raise ModelError(f"{source} has a card already", "add --overwrite to write a new one")
    if old is not None:
        facts = facts.model_copy(update={"labels": _renamed(old.labels, facts.labels, source)})
    else:
        facts = _complete(model, facts, source)
        if _is_foreign(model, source):
            model = wrap(model, facts, source)
    card = _taught(_card(facts, source, old), taught)
    with atomic_path(out) as part:
        card = put_card(model, card)
        part.write_bytes(model.SerializeToString())
        classifier = Classifier(part)
        _check_batches(classifier, source)
        card = put_card(model, _with_golden(card, classifier))
        part.write_bytes(model.SerializeToString())
    return card


def wrap(model: onnx.ModelProto, facts: CardConfig, source: Path) -> onnx.ModelProto:
    """`model` in this program's form: uint8 (n, S, S, 3) in, probabilities out; the inner graph keeps its names under a
    prefix.
    """
    from onnx import TensorProto, compose, helper

    answers = facts.answers or ("probs" if _ends_in_softmax(model) else None)
    if answers is None:
        raise ModelError(
            f"{source} does not end in a softmax, so what its numbers are is unknown",
            "say it: --answers logits, or --answers probs",
        )
    if facts.mean is None or facts.std is None:
        raise ModelError(
            f"{source} does not say how its input is scaled",
            "say it: --mean 0,0,0 --std 1,1,1 for plain 0..1 (channels red, green, blue)",
        )
    inner = compose.add_prefix(model, "inner/")
    graph = inner.graph
    value_in, value_out = graph_inputs(graph)[0], graph.output[0]
    n_labels = len(facts.labels or ())
    mean = np.array(facts.mean, np.float32).reshape(1, 3, 1, 1)
    std = np.array(facts.std, np.float32).reshape(1, 3, 1, 1)
    graph.initializer.extend(
        helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.ravel().tolist())
        for name, array in {"scale": np.array([255.0]), "mean": mean, "std": std}.items()
    )
    before = [
        helper.make_node("Cast", [INPUT], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["planes", "scale"], ["unit"]),
        helper.make_node("Sub", ["unit", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], [value_in.name]),
    ]
    last = "Softmax" if answers == "logits" else "Identity"
    after = [helper.make_node(last, [value_out.name], [OUTPUT])]
    if last == "Softmax":
        after[0].attribute.append(helper.make_attribute("axis", 1))
    nodes = [*before, *graph.node, *after]
    batch = value_shape(value_in)[0]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    size = facts.size_px
    graph.input.append(helper.make_tensor_value_info(INPUT, UINT8, [batch or "n", size, size, 3]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, FLOAT, [batch or "n", n_labels]))
    del inner.metadata_props[:]
    return inner


def _only_renames(facts: CardConfig) -> bool:
    """Whether nothing is said but other labels or another name, so that all else of a card stays."""
    return facts.labels is not None and facts.model_fields_set <= {"labels", "name", "split", "allow_leak"}


def _renamed(own: tuple[str, ...], given: tuple[str, ...] | None, source: Path) -> tuple[str, ...]:
    """The labels `given` in place of a file's `own`; for CANONICAL its own by the spelling table.

    Raises ConfigError where one of them means another place's label: it would be a wrong answer, not a name.
    """
    labels = tuple(canonical_label(name) or name for name in own) if given == (CANONICAL,) else given or own
    if not can_rename(own, labels):
        raise ConfigError(
            f"{source}: --labels {','.join(labels)} are not the checkpoint's {','.join(own)} place by place",
            "name them in the model's order, all different, or leave --labels out",
        )
    return labels


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


def _card(facts: CardConfig, source: Path, old: Card | None = None) -> Card:
    """A new card, or `old` with the labels, and the name if one is given, of `facts`."""
    if old is not None:
        return old.model_copy(update={"labels": facts.labels, "name": facts.name or old.name})
    if facts.labels is None or facts.size_px is None:
        raise ModelError(f"{source}: a card needs labels and a size")
    spec = InputSpec.model_validate({"size": facts.size_px, "colour": facts.colour, "native_px": facts.native_px})
    return Card(name=facts.name or source.stem, labels=facts.labels, input=spec, producer=producer())


def _taught(card: Card, dataset: Dataset | None) -> Card:
    """`card` that says the model learned the train split of `dataset`."""
    if dataset is None:
        return card
    hashes = pack_hashes(LeakGuard(dataset).hashes("train"))
    return card.model_copy(
        update={"trained_on": TrainedOn(name=dataset.name, fingerprint=dataset.fingerprint), "trained_hashes": hashes}
    )


def _trained_size(arguments: Any, step: int) -> int | None:
    """The side in pixels that a checkpoint was really trained at: Ultralytics rounds up to a multiple of 32, which its
    args.yaml hides, and `deepfer train` does not.
    """
    imgsz = arguments.get("imgsz") if isinstance(arguments, dict) else getattr(arguments, "imgsz", None)
    return -(-imgsz // step) * step if isinstance(imgsz, int) and imgsz > 0 else None


def _is_foreign(model: onnx.ModelProto, source: Path) -> bool:
    """Whether the graph takes float planes; raises ModelError for a form that is neither that nor our own."""
    inputs, outputs = graph_inputs(model.graph), list(model.graph.output)
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(f"{source} has {len(inputs)} inputs and {len(outputs)} outputs; a classifier has one of each")
    shape_in, shape_out = value_shape(inputs[0]), value_shape(outputs[0])
    kinds = (inputs[0].type.tensor_type.elem_type, outputs[0].type.tensor_type.elem_type)
    if (inputs[0].name, outputs[0].name, kinds) == (INPUT, OUTPUT, (UINT8, FLOAT)):
        return False
    if kinds != (FLOAT, FLOAT) or len(shape_in) != 4 or shape_in[1] != 3 or len(shape_out) != 2:
        raise ModelError(
            f"{source} takes {shape_in} and gives {shape_out}: only float32 (n, 3, S, S) to (n, labels) can be wrapped",
            "export the model with planes first and one row of numbers per image",
        )
    return True


def _complete(model: onnx.ModelProto, facts: CardConfig, source: Path) -> CardConfig:
    """`facts` filled from the graph's shapes and from Ultralytics' metadata, whose values are Python literals."""
    said = {entry.key: entry.value for entry in model.metadata_props}
    shape = value_shape(graph_inputs(model.graph)[0]) if graph_inputs(model.graph) else ()
    sides = [side for side in (shape[2:4] if len(shape) == 4 and shape[1] == 3 else shape[1:3]) if side]
    size = facts.size_px or (sides[0] if sides else None)
    labels = facts.labels
    if "names" in said:
        labels = _renamed(_literal_names(said["names"], source), labels, source)
    if labels in (None, (CANONICAL,)):
        raise ModelError(
            f"{source} does not say its labels", "name them in the model's order: --labels angry,disgust,…"
        )
    n_outputs = value_shape(model.graph.output[0])[-1:]
    if n_outputs and n_outputs[0] not in {None, len(labels)}:
        raise ConfigError(
            f"{source} gives {n_outputs[0]} numbers per image, but there are {len(labels)} labels: {', '.join(labels)}"
        )
    if size is None:
        raise ModelError(f"{source} does not say its input size", "name it: --size 64")
    if sides and any(side != size for side in sides):
        raise ConfigError(f"{source} takes {shape}, not images of {size}×{size}", "leave --size out")
    found: dict[str, object] = {"labels": labels, "size_px": size}
    if said.get("task") == "classify" and "Ultralytics" in said.get("author", ""):
        # Ultralytics' classification transform divides by 255 and normalises by nothing since 8.0.
        found |= {"mean": facts.mean or (0.0, 0.0, 0.0), "std": facts.std or (1.0, 1.0, 1.0)}
    return facts.model_copy(update=found)


def _literal_names(text: str, source: Path) -> tuple[str, ...]:
    try:
        names = ast.literal_eval(text)
        return tuple(str(names[i]) for i in range(len(names)))
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError):
        raise ModelError(
            f"{source}: its metadata 'names' is not a mapping from index to label",
            "name them: --labels angry,disgust,…",
        ) from None


def _ends_in_softmax(model: onnx.ModelProto) -> bool:
    makers = {name: node for node in model.graph.node for name in node.output}
    name = model.graph.output[0].name
    for _ in range(8):
        node = makers.get(name)
        if node is None:
            return False
        if node.op_type == "Softmax":
            return True
        if node.op_type not in PASS_THROUGH:
            return False
        name = node.input[0]
    return False


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
