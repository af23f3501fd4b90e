"""Which pairs of thumbnails may be near copies: what `duplicates.near_pairs` then looks at closely.

1. Hashes: 64 bits, the signs of the lowest DCT coefficients; near copies differ in few of them. Up to EXHAUSTIVE
   images all pairs are compared. Beyond, images are sorted into cells by a projection in which they differ from each
   other more than from their own shifts and crops (Fisher's discriminant, learned from a sample of them), and each cell
   is compared with the images that lie near it.
2. The correlation of the high-passed thumbnails at half their size.
3. That of their middles over small shifts and scales, in whitened coordinates: there, what all faces have in common
   counts little. A coarse look at all pairs, then a finer one at those that remain: most pairs of faces that merely
   look alike end here.

The thresholds of steps 2 and 3 lose none of the 6,989 pairs of FER2013 that a search without them finds
(tests/test_data/test_duplicates.py).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Thumbs = NDArray[np.uint8]
Pairs = NDArray[np.int64]
Floats = NDArray[np.float32]

SIDE = 32
LOW = SIDE // 2
EXHAUSTIVE = 40_000
"""Images up to which all pairs of hashes are compared: 0.6 ns a pair."""
CELLS, VISITS = 1024, 32
"""Cells, and how many of them each image is compared with: 0.2 % of FER2013's pairs would meet in none of these."""
DIMENSIONS = 24
MOVES = ((1.0, 0.8, 0.0), (1.0, 0.0, 0.8), (1.0, -0.56, 0.56), (1.0, 0.56, 0.56), (1.064, 0.0, 0.0), (0.936, 0.0, 0.0))
"""Scale and shift, in pixels of half size, of the copies that the cells are made for."""
USUAL = 0.9
"""The correlation of near copies for which the following thresholds were measured."""
MIN_LOW = 0.5
"""Least correlation at half size; the least among FER2013's pairs is 0.54."""
VIEWED = 4096
"""Images from which on step 3 is taken: fewer say little of what faces have in common."""
SCALES = (1.0, 0.95, 1.05)
SAMPLE = 10_000
MOVED = 5000
"""How many of the sample the cells' projection is learned from."""
BLOCK = 256


@dataclass(frozen=True, slots=True)
class Look:
    """How the middles of two half-size thumbnails are compared: `side` pixels of one, in `dimensions` whitened
    coordinates, with the other's at each of the shifts (in such pixels, down and right) and SCALES. Copies correlate by
    `least`; the least among FER2013's pairs stands beside it.
    """

    side: int
    dimensions: int
    shifts: tuple[float, ...]
    least: float


LOOKS = (
    Look(12, 48, (0.0, -0.8, 0.8), 0.58),  # 0.61
    Look(13, 64, (0.0, -0.5, 0.5, -1.0, 1.0), 0.68),  # 0.74; beyond 0.68 painted copies are lost
)


@dataclass(frozen=True, slots=True, eq=False)
class Shapes:
    """What is kept of each of n thumbnails: its hash (n,), its high-passed self at half size as a unit vector, float16
    (n, LOW * LOW), and which ones show anything: a thumbnail of one grey does not.
    """

    hashes: NDArray[np.uint64]
    low: NDArray[np.float16]
    alive: NDArray[np.int64]

    @classmethod
    def of(cls, thumbs: Thumbs) -> Shapes:
        """The shapes of `thumbs`, uint8 (n, SIDE, SIDE), which may be a file: it is read block by block."""
        n = len(thumbs)
        hashes, low = np.empty(n, np.uint64), np.empty((n, LOW * LOW), np.float16)
        shows = np.zeros(n, bool)
        for start in range(0, n, BLOCK):
            block = thumbs[start : start + BLOCK]
            hashes[start : start + BLOCK] = perceptual_hashes(block)
            unit, length = high_pass(block)
            halves = unit[:, ::2] + unit[:, 1::2]
            small = (halves[:, :, ::2] + halves[:, :, 1::2]).reshape(len(block), -1)
            low[start : start + BLOCK] = _unit(small)
            shows[start : start + BLOCK] = length > SIDE
        return cls(hashes, low, np.flatnonzero(shows))

    def correlation(self, pairs: Pairs) -> Floats:
        """The correlation at half size of each pair, float32 (m,)."""
        found = np.empty(len(pairs), np.float32)
        for start in range(0, len(pairs), 16 * BLOCK):
            i, j = pairs[start : start + 16 * BLOCK].T
            one, two = self.low[i].astype(np.float32), self.low[j].astype(np.float32)
            found[start : start + 16 * BLOCK] = np.einsum("nd,nd->n", one, two)
        return found

    def sample(self) -> Floats:
        """Some of the shapes, the same in every run, float32."""
        chosen = np.random.default_rng(0).permutation(self.alive)[:SAMPLE]
        return np.asarray(self.low[chosen], np.float32)


