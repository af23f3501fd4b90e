"""Exact and near copies of images.

Near copies: `near_candidates.py` proposes pairs by hashes and coarse correlations; each pair is confirmed by the
normalised correlation of the high-passed thumbnails, over small shifts and scales. Faces look alike at low resolution,
so the hash alone is no proof.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import AuditConfig
from deepfer_yolo.data.dataset import Dataset, Row, load_images
from deepfer_yolo.data.images import grey_plane
from deepfer_yolo.data.near_candidates import SIDE, Floats, Pairs, Shapes, Thumbs, candidates, high_pass
from deepfer_yolo.errors import explained_imports

CORE = 24
"""Side of the part of a thumbnail that is searched in another; the rest is room to shift."""
SCALES = (1.0, 0.97, 1.03, 0.94, 1.06)
MIN_UNSHIFTED = 0.5
"""Correlation without any shift below which a pair is given up; 99.5 % of planted near copies reach 0.58
(tests/benchmarks/near_duplicates.py)."""
HOPELESS, POOR = 0.32, 0.18
"""Below what is asked for by so much at the first scale, or after the third, a pair is given up; of FER2013's pairs the
farthest are 0.296 and 0.146 below 0.9.
"""
CROWD, CROWD_TRIES = 128, 16
CHUNK_BITS = (13, 13, 13, 13, 12)
"""Parts of a hash: the images that share one are looked through for crowds."""
TOGETHER = 256
"""Pairs that a thread confirms in one go."""
RADIUS, CORRELATION = AuditConfig().near_radius_bits, AuditConfig().near_correlation


def pixel_hash(pixels: NDArray[np.uint8]) -> bytes:
    """16 bytes that are equal for equal images: uint8 (H, W) or (H, W, 3), three equal channels counting as grey."""
    plane = grey_plane(pixels)
    pixels = pixels if plane is None else plane
    content = np.ascontiguousarray(pixels).tobytes() + repr(pixels.shape).encode()
    return hashlib.blake2b(content, digest_size=16).digest()


def thumbnail(pixels: NDArray[np.uint8]) -> Thumbs:
    """An image, uint8 (H, W) or (H, W, 3), as grey uint8 (SIDE, SIDE)."""
    import cv2

    grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    how = cv2.INTER_AREA if grey.shape[0] > SIDE and grey.shape[1] > SIDE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=how), np.uint8)


def thumbnails(dataset: Dataset, rows: Sequence[Row]) -> Thumbs:
    """The thumbnail of each row's image, uint8 (n, SIDE, SIDE)."""
    return np.stack([thumbnail(image) for image in load_images(dataset, rows)])


def copies_in_train(dataset: Dataset, split: str) -> set[str]:
    """Paths (as in the manifest) of the images of `split` that have an exact or near copy in train."""
    train, held_out = dataset.rows("train"), dataset.rows(split)
    rows = [*train, *held_out]
    known = {row.sha256 for row in train}
    copies = {row.path for row in held_out if row.sha256 in known}
    pairs = near_pairs(thumbnails(dataset, rows), kinds=(np.arange(len(rows)) >= len(train)).astype(np.int64))
    across = pairs[(pairs[:, 0] < len(train)) & (pairs[:, 1] >= len(train))]
    return copies | {rows[index].path for index in across[:, 1].tolist()}


