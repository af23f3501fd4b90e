"""Classifiers made by others: what an ONNX file takes and gives, what was said of it, and its graph in our own form.

Known models have a preset each, `configs/cards/<name>.yaml`; what a preset says is held against the file's shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import CardConfig
from deepfer_yolo.emotions import can_rename, canonical_label, meeting
from deepfer_yolo.errors import ConfigError, ModelError, explained_imports, listed
from deepfer_yolo.presets import configs_dir, resolve
from deepfer_yolo.runtime.onnx_graph import FLOAT, INPUT, OUTPUT, UINT8, elem_type, graph_inputs, value_shape
from deepfer_yolo.runtime.protobuf import Message, parse

FLOAT16, DOUBLE = 10, 11  # TensorProto's codes
FLOATS = {FLOAT: "float32", FLOAT16: "float16", DOUBLE: "float64"}
CANONICAL = "canonical"
"""Said as --labels: the model's own, called as the data sets here call them."""
PASS_THROUGH = frozenset({"Identity", "Flatten", "Squeeze", "Reshape", "Cast"})
CARDS = CardConfig.FOLDER
MIN_OPSET = 7
"""The first with broadcasting as NumPy does it, which the nodes in front need."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a foreign graph takes and gives: one plane (grey) or three, first or last; None for what it leaves open."""

    shape: str
    layout: Literal["nchw", "nhwc"]
    planes: int
    size: int | None
    n_numbers: int | None
    batch: int | None
    output: str


def form_of(model: Message, facts: CardConfig, source: Path) -> Form | None:
    """The form of a foreign graph; None for one in this program's own. Raises ModelError where it can be neither."""
    graph = model.child("graph")
    inputs, outputs = graph_inputs(graph), graph.children("output")
    if len(inputs) != 1:
        raise ModelError(f"{source} has {len(inputs)} inputs; a classifier has one, the images")
    kinds = [elem_type(value) for value in (inputs[0], *outputs)]
    names = [value.text("name") for value in (inputs[0], *outputs)]
    if names == [INPUT, OUTPUT] and kinds == [UINT8, FLOAT]:
        return None
    chosen = _output(outputs, facts.output, source)
    taken, given = _shown(inputs[0]), _shown(chosen)
    shape_in, shape_out = value_shape(inputs[0]), value_shape(chosen)
    can = "float images with one or three channels, first or last, to one row of numbers an image can be wrapped"
    if kinds[0] not in FLOATS or elem_type(chosen) not in FLOATS or len(shape_in) != 4:
        raise ModelError(f"{source} takes {taken} and gives {given}: {can}", "export the model in one of these forms")
    if len(shape_out) != 2:
        raise ModelError(
            f"{source} takes {taken} and gives {given}: {can}", "flatten its answer, or name another one: --output NAME"
        )
    layout = _layout(shape_in, facts.layout, source, taken)
    planes = shape_in[1] if layout == "nchw" else shape_in[3]
    sides = shape_in[2:4] if layout == "nchw" else shape_in[1:3]
    known = {side for side in sides if side}
    if planes not in {1, 3}:
        raise ModelError(f"{source} takes {taken}: how many channels is open", "export it with 1 or 3 channels")
    if len(known) > 1:
        raise ModelError(f"{source} takes {taken}; only square images can be given", "export it for square images")
    size = known.pop() if known else None
    return Form(f"{taken} → {given}", layout, planes or 0, size, shape_out[1], shape_in[0], chosen.text("name"))


def _output(outputs: Sequence[Message], name: str | None, source: Path) -> Message:
    if name is None and len(outputs) == 1:
        return outputs[0]
    found = [value for value in outputs if value.text("name") == name]
    if not found:
        there = ", ".join(f"{value.text('name')} {_shown(value)}" for value in outputs)
        said = f"no output '{name}'" if name else f"{len(outputs)} outputs"
        raise ModelError(f"{source} has {said}: {there}", "name the one with a number a label: --output NAME")
    return found[0]


def _layout(
    shape: Sequence[int | None], said: Literal["nchw", "nhwc"] | None, source: Path, shown: str
) -> Literal["nchw", "nhwc"]:
    first, last = shape[1] in {1, 3}, shape[3] in {1, 3}
    if first != last:
        return "nchw" if first else "nhwc"
    if said is None:
        where = "neither 1 nor 3 channels stand first or last" if not first else "channels may stand first or last"
        raise ModelError(f"{source} takes {shown}: {where}", "say it: --layout nchw, or --layout nhwc")
    return said


def _shown(value: Message) -> str:
    kind = elem_type(value)
    sides = ("?" if side is None else str(side) for side in value_shape(value))
    return f"{FLOATS.get(kind, {UINT8: 'uint8'}.get(kind, f'type {kind}'))} ({', '.join(sides)})"


def fitting(form: Form, unlike: CardConfig | None = None) -> list[str]:
    """The presets that a file of this form may be, by its shapes alone; without those that read it as `unlike` does."""
    known = {path.stem: resolve(CardConfig, path.stem) for path in sorted((configs_dir() / CARDS).glob("*.yaml"))}
    return [name for name, preset in known.items() if not _differs(form, preset) and not _alike(preset, unlike)]