def candidates(shapes: Shapes, images: NDArray[np.int64], radius: int, correlation: float) -> Pairs:
    """Pairs (i, j), i < j, among `images` that may be near copies, int64 (m, 2), sorted; the coarse correlations are
    asked for in proportion to `correlation`.
    """
    least = correlation / USUAL
    if len(images) <= EXHAUSTIVE:
        found = images[pairs_within(shapes.hashes[images], radius)]
        found = found[shapes.correlation(found) >= MIN_LOW * least]
    else:
        found = cell_pairs(shapes, images, radius, MIN_LOW * least)
    if len(images) >= VIEWED:
        for look in LOOKS:
            found = _alike_inside(shapes, found, look, least)
    return found


def perceptual_hashes(thumbs: Thumbs) -> NDArray[np.uint64]:
    """One 64-bit hash a thumbnail, uint64 (n,)."""
    order = sorted((row + column, row, column) for row in range(11) for column in range(11) if row + column)[:64]
    waves = np.cos(np.pi * np.outer(np.arange(11), 2 * np.arange(SIDE) + 1) / (2 * SIDE)).astype(np.float32)
    result = np.empty(len(thumbs), np.uint64)
    for start in range(0, len(thumbs), BLOCK):
        block = thumbs[start : start + BLOCK].astype(np.float32)
        spectrum = waves @ block @ waves.T
        bits = np.stack([spectrum[:, row, column] > 0 for _, row, column in order], axis=1)
        result[start : start + BLOCK] = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    return result


