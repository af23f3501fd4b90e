"""What the tensors of a graph look like on calibration pictures: samples of every activation, and how the inputs of convolutions correlate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.graph import INPUT, OUTPUT

if TYPE_CHECKING:
    import onnx

BATCH = 32
N_VALUES = 2000
"""Sampled of an activation in each batch, besides its extremes."""
N_PATCHES = 2000
"""Of a convolution's input in each batch; 512 pictures make 32,000, some ten times the longest patch of the networks here."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """A float graph on calibration pictures. `values` are float32 samples of each activation, its extremes among them.

    `products` holds for each convolution, by name, the mean of x·xᵀ over the patches x that it sees, float64 (groups, k, k); `probs` are the
    graph's answers, float32 (n, C).
    """

    graph: onnx.ModelProto
    crops: Crops
    values: dict[str, Floats]
    products: dict[str, NDArray[np.float64]]
    probs: Probs


def observe(graph: onnx.ModelProto, crops: Crops, seed: int = 0) -> Observed:
    """Run `graph` on `crops` (n, S, S, 3) with all its activations shown."""
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    names = sorted({name for node in graph.graph.node for name in node.output if name != OUTPUT})
    session = open_session(_showing(graph, names))
    shown = [value.name for value in session.get_outputs()]
    random = np.random.default_rng(seed)
    values: dict[str, list[Floats]] = {}
    products: dict[str, NDArray[np.float64]] = {}
    probs = []
    batches = [crops[start : start + BATCH] for start in range(0, len(crops), BATCH)]
    for batch in batches:
        found = dict(zip(shown, session.run(shown, {INPUT: batch}), strict=True))
        probs.append(found[OUTPUT])
        for name, array in found.items():
            if array.dtype == np.float32 and array.size:
                flat = array.ravel()
                values.setdefault(name, []).extend([random.choice(flat, min(N_VALUES, flat.size)), np.array([flat.min(), flat.max()])])
        for node in convolutions:
            patches = _patches(found[node.input[0]], attributes(node), random)
            products[node.name] = products.get(node.name, 0.0) + (patches.transpose(0, 2, 1) @ patches).astype(np.float64) / patches.shape[1]
    return Observed(
        graph,
        crops,
        {name: np.concatenate(parts) for name, parts in values.items()},
        {name: total / len(batches) for name, total in products.items()},
        np.concatenate(probs),
    )


def answers(graph: onnx.ModelProto, crops: Crops) -> Probs:
    """What `graph` answers, float32 (n, C)."""
    session = open_session(graph)
    return np.concatenate([session.run([OUTPUT], {INPUT: crops[start : start + BATCH]})[0] for start in range(0, len(crops), BATCH)])


def open_session(graph: onnx.ModelProto) -> Any:
    """An onnxruntime session on the processor."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    return ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The node's attributes as Python values."""
    import onnx

    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _showing(graph: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy


def _patches(planes: Floats, layer: dict[str, Any], random: np.random.Generator) -> Floats:
    """What a convolution multiplies its weights with at sampled places, float32 (groups, rows, k), from `planes` (n, c, H, W)."""
    top, left, bottom, right = layer.get("pads", [0, 0, 0, 0])
    down, across = layer.get("strides", [1, 1])
    padded = np.pad(planes, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = sliding_window_view(padded, layer["kernel_shape"], axis=(2, 3))[:, :, ::down, ::across]
    n, _, rows, columns = windows.shape[:4]
    chosen = random.choice(n * rows * columns, min(N_PATCHES, n * rows * columns), replace=False)
    picture, row, column = np.unravel_index(chosen, (n, rows, columns))
    patches: Floats = windows[picture, :, row, column].reshape(len(chosen), layer.get("group", 1), -1).transpose(1, 0, 2)
    return patches