def _alike(preset: CardConfig, other: CardConfig | None) -> bool:
    keys = ("order", "white", "mean", "std", "colour", "channels", "answers")
    return other is not None and all(getattr(preset, key) == getattr(other, key) for key in keys)


def _differs(form: Form, preset: CardConfig) -> str:
    """What of a preset, or of what was said, the file's shapes contradict."""
    if preset.size_px is not None and form.size not in {None, preset.size_px}:
        return f"not images of {preset.size_px}×{preset.size_px}"
    if preset.planes is not None and preset.planes != form.planes:
        return f"not {preset.planes} channel{'s' if preset.planes > 1 else ''}"
    labels = preset.order or preset.labels or ()
    if labels and labels != (CANONICAL,) and form.n_numbers not in {None, len(labels)}:
        return f"{form.n_numbers} numbers per image, but there are {len(labels)} labels: {listed(labels, 20)}"
    return ""


def completed(form: Form, facts: CardConfig, own: tuple[str, ...] | None, source: Path) -> CardConfig:
    """`facts` with what the file says: its labels (`own`, where it names them) and its size.

    Raises ConfigError where the shapes say otherwise, ModelError where something is not said at all.
    """
    names = fitting(form)
    presets = f"or --as NAME; by its shapes it may be: {', '.join(names)}" if names else "no preset has these shapes"
    if differs := _differs(form, facts):
        raise ConfigError(f"{source} is {form.shape}: {differs}", presets)
    order = facts.order or own
    if order is None and facts.labels in (None, (CANONICAL,)):
        raise ModelError(
            f"{source} does not say its labels", f"name them in the model's order: --labels angry,disgust,…; {presets}"
        )
    labels = facts.labels or ()
    if order is not None:
        labels = renamed(order, facts.labels, source) if facts.order is None else kept(order, facts.labels, source)[0]
    size = facts.size_px or form.size
    if size is None:
        raise ModelError(f"{source} does not say its input size", "name it: --size 64")
    if form.planes == 1 and facts.colour == "rgb" and "colour" in facts.model_fields_set:
        raise ConfigError(f"{source} is {form.shape}: one channel is grey", "leave --colour out")
    if form.planes == 1 and facts.channels == "bgr":
        raise ConfigError(f"{source} is {form.shape}: one channel has no order", "leave --channels out")
    colour = "grey" if form.planes == 1 else facts.colour
    found = facts.model_copy(update={"labels": labels, "size_px": size, "colour": colour})
    if found.mean is None or found.std is None:
        raise ModelError(
            f"{source} does not say how its input is scaled",
            f"say it: --mean 0 --std 1 for plain 0..1, --white 255 for plain 0..255; {presets}",
        )
    for name, values in (("mean", found.mean), ("std", found.std)):
        if len(values) not in {1, form.planes}:
            raise ConfigError(f"{source} is {form.shape}: --{name} has {len(values)} numbers", "name one a channel")
    return found


def renamed(own: tuple[str, ...], given: tuple[str, ...] | None, source: Path) -> tuple[str, ...]:
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


def kept(
    order: tuple[str, ...], given: tuple[str, ...] | None, source: Path
) -> tuple[tuple[str, ...], list[int] | None]:
    """The labels that a model of known `order` keeps, and their columns: those of `given` that it knows by any
    spelling, in this order; None for all its columns, with other names.
    """
    if given and given != (CANONICAL,) and len(set(given)) == len(given):
        met = meeting(given, order)
        if len(met) == len(given) > 1:
            return given, [order.index(met[label]) for label in given]
    return renamed(order, given, source), None


def wrap(foreign: Message, form: Form, facts: CardConfig, source: Path) -> Message:
    """`foreign` in this program's form: uint8 (n, S, S, 3) in, probabilities out; the inner graph keeps its names under
    a prefix.
    """
    with explained_imports():
        import onnx
        from onnx import compose, helper, numpy_helper

    model = onnx.load_from_string(bytes(foreign.content))
    opset = max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=1)
    if opset < MIN_OPSET:
        raise ModelError(f"{source} is of ONNX opset {opset}; {MIN_OPSET} is the oldest that can be wrapped")
    answers = _answers(foreign, form, facts, source)
    inner = compose.add_prefix(model, "inner/")
    inner.ir_version = max(inner.ir_version, 4)  # before, stored tensors had to be inputs as well
    graph = inner.graph
    stored = {tensor.name for tensor in graph.initializer}
    taken = next(value for value in graph.input if value.name not in stored)
    given = next(value for value in graph.output if value.name == f"inner/{form.output}")
    columns = kept(facts.order, facts.labels, source)[1] if facts.order else None
    before, scales = _before(taken.name, taken.type.tensor_type.elem_type, form, facts)
    after, sums = _after(given.name, answers, columns)
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    for name, array in (scales | sums).items():
        graph.initializer.append(numpy_helper.from_array(array, name))
    n, size = form.batch or "n", facts.size_px
    graph.input.append(helper.make_tensor_value_info(INPUT, UINT8, [n, size, size, 3]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, FLOAT, [n, len(facts.labels or ())]))
    del inner.metadata_props[:]
    return parse("Model", inner.SerializeToString())


