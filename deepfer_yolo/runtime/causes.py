"""Why answers are not those expected: one thing at a time is done otherwise, and they are held against them again.

Nothing is named that does not bring the two together: within the limits that were missed, or to a tenth of the mean
difference. Probes run only after a failure; one that cannot run here says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.errors import DeepferError, ModelError
from deepfer_yolo.records import Crops, Image, Json, Probs, plain
from deepfer_yolo.runtime.backends.protocol import first_line, in_batches
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.runtime.classifier import Classifier, meet
from deepfer_yolo.runtime.golden import golden_inputs, held_against, tolerance_of
from deepfer_yolo.runtime.onnx_graph import INPUT, INT8, OUTPUT, io_shapes, read_graph, stored_ints
from deepfer_yolo.runtime.preprocess import centre_crop, fitted_sides, to_inputs
from deepfer_yolo.runtime.protobuf import Message, made

SHARE = 0.1
"""Of the mean difference that a cause leaves at most."""
MAX_LEVEL = 64
"""Of a weight in 7 bits: products of two with unsigned 8-bit activations fit the 16 bits of kernels without VNNI."""
ATTRIBUTE_INT = 2
"""AttributeProto's code of a whole number."""
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Cause:
    """What explains the difference, and what to do; `before` and `after` are mean |Δp|, as it is and without it."""

    kind: str
    message: str
    hint: str
    before: float
    after: float

    @property
    def lines(self) -> tuple[str, str]:
        """As a command prints it."""
        figures = f"mean |Δp| {self.before:.1e} becomes {self.after:.1e} without that"
        return f"cause: {self.message} ({figures})", f"hint: {self.hint}"

    def to_json(self) -> Json:
        """As --json prints it."""
        shown: Json = plain(self)
        return shown


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing done otherwise: `answers` are those of it, or raise DeepferError where it cannot be done here."""

    kind: str
    message: str
    hint: str
    answers: Callable[[], Probs]


def find_cause(wanted: Probs, actual: Probs, probes: Iterable[Probe], passes: Callable[[Probs], bool]) -> Cause | None:
    """The probe whose answers come closest to those `wanted`, where they pass, or leave a tenth of the difference."""

    def away(answers: Probs) -> float:
        return float(np.abs(answers.astype(np.float64) - wanted).max(1).mean())

    before, found = away(actual), []
    for probe in probes:
        try:
            answers = probe.answers()
        except DeepferError:
            continue
        after = away(answers)
        if after < before and (after <= SHARE * before or passes(answers)):
            found.append(Cause(probe.kind, probe.message, probe.hint, before, after))
    return min(found, key=lambda cause: cause.after, default=None)


def golden_cause(model: Classifier) -> Cause | None:
    """Why a model fails its golden self-test, where a probe says so."""
    golden, crops, allowed = model.card.golden, golden_inputs(model.card), tolerance_of(model.card)
    if golden is None:
        return None
    wanted = np.array(golden.probs, np.float32)
    probes = model_probes(model, crops)
    return find_cause(
        wanted, model.predict(crops), probes, lambda answers: held_against(golden, answers, allowed).passed
    )


def model_probes(model: Classifier, crops: Crops) -> Iterator[Probe]:
    """Of a model file that answers otherwise than expected to `crops`: what may be wrong with it, or with what runs it.

    The hint says what to do with the file.
    """
    path = model.path
    yield Probe(
        "channels",
        f"{path.name} takes blue, green, red, though images are red, green, blue",
        "export it again so that it takes red first; of a foreign graph: deepfer card FILE.onnx --channels bgr",
        lambda: model.predict(np.ascontiguousarray(crops[..., ::-1])),
    )
    if path.suffix == ".onnx":
        yield from _graph_probes(model, read_graph(path), crops)
    if path.suffix in (".onnx", ".xml"):
        yield Probe(
            "bf16",
            "the answers expected are those of bf16 arithmetic, OpenVINO's default on such a processor",
            "export it again, so that they are written anew in fp32",
            lambda: in_bf16(path, crops),
        )


def _graph_probes(model: Classifier, graph: Message, crops: Crops) -> Iterator[Probe]:
    name, kinds = model.path.name, {node.text("op_type") for node in graph.child("graph").children("node")}
    if "Resize" in kinds and model.provider != "cpu":
        yield Probe(
            "antialias",
            f"{name} shrinks images in its graph, and {model.provider} ignores the antialias of that Resize",
            "run it with --provider cpu, or export it without a Resize: deepfer shrinks images before",
            lambda: graph_answers(graph, crops),
        )
    if "Resize" in kinds:
        yield Probe(
            "antialias",
            f"{name} shrinks images in its graph without antialias",
            "export it with an antialiased Resize (antialias=1, exclude_outside=1), or without one",
            lambda: graph_answers(_antialiased(graph), crops),
        )
    if "QuantizeLinear" in kinds and (n := _wide_weights(graph)):
        yield Probe(
            "saturation",
            f"{name} has {n:,} weights beyond 7 bits, whose sums overflow in this processor's 16 bits (no VNNI)",
            "quantise it with 7-bit weights: deepfer export --precision int8, or reduce_range=True in onnxruntime",
            lambda: graph_answers(graph, crops, in_float=True),
        )


def program_probes(model: Classifier, images: Sequence[Image]) -> Iterator[Probe]:
    """Of another program that runs `model` and answers otherwise to `images`: what it may do to them or with it.

    The answers are those of `model` treated so; the hint says what to do in the program.
    """
    spec, crops = model.card.input, to_inputs(images, model.card.input)
    rule = "shrink there as Pillow's BILINEAR does (docs/formats.md, Model file)"
    yield Probe(
        "channels",
        "the program gives the model blue, green, red",
        "give it red first there: image[..., ::-1], or cv2.cvtColor(image, cv2.COLOR_BGR2RGB)",
        lambda: model.predict(np.ascontiguousarray(crops[..., ::-1])),
    )
    for kind, how, shrink in (
        ("antialias", "without antialias, as OpenCV's INTER_LINEAR does", bilinear),
        ("canvas", "as a browser's canvas does (drawImage: halved, then without antialias)", canvas),
    ):
        made = np.stack([prepared(image, spec, shrink) for image in images])
        if (made != crops).any():
            yield Probe(kind, f"the program shrinks images {how}", rule, lambda made=made: model.predict(made))  # type: ignore[misc]
    if model.path.suffix in (".onnx", ".xml"):
        yield Probe(
            "bf16",
            "the program calculates in bf16, OpenVINO's default on such a processor",
            'compile the model there with {"INFERENCE_PRECISION_HINT": "f32"}',
            lambda: in_bf16(model.path, crops),
        )


def in_bf16(path: Path, crops: Crops) -> Probs:
    """What OpenVINO answers where it may choose the arithmetic and chooses bf16; DeepferError where it does not."""
    from deepfer_yolo.runtime.backends.openvino import OpenVinoBackend

    meet(path, "openvino")
    backend = OpenVinoBackend(path, precision=None)
    if backend.arithmetic != "bf16":
        raise ModelError(f"OpenVINO calculates {path} in {backend.arithmetic} here")
    return backend.run(crops)


def graph_answers(graph: Message, crops: Crops, *, in_float: bool = False) -> Probs:
    """The answers of a graph on this processor in onnxruntime; `in_float` with 8-bit numbers taken out of the integer
    kernels. Raises ModelError where it cannot run.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if in_float:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        session = ort.InferenceSession(bytes(graph.content), options, providers=["CPUExecutionProvider"])
        fixed_n = io_shapes(graph, Path("graph"))[0][0]
        return in_batches(lambda part: session.run([OUTPUT], {INPUT: part})[0], crops, fixed_n or len(crops))
    except Exception as error:  # onnxruntime's exception types share no base class of their own
        raise ModelError(f"onnxruntime refuses the graph: {first_line(error)}") from None


