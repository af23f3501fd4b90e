"""From floats to 8 bits: the range of an activation that loses least, and weights rounded so that their errors cancel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.onnx_graph import INPUT, OUTPUT

if TYPE_CHECKING:
    import onnx


BATCH = 32
N_VALUES = 2000
"""Sampled of an activation in each batch, besides its extremes."""
N_PATCHES = 2000
"""Of a convolution's input in each batch; 512 pictures make 32,000, some ten times the longest patch of the networks
here.
"""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """A float graph on calibration pictures. `values` are float32 samples of each activation, its extremes among them.

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
            patches = _patches(found[node.input[0]], attributes(node), random)
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
    """What a convolution multiplies its weights with at sampled places, float32 (groups, rows, k), from `planes` (n, c,
    H, W).
    """
    top, left, bottom, right = layer.get("pads", [0, 0, 0, 0])
    down, across = layer.get("strides", [1, 1])
    padded = np.pad(planes, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = sliding_window_view(padded, layer["kernel_shape"], axis=(2, 3))[:, :, ::down, ::across]
    n, _, rows, columns = windows.shape[:4]
    chosen = random.choice(n * rows * columns, min(N_PATCHES, n * rows * columns), replace=False)
    picture, row, column = np.unravel_index(chosen, (n, rows, columns))
    patches: Floats = (
        windows[picture, :, row, column].reshape(len(chosen), layer.get("group", 1), -1).transpose(1, 0, 2)
    )
    return patches


STEPS = 255
SILU_FLOORS = (-1.28, -1.6, -2.0, -2.5, -3.0, -4.0, -5.0, -6.0, -8.0)
"""Lower ends to try in front of a SiLU: it has its minimum at -1.28 and is flat far below."""
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15)
"""Of an extreme, to try as the end of a range."""
DAMPING = 0.01
BLOCK = 64


def silu(values: Floats) -> Floats:
    """The activation of the networks here: x / (1 + e^-x)."""
    result: Floats = values / (1 + np.exp(-np.clip(values, -80, None)))
    return result


def full_range(values: Floats) -> tuple[float, float]:
    """The lowest and highest value, zero included."""
    return min(float(values.min()), 0.0), max(float(values.max()), 0.0)


def best_range(values: Floats, *, before_silu: bool) -> tuple[float, float]:
    """The range whose 256 steps lose least: the smallest mean squared error, behind the SiLU where one follows.

    A convolution's output may reach far below zero, where a SiLU makes all values nearly 0: its steps are not spent
    there.
    """
    low, high = full_range(values)
    lows = (
        sorted({max(low, floor) for floor in SILU_FLOORS}) if before_silu else sorted({low * share for share in SHARES})
    )
    expected = silu(values) if before_silu else values
    best = (np.inf, low, high)
    for bottom in lows:
        for top in sorted({high * share for share in SHARES}):
            rounded = _rounded(values, bottom, top)
            error = float(np.square((silu(rounded) if before_silu else rounded) - expected).mean())
            best = min(best, (error, bottom, top))
    return best[1], best[2]


def _rounded(values: Floats, low: float, high: float) -> Floats:
    step = (high - low) / STEPS
    if step <= 0:
        return np.zeros_like(values)
    zero = np.round(-low / step)
    result: Floats = ((np.clip(np.round(values / step) + zero, 0, STEPS) - zero) * step).astype(np.float32)
    return result


def steps_of(weights: Floats, n_levels: int) -> Floats:
    """One step an output channel, float32 (C,): the largest weight is `n_levels` steps."""
    largest = np.abs(weights).reshape(len(weights), -1).max(1)
    return np.where(largest > 0, largest / n_levels, 1.0).astype(np.float32)


def round_weights(weights: Floats, steps: Floats, products: NDArray[np.float64], n_levels: int) -> Floats:
    """`weights` (C, k, …) on the grid of `steps`, rounded one input after the other, each error passed on to the inputs
    that follow.

    The passed-on error is what the correlation of the inputs, `products` (groups, k, k), says they can make good: the
    layer's output on calibration pictures changes several times less than by rounding to nearest (GPTQ, arXiv
    2210.17323, algorithm 1).
    """
    groups = len(products)
    flat = weights.reshape(groups, len(weights) // groups, -1).astype(np.float64)
    sizes = steps.reshape(groups, -1).astype(np.float64)
    rounded = [_round_group(flat[i], sizes[i], products[i], n_levels) for i in range(groups)]
    return np.stack(rounded).reshape(weights.shape).astype(np.float32)


def _round_group(
    rows: NDArray[np.float64], steps: NDArray[np.float64], product: NDArray[np.float64], n_levels: int
) -> NDArray[np.float64]:
    power = np.diag(product)
    order = np.argsort(-power)  # what matters most is rounded first, while there is most left to make it good
    damped = product[order][:, order] + np.eye(len(product)) * (DAMPING * power.mean() + 1e-12)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    rest, result = rows[:, order].copy(), np.empty_like(rows)
    for start in range(0, rows.shape[1], BLOCK):
        columns = range(start, min(start + BLOCK, rows.shape[1]))
        errors = _round_columns(rest, result, columns, steps, upper, n_levels)
        rest[:, columns.stop :] -= errors @ upper[columns.start : columns.stop, columns.stop :]
    unsorted = np.empty_like(result)
    unsorted[:, order] = result
    return unsorted


def _round_columns(
    rest: NDArray[np.float64],
    result: NDArray[np.float64],
    columns: Sequence[int],
    steps: NDArray[np.float64],
    upper: NDArray[np.float64],
    n_levels: int,
) -> NDArray[np.float64]:
    """Round `columns` of `rest` into `result`; returns their scaled errors, which the columns behind them still have to
    take.
    """
    errors = np.empty((len(rest), len(columns)))
    last = columns[-1] + 1
    for i, column in enumerate(columns):
        result[:, column] = np.clip(np.round(rest[:, column] / steps), -n_levels, n_levels) * steps
        errors[:, i] = (rest[:, column] - result[:, column]) / upper[column, column]
        rest[:, column + 1 : last] -= np.outer(errors[:, i], upper[column, column + 1 : last])
    return errors