def _answers(model: Message, form: Form, facts: CardConfig, source: Path) -> Literal["logits", "probs"]:
    has_softmax = _ends_in_softmax(model, form.output)
    if facts.answers == "logits" and has_softmax:
        raise ConfigError(
            f"{source} ends in a softmax, so that its numbers are probabilities, no logits", "say it: --answers probs"
        )
    if facts.answers is None and not has_softmax:
        raise ModelError(
            f"{source} does not end in a softmax, so what its numbers are is unknown",
            "say it: --answers logits, or --answers probs",
        )
    return facts.answers or "probs"


def _before(taken: str, kind: int, form: Form, facts: CardConfig) -> tuple[list[Any], dict[str, NDArray[np.generic]]]:
    """The nodes from uint8 (n, S, S, 3) to what the model takes, and their numbers."""
    from onnx import helper

    ends = (1, -1, 1, 1) if form.layout == "nchw" else (1, 1, 1, -1)
    stored: dict[str, NDArray[np.generic]] = {
        "mean": np.array(facts.mean, np.float32).reshape(ends),
        "std": np.array(facts.std, np.float32).reshape(ends),
    }
    steps: list[tuple[str, list[str], dict[str, Any]]] = [("Cast", [], {"to": FLOAT})]
    if form.planes == 1:  # a grey model's input has its plane three times
        stored["first"] = np.array([0], np.int64)
        steps.append(("Gather", ["first"], {"axis": 3}))
    if form.layout == "nchw":
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    if facts.white != 255:
        stored["scale"] = np.array([255 / facts.white], np.float32)
        steps.append(("Div", ["scale"], {}))
    steps += [("Sub", ["mean"], {}), ("Div", ["std"], {})]
    if facts.channels == "bgr":  # behind the numbers, which are said in the order r,g,b
        stored["backwards"] = np.array([2, 1, 0], np.int64)
        steps.append(("Gather", ["backwards"], {"axis": 1 if form.layout == "nchw" else 3}))
    if kind != FLOAT:
        steps.append(("Cast", [], {"to": kind}))
    names = [INPUT, *(f"step{i}" for i in range(1, len(steps))), taken]
    nodes = [
        helper.make_node(operator, [names[i], *more], [names[i + 1]], **attributes)
        for i, (operator, more, attributes) in enumerate(steps)
    ]
    return nodes, stored


def _after(given: str, answers: str, columns: list[int] | None) -> tuple[list[Any], dict[str, NDArray[np.generic]]]:
    """The nodes from the model's answer to probabilities of the labels that are kept, and their numbers."""
    from onnx import helper

    nodes = [helper.make_node("Cast", [given], ["numbers"], to=FLOAT)]
    stored: dict[str, NDArray[np.generic]] = {}
    if columns is not None:
        stored["columns"] = np.array(columns, np.int64)
        nodes.append(helper.make_node("Gather", ["numbers", "columns"], ["kept"], axis=1))
    last = nodes[-1].output[0]
    if answers == "logits":
        return [*nodes, helper.make_node("Softmax", [last], [OUTPUT], axis=1)], stored
    if columns is None:
        return [*nodes, helper.make_node("Identity", [last], [OUTPUT])], stored
    # Rows of what is left sum to 1 again; where nothing is left, all labels are alike.
    stored |= {"tiny": np.array([1e-12], np.float32), "ones": np.ones((len(columns), len(columns)), np.float32)}
    rest = [
        helper.make_node("Add", [last, "tiny"], ["positive"]),
        helper.make_node("MatMul", ["positive", "ones"], ["sums"]),
        helper.make_node("Div", ["positive", "sums"], [OUTPUT]),
    ]
    return [*nodes, *rest], stored


def precision_of(model: Message) -> Literal["fp32", "fp16", "int8"]:
    """What a foreign graph is stored in, which decides how closely another machine must answer."""
    nodes = model.child("graph").children("node")
    if any("Quantize" in (kind := node.text("op_type")) or kind.endswith("Integer") for node in nodes):
        return "int8"
    kinds = {tensor.number("data_type") for tensor in model.child("graph").children("initializer")}
    casts = [a for node in nodes if node.text("op_type") == "Cast" for a in node.children("attribute")]
    kinds |= {a.number("i") for a in casts if a.text("name") == "to"}
    return "fp16" if FLOAT16 in kinds else "fp32"


def _ends_in_softmax(model: Message, output: str) -> bool:
    makers = {name: node for node in model.child("graph").children("node") for name in node.texts("output")}
    name = output
    for _ in range(8):
        node = makers.get(name)
        if node is None:
            return False
        if node.text("op_type") == "Softmax":
            return True
        if node.text("op_type") not in PASS_THROUGH:
            return False
        name = next(iter(node.texts("input")), "")
    return False