def _antialiased(model: Message) -> Message:
    graph = model.child("graph")
    nodes = [_with_antialias(node) if node.text("op_type") == "Resize" else node for node in graph.children("node")]
    return model.replaced("graph", [graph.replaced("node", nodes)])


def _with_antialias(node: Message) -> Message:
    names = ("antialias", "exclude_outside")
    others = [attribute for attribute in node.children("attribute") if attribute.text("name") not in names]
    added = [made("Attribute", name=[name], i=[1], type=[ATTRIBUTE_INT]) for name in names]
    return node.replaced("attribute", [*others, *added])


def _wide_weights(model: Message) -> int:
    """How many stored 8-bit weights need more than 7 bits."""
    tensors = model.child("graph").children("initializer")
    weights = (tensor for tensor in tensors if tensor.number("data_type") == INT8 and tensor.has("dims"))
    return sum(int((np.abs(stored_ints(tensor).astype(np.int16)) > MAX_LEVEL).sum()) for tensor in weights)


def prepared(image: Image, spec: InputSpec, shrink: Callable[[Floats, int, int], Floats]) -> Image:
    """As `preprocess.to_input`, but `shrink(planes, width, height)` resizes, float32 (h, w, 3) in 0..255."""
    work = image.astype(np.float32)
    if spec.colour == "grey":
        work = np.repeat(np.floor(work @ np.array([0.299, 0.587, 0.114], np.float32) + 0.5)[..., None], 3, axis=2)
    height, width = work.shape[:2]
    native = spec.native_px if spec.native_px is not None and min(height, width) > spec.native_px else None
    for size in (native, spec.size):
        height, width = work.shape[:2]
        sides = (width, height) if size is None else fitted_sides(width, height, size)
        if sides != (width, height):
            work = shrink(work, *sides)
    return centre_crop(work.astype(np.uint8), spec.size)