def alike(values: Sequence[str]) -> Pairs:
    """Pairs (first, other) of the places where the same value stands, int64 (m, 2); an empty one is like no other."""
    seen: dict[str, int] = {}
    firsts = [(seen.setdefault(value, index), index) for index, value in enumerate(values) if value]
    return np.array([pair for pair in firsts if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def group(n: int, pairs: Pairs) -> NDArray[np.int64]:
    """A group number for each of `n` images, int64 (n,): the smallest index that a chain of `pairs` joins it to."""
    parent = list(range(n))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for left, right in pairs.tolist():
        a, b = root(left), root(right)
        parent[max(a, b)] = min(a, b)
    return np.array([root(index) for index in range(n)], np.int64)


def near_pairs(
    thumbs: Thumbs, radius: int = RADIUS, correlation: float = CORRELATION, kinds: NDArray[np.int64] | None = None
) -> Pairs:
    """Pairs of near copies among thumbnails, int64 (m, 2), i < j. Thumbnails of one grey never pair.

    Of an image with very many near copies (frames of one video) only the pairs with it are given, and those with one
    image of each of the `kinds`, int64 (n,), among them: all pairs would be quadratically many.
    """
    if not len(thumbs):
        return np.empty((0, 2), np.int64)
    with explained_imports():
        from threadpoolctl import threadpool_limits

    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:  # products this small only wait for threads
        shapes = Shapes.of(thumbs)
        crowded, alive = _crowds(thumbs, shapes, kinds, radius, correlation)
        pairs = candidates(shapes, alive, radius, correlation)
        parts = [pairs[start : start + TOGETHER] for start in range(0, len(pairs), TOGETHER)]
        confirmed = list(pool.map(lambda part: part[_are_copies(thumbs, part, correlation)], parts))
    return np.unique(np.concatenate([crowded, *confirmed]), axis=0)


def _are_copies(thumbs: Thumbs, pairs: Pairs, correlation: float) -> NDArray[np.bool_]:
    """Which pairs, int64 (m, 2), are near copies, bool (m,)."""
    images, place = np.unique(pairs, return_inverse=True)
    unit, _ = high_pass(thumbs[images])
    i, j = place.reshape(pairs.shape).T
    unshifted = np.einsum("nhw,nhw->n", unit[i], unit[j])
    found = unshifted >= correlation
    open_ones = np.flatnonzero(~found & (unshifted >= MIN_UNSHIFTED))
    found[open_ones] = best_correlations(unit[i[open_ones]], unit[j[open_ones]], correlation) >= correlation
    return np.asarray(found, bool)


def _crowds(
    thumbs: Thumbs, shapes: Shapes, kinds: NDArray[np.int64] | None, radius: int, correlation: float
) -> tuple[Pairs, NDArray[np.int64]]:
    """Pairs of each image that has CROWD near copies or more, and the images that remain: all but those copies."""
    alive, hashes = shapes.alive, shapes.hashes
    found = [np.empty((0, 2), np.int64)]
    for low, width in zip(np.cumsum((0, *CHUNK_BITS)), CHUNK_BITS, strict=False):
        part = ((hashes >> np.uint64(low)) & np.uint64((1 << width) - 1)).astype(np.int64)
        order = alive[np.argsort(part[alive], kind="stable")]
        gone: list[NDArray[np.int64]] = []
        bounds = np.flatnonzero(np.diff(part[order], prepend=-1, append=-1))
        large = np.flatnonzero(np.diff(bounds) > CROWD)
        for first_place, end in zip(bounds[large], bounds[large + 1], strict=True):
            members = order[first_place:end]
            for _ in range(CROWD_TRIES):
                if len(members) <= CROWD:
                    break
                leader = members[0]
                close = members[np.bitwise_count(hashes[members] ^ hashes[leader]) <= radius]
                close = _correlating(thumbs, close, leader, correlation) if len(close) >= CROWD else close
                if len(close) < CROWD:
                    members = members[1:]
                    continue
                firsts = [leader] if kinds is None else [leader, *close[np.unique(kinds[close], return_index=True)[1]]]
                for first in set(map(int, firsts)):
                    others = close[close != first]
                    found.append(np.sort(np.stack([np.full(len(others), first), others], axis=1), axis=1))
                gone.append(close[close != leader])
                members = np.setdiff1d(members, close)
        if gone:
            alive = np.setdiff1d(alive, np.concatenate(gone))
    return np.concatenate(found), alive


def _correlating(thumbs: Thumbs, images: NDArray[np.int64], leader: np.int64, correlation: float) -> NDArray[np.int64]:
    """Those of `images` that correlate with `leader` as they are."""
    one, _ = high_pass(thumbs[leader : leader + 1])
    kept = [
        part[np.einsum("nhw,hw->n", high_pass(thumbs[part])[0], one[0]) >= correlation]
        for part in np.array_split(images, 1 + len(images) // 10_000)
    ]
    return np.concatenate(kept)


def best_correlations(one: Floats, two: Floats, enough: float) -> Floats:
    """The normalised correlation of each pair of high-passed thumbnails, float32 (m, SIDE, SIDE), at its best scale and
    shift, up to 4 of their pixels. The search of a pair stops at `enough`, where that is far away, and beyond the
    better of a smaller and a larger scale.
    """
    with explained_imports():
        from scipy.fft import irfft2, rfft2  # numpy's takes five times as long
    heights = np.full((len(one), len(SCALES)), -1, np.float32)
    waves, spread = rfft2(two), _spread_of_windows(two)

    def look(index: int, pairs: NDArray[np.int64]) -> None:
        along = _core_of(SCALES[index])
        core = along @ one[pairs] @ along.T
        core -= core.mean(axis=(1, 2), keepdims=True)
        core /= np.maximum(np.sqrt(np.einsum("nhw,nhw->n", core, core)), 1e-6)[:, None, None]
        product = waves[pairs] * rfft2(core, s=(SIDE, SIDE)).conj()
        surface = irfft2(product)[:, : SIDE - CORE + 1, : SIDE - CORE + 1] / spread[pairs]
        heights[pairs, index] = _peaks(np.asarray(surface, np.float32))

    def open_ones(within: float) -> NDArray[np.int64]:
        best = heights.max(axis=1)
        return np.flatnonzero((best < enough) & (best >= enough - within))

    look(0, np.arange(len(one)))
    for index in (1, 2):
        look(index, open_ones(HOPELESS))
    left = open_ones(POOR)
    is_smaller = heights[left, 1] > heights[left, 2]
    look(3, left[is_smaller])
    look(4, left[~is_smaller])
    return np.asarray(heights.max(axis=1), np.float32)


def _core_of(scale: float) -> Floats:
    """What gives the pixels of a core from those of a thumbnail, along one side: its middle, enlarged by `scale`."""
    at = np.round(32 * ((SIDE - 1) / 2 + (np.arange(CORE) - (CORE - 1) / 2) / scale)) / 32  # as OpenCV rounds
    return np.asarray(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(SIDE))), np.float32)


def _spread_of_windows(thumbs: Floats) -> Floats:
    """The length, without its mean, of each window of the size of a core, float32 (m, 9, 9)."""
    windows = np.eye(SIDE, dtype=np.float32).cumsum(axis=0)
    windows = windows[CORE - 1 :] - np.pad(windows, ((1, 0), (0, 0)))[: SIDE - CORE + 1]
    sums, squares = (windows @ values @ windows.T for values in (thumbs, thumbs**2))
    return np.asarray(np.sqrt(np.maximum(squares - sums**2 / CORE**2, 1e-12)), np.float32)


def _peaks(surface: Floats) -> Floats:
    """The height of each peak between the pixels, by a parabola each way: half a pixel of shift costs up to 0.1."""
    every, last = np.arange(len(surface)), surface.shape[1] - 1
    row, column = np.divmod(surface.reshape(len(surface), (last + 1) ** 2).argmax(axis=1), last + 1)
    top = surface[every, row, column]
    height = top.copy()
    for at, before, after in (
        (row, surface[every, np.maximum(row - 1, 0), column], surface[every, np.minimum(row + 1, last), column]),
        (column, surface[every, row, np.maximum(column - 1, 0)], surface[every, row, np.minimum(column + 1, last)]),
    ):
        bend = np.minimum(before - 2 * top + after, -1e-9)
        height -= np.where((at > 0) & (at < last), (after - before) ** 2 / (8 * bend), 0)
    return height
