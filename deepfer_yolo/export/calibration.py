"""What int8 is calibrated on: training images, and everything that a float graph shows on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from deepfer_yolo.data.dataset import load_images, open_dataset
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.export.graph import attribute, copied, quiet, save
from deepfer_yolo.export.parity import stratify
from deepfer_yolo.export.rounding import Floats
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.runtime.onnx_graph import INPUT, OUTPUT
from deepfer_yolo.runtime.preprocess import to_inputs

if TYPE_CHECKING:
    import onnx

SPLIT = "train"
BATCH = 32
N_VALUES = 2000
"""Sampled of an activation in each batch, besides its extremes."""
N_PATCHES = 2000
"""Of a convolution's input in each batch; 512 images make 32,000, some ten times the longest patch of the networks
here.
"""


def calibration_images(
    folder: Path | None, spec: InputSpec, n: int, avoid: frozenset[str], seed: int = 0
) -> tuple[Crops, int]:
    """`n` stratified training images as crops (n, S, S, 3), and how many were left out since they are among the
    evaluated ones.

    `avoid` holds SHA-256 of file contents. Raises DatasetError where too few are left.
    """
    if folder is None:
        raise DatasetError("int8 needs a data set to be calibrated on", "add --data DATASET")
    dataset = open_dataset(folder)
    rows = dataset.rows(SPLIT)
    allowed = [row for row in rows if row.sha256 not in avoid]
    if len(allowed) < min(n, 32):
        raise DatasetError(
            f"{folder}: {len(allowed)} training images are too few to calibrate int8, which takes 32 at least",
            "name a data set with more of them as --data, or --precision fp16",
        )
    chosen = stratify(allowed, n, seed)[:n]
    return to_inputs(list(load_images(dataset, chosen)), spec), len(rows) - len(allowed)


def prepare(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """`model` with shapes inferred and layers fused, as the quantiser wants it."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # From a file: given a model in memory it moves the weights into a temporary file and then loses that.
    source, target = folder / "source.onnx", folder / "prepared.onnx"
    save(model, source)
    with quiet():
        quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
    return onnx.load(str(target))


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """A float graph on calibration images. `values` are float32 samples of each activation, its extremes among them.

    `products` holds for each convolution, by name, the mean of x·xᵀ over the patches x that it sees, float64 (groups,
    k, k); `probs` are the graph's answers, float32 (n, C).
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
                values.setdefault(name, []).extend(
                    [random.choice(flat, min(N_VALUES, flat.size)), np.array([flat.min(), flat.max()])]
                )
        for node in convolutions:
            patches = _patches(found[node.input[0]], node, random)
            products[node.name] = (
                products.get(node.name, 0.0)
                + (patches.transpose(0, 2, 1) @ patches).astype(np.float64) / patches.shape[1]
            )
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
    return np.concatenate(
        [session.run([OUTPUT], {INPUT: crops[start : start + BATCH]})[0] for start in range(0, len(crops), BATCH)]
    )


def open_session(graph: onnx.ModelProto) -> Any:
    """An onnxruntime session on the processor."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    return ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _showing(graph: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    import onnx

    copy = copied(graph)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy


def _patches(planes: Floats, layer: onnx.NodeProto, random: np.random.Generator) -> Floats:
    """What a convolution multiplies its weights with at sampled places, float32 (groups, rows, k), from `planes` (n, c,
    H, W).
    """
    top, left, bottom, right = attribute(layer, "pads", [0, 0, 0, 0])
    down, across = attribute(layer, "strides", [1, 1])
    below, beside = attribute(layer, "dilations", [1, 1])
    padded = np.pad(planes, ((0, 0), (0, 0), (top, bottom), (left, right)))
    kernel = attribute(layer, "kernel_shape", [1, 1])
    spread = ((kernel[0] - 1) * below + 1, (kernel[1] - 1) * beside + 1)
    windows = sliding_window_view(padded, spread, axis=(2, 3))[:, :, ::down, ::across, ::below, ::beside]
    n, _, rows, columns = windows.shape[:4]
    chosen = random.choice(n * rows * columns, min(N_PATCHES, n * rows * columns), replace=False)
    image, row, column = np.unravel_index(chosen, (n, rows, columns))
    patches: Floats = windows[image, :, row, column].reshape(len(chosen), attribute(layer, "group", 1), -1)
    return patches.transpose(1, 0, 2)