def bilinear(planes: Floats, width: int, height: int) -> Floats:
    """Each new pixel from its four neighbours, however much the image shrinks: OpenCV's INTER_LINEAR."""
    rounded: Floats = np.floor(_interpolated(planes, width, height, steps=2048) + 0.5)
    return rounded


def canvas(planes: Floats, width: int, height: int) -> Floats:
    """As Chromium's drawImage: halved while it shrinks to half or less, then from four neighbours by sixteenths of a
    pixel; every result is cut off, not rounded (measured in Chromium 156: at most one grey step away for even sides).
    """
    for _ in range(max(0, int(math.log2(max(1, min(planes.shape[0] / height, planes.shape[1] / width)))))):
        planes = np.floor(_halved(_halved(planes).swapaxes(0, 1)).swapaxes(0, 1))
    cut: Floats = np.floor(_interpolated(planes, width, height, steps=16) + 1e-3)
    return cut


def _halved(planes: Floats) -> Floats:
    n = planes.shape[0] // 2
    left, middle = planes[0 : 2 * n : 2], planes[1 : 2 * n : 2]
    if planes.shape[0] % 2 == 0:
        return (left + middle) * np.float32(0.5)
    return (left + middle + middle + planes[2 : 2 * n + 1 : 2]) * np.float32(0.25)


def _interpolated(planes: Floats, width: int, height: int, steps: int) -> Floats:
    rows, columns = (_weights(n, side, steps) for n, side in zip(planes.shape[:2], (height, width), strict=True))
    result: Floats = np.einsum("ij,jkc->ikc", rows, np.einsum("ij,kjc->kic", columns, planes), optimize=True)
    return result


def _weights(n: int, side: int, steps: int) -> Floats:
    """What each of `n` pixels gives to each of `side`, float32 (side, n), in whole parts of `steps`."""
    at: NDArray[Any] = np.floor(np.clip((np.arange(side) + 0.5) * n / side - 0.5, 0, n - 1) * steps) / steps
    low = np.minimum(at.astype(int), max(n - 2, 0))
    weights = np.zeros((side, n), np.float32)
    weights[np.arange(side), low] = 1 - (at - low)
    weights[np.arange(side), np.minimum(low + 1, n - 1)] += at - low
    return weights
