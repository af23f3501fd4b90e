"""From floats to 8 bits: the activation range that loses least, and weights rounded so that their errors cancel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
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
    layer's output on calibration images changes several times less than by rounding to nearest (GPTQ, arXiv
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