def high_pass(thumbs: Thumbs) -> tuple[Floats, Floats]:
    """Thumbnails without their slow light as unit vectors, float32 (n, SIDE, SIDE), and their former lengths (n,)."""
    blur = _blur()
    sharp = thumbs.astype(np.float32)
    sharp -= blur @ sharp @ blur.T  # one small product each: a large one would wake the threads of the algebra library
    flat = sharp.reshape(len(thumbs), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.sqrt(np.einsum("nd,nd->n", flat, flat))
    flat /= np.maximum(length, 1e-6)[:, None]
    return np.asarray(sharp, np.float32), np.asarray(length, np.float32)


@functools.cache
def _blur() -> Floats:
    """The Gaussian blur of 3 pixels along one side, as a matrix."""
    import cv2

    kernel = cv2.getGaussianKernel(25, 3)
    return np.asarray(cv2.sepFilter2D(np.eye(SIDE, dtype=np.float32), -1, np.ones(1), kernel), np.float32)


def pairs_within(hashes: NDArray[np.uint64], radius: int) -> Pairs:
    """All pairs (i, j), i < j, whose hashes differ in at most `radius` bits, int64 (m, 2), sorted."""
    n = len(hashes)
    found = [np.empty(0, np.int64)]
    for start in range(0, n, ROWS):
        rows = hashes[start : start + ROWS]
        for row, column in _near_hashes(rows, hashes[start:], radius):
            keep = row < column
            found.append((row[keep] + start) * n + column[keep] + start)
    keys = np.sort(np.concatenate(found))
    return np.stack([keys // max(n, 1), keys % max(n, 1)], axis=1)


ROWS, COLUMNS = 32, 1024
"""The pairs that are compared in one go, which fit the processor's cache."""


def _near_hashes(
    rows: NDArray[np.uint64], columns: NDArray[np.uint64], radius: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(places in `rows`, places in `columns`) of hashes that differ in at most `radius` bits."""
    room = np.empty(ROWS * COLUMNS, np.uint64)  # a new array of this size each time would cost as much again
    for top in range(0, len(rows), ROWS):
        block = rows[top : top + ROWS, None]
        for left in range(0, len(columns), COLUMNS):
            part = columns[None, left : left + COLUMNS]
            width = part.shape[1]
            different = np.bitwise_xor(block, part, out=room[: len(block) * width].reshape(len(block), width))
            places = np.flatnonzero(np.bitwise_count(different) <= radius)
            if len(places):
                yield places // width + top, places % width + left


def cell_pairs(shapes: Shapes, images: NDArray[np.int64], radius: int, least: float = MIN_LOW) -> Pairs:
    """Pairs (i, j), i < j, of `images` within `radius` that correlate by `least` at half size, of which one lies in a
    cell that the other is compared with.
    """
    visits = _cells(shapes, images)
    n, found = len(shapes.hashes), [np.empty(0, np.int64)]
    by_cell = np.argsort(visits, axis=None, kind="stable") // VISITS
    ends = np.cumsum(np.bincount(visits.ravel(), minlength=CELLS))
    for cell, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        home, near = images[visits[:, 0] == cell], images[by_cell[start:end]]
        hashes = shapes.hashes[near]
        waiting: list[Pairs] = []
        for row, column in _near_hashes(shapes.hashes[home], hashes, radius):
            waiting.append(np.stack([home[row], near[column]], axis=1))
        if waiting:
            pairs = np.sort(np.concatenate(waiting), axis=1)
            keys = np.unique(pairs[pairs[:, 0] < pairs[:, 1]] @ np.array([n, 1]))
            pairs = np.stack([keys // n, keys % n], axis=1)
            found.append(keys[shapes.correlation(pairs) >= least])
    keys = np.unique(np.concatenate(found))
    return np.stack([keys // n, keys % n], axis=1)


def _cells(shapes: Shapes, images: NDArray[np.int64]) -> NDArray[np.uint16]:
    """The VISITS nearest cells of each image, uint16 (n, VISITS), its own first."""
    sample = shapes.sample()
    mean, projection = sample.mean(axis=0), _discriminant(sample[:MOVED])
    placed = _unit((sample - mean) @ projection)
    centres = placed[:CELLS]
    for _ in range(8):  # k-means on the sphere
        nearest = (placed @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, placed)
        centres = _unit(np.where(np.abs(sums).sum(axis=1, keepdims=True) > 0, sums, centres))
    visits = np.empty((len(images), VISITS), np.uint16)
    for start in range(0, len(images), BLOCK):
        block = shapes.low[images[start : start + BLOCK]].astype(np.float32)
        closeness = _unit((block - mean) @ projection) @ centres.T
        nearest = np.argpartition(-closeness, VISITS, axis=1)[:, :VISITS]
        own = np.take_along_axis(closeness, nearest, axis=1).argmax(axis=1)
        every = np.arange(len(block))
        nearest[every, 0], nearest[every, own] = nearest[every, own], nearest[every, 0].copy()
        visits[start : start + BLOCK] = nearest
    return visits


def _discriminant(sample: Floats) -> Floats:
    """The directions, float32 (LOW * LOW, DIMENSIONS), in which shapes differ much more from each other than from their
    own shifts, scales and altered borders; scaled so that the shapes spread equally along each.
    """
    random = np.random.default_rng(1)
    images = sample.reshape(-1, LOW, LOW)
    changes = []
    for scale, down, right in MOVES:
        moved = (sample @ _resampling(LOW, scale, down, right)).reshape(images.shape)
        side, depth = random.integers(0, 4, len(sample)), random.integers(1, 3, len(sample))
        from_edge = np.where((side % 2 == 0)[:, None], np.arange(LOW), np.arange(LOW)[::-1]) < depth[:, None]
        is_border = np.where((side < 2)[:, None, None], from_edge[:, :, None], from_edge[:, None, :])
        moved = np.where(is_border, images[random.permutation(len(sample))], moved)
        changes.append(moved.reshape(sample.shape) - sample)
    within = np.cov(np.concatenate(changes).T)
    within += 0.1 * np.trace(within) / len(within) * np.eye(len(within))
    whiten = np.linalg.inv(np.linalg.cholesky(within))
    spread, axes = np.linalg.eigh(whiten @ np.cov(sample.T) @ whiten.T)
    return np.asarray(whiten.T @ (axes / np.sqrt(np.maximum(spread, 1e-9)))[:, : -DIMENSIONS - 1 : -1], np.float32)


def _resampling(side: int, scale: float, down: float, right: float) -> Floats:
    """What a half-size shape, as a row vector, is multiplied with to give the `side` × `side` pixels in its middle,
    enlarged and shifted; linear between pixels, the edge going on for ever.
    """

    def along(shift: float) -> Floats:
        at = np.clip((LOW - 1) / 2 + (np.arange(side) - (side - 1) / 2) * scale + shift, 0, LOW - 1)
        return np.asarray(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(LOW))), np.float32)

    return np.asarray(np.kron(along(down), along(right)).T)


def _alike_inside(shapes: Shapes, pairs: Pairs, look: Look, least: float) -> Pairs:
    """The `pairs`, sorted by their first image, that the look finds alike; `least` of its correlation is enough."""
    sample = shapes.sample() @ _resampling(look.side, 1.0, 0.0, 0.0)
    spread, axes = np.linalg.eigh(np.cov(sample.T))
    strongest = np.s_[: -look.dimensions - 1 : -1]
    whiten = (axes / np.sqrt(spread + spread[-look.dimensions - 1]))[:, strongest].astype(np.float32)
    offset = sample.mean(axis=0) @ whiten
    moves = itertools.product(SCALES, look.shifts, look.shifts)
    views = [_resampling(look.side, *move) @ whiten for move in moves]
    every = np.concatenate(views, axis=1)
    kept = [np.empty((0, 2), np.int64)]
    for start in range(0, len(pairs), BLOCK):
        block = pairs[start : start + BLOCK]
        first, place = np.unique(block[:, 0], return_inverse=True)
        seen = (shapes.low[first].astype(np.float32) @ every).reshape(len(first), len(views), -1) - offset
        other = _unit(shapes.low[block[:, 1]].astype(np.float32) @ views[0] - offset)
        closeness = (_unit(seen)[place] @ other[:, :, None])[:, :, 0].max(axis=1)
        kept.append(block[closeness >= look.least * least])
    return np.concatenate(kept)


def _unit(vectors: Floats) -> Floats:
    length = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))
    return np.asarray(vectors / np.maximum(length, 1e-6)[..., None], np.float32)
