"""Exact and near copies of images.

Near copies: a 64-bit perceptual hash (signs of the lowest DCT coefficients of a 32×32 thumbnail) proposes pairs within
a Hamming radius, found over a multi-index (Norouzi, Punjani, Fleet 2012: of `CHUNKS` parts, one differs by at most
radius/CHUNKS bits); each pair is confirmed by the normalised correlation of the high-passed thumbnails, over small
shifts and scales. Faces look alike at low resolution, so the hash alone is no proof.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import AuditConfig
from deepfer_yolo.data.dataset import Dataset, Row, load_images
from deepfer_yolo.data.images import grey_plane

Thumbs = NDArray[np.uint8]
Pairs = NDArray[np.int64]

SIDE = 32
CHUNKS = (13, 13, 13, 13, 12)
"""Bits of the hash in each index."""
BLOCK = 4_000_000
CORE = 24
"""Side of the part of a thumbnail that is searched in another; the rest is room to shift."""
SCALES = (1.0, 0.97, 1.03, 0.94, 1.06)
MIN_UNSHIFTED = 0.5
"""Correlation without any shift below which a pair is given up; 99.5 % of planted near copies reach 0.58
(tests/benchmarks/near_duplicates.py)."""
CROWD, CROWD_TRIES = 128, 16
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
    hashes = perceptual_hashes(thumbs)
    unit, length = _high_pass(thumbs)
    crowded, alive = _crowds(hashes, unit, np.flatnonzero(length > SIDE), kinds, radius, correlation)
    pairs = alive[pairs_within(hashes[alive], radius)]
    unshifted = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), 20_000):
        i, j = pairs[start : start + 20_000].T
        unshifted[start : start + 20_000] = np.einsum("nhw,nhw->n", unit[i], unit[j])
    confirmed = unshifted >= correlation
    for index in np.flatnonzero(~confirmed & (unshifted >= MIN_UNSHIFTED)):
        i, j = pairs[index]
        confirmed[index] = best_correlation(unit[i], unit[j], correlation) >= correlation
    return np.unique(np.concatenate([crowded, pairs[confirmed]]), axis=0)


def perceptual_hashes(thumbs: Thumbs) -> NDArray[np.uint64]:
    """One 64-bit hash a thumbnail, uint64 (n,)."""
    order = sorted((row + column, row, column) for row in range(11) for column in range(11) if row + column)[:64]
    waves = np.cos(np.pi * np.outer(np.arange(11), 2 * np.arange(SIDE) + 1) / (2 * SIDE)).astype(np.float32)
    result = np.empty(len(thumbs), np.uint64)
    for start in range(0, len(thumbs), 4096):
        block = thumbs[start : start + 4096].astype(np.float32)
        spectrum = waves @ block @ waves.T
        bits = np.stack([spectrum[:, row, column] > 0 for _, row, column in order], axis=1)
        result[start : start + 4096] = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    return result


def _high_pass(thumbs: Thumbs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Thumbnails without their slow light as unit vectors, float32 (n, SIDE, SIDE), and their former lengths (n,)."""
    import cv2

    sharp = np.empty(thumbs.shape, np.float32)
    for index, thumb in enumerate(thumbs):
        grey = thumb.astype(np.float32)
        grey -= cv2.GaussianBlur(grey, (0, 0), 3)
        sharp[index] = grey - grey.mean()
    length = np.sqrt(np.einsum("nhw,nhw->n", sharp, sharp))
    sharp /= np.maximum(length, 1e-6)[:, None, None]
    return sharp, length


def _crowds(
    hashes: NDArray[np.uint64],
    unit: NDArray[np.float32],
    alive: NDArray[np.int64],
    kinds: NDArray[np.int64] | None,
    radius: int,
    correlation: float,
) -> tuple[Pairs, NDArray[np.int64]]:
    """Pairs of each image that has CROWD near copies or more, and the images that remain: all but those copies."""
    found = [np.empty((0, 2), np.int64)]
    for part, _ in _parts(hashes):
        order = alive[np.argsort(part[alive], kind="stable")]
        gone: list[NDArray[np.int64]] = []
        for bucket in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
            members = bucket
            for _ in range(CROWD_TRIES):
                if len(members) <= CROWD:
                    break
                leader = members[0]
                close = members[np.bitwise_count(hashes[members] ^ hashes[leader]) <= radius]
                close = close[np.einsum("nhw,hw->n", unit[close], unit[leader]) >= correlation]
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


def pairs_within(hashes: NDArray[np.uint64], radius: int) -> Pairs:
    """All pairs (i, j), i < j, whose hashes differ in at most `radius` bits, int64 (m, 2), sorted; none is missed."""
    n = len(hashes)
    found = []
    for part, width in _parts(hashes):
        order = np.argsort(part, kind="stable")
        starts = np.searchsorted(part[order], np.arange((1 << width) + 1))
        for mask in _masks(width, radius // len(CHUNKS)):
            wanted = part ^ mask
            first, size = starts[wanted], starts[wanted + 1] - starts[wanted]
            for every, position in _expand(first, size):
                keep = every < order[position]
                left, other = every[keep], order[position[keep]]
                near = np.bitwise_count(hashes[left] ^ hashes[other]) <= radius
                found.append(left[near] * n + other[near])
    keys = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
    return np.stack([keys // n, keys % n], axis=1) if n else np.empty((0, 2), np.int64)


def _parts(hashes: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], int]]:
    """The bits of each of the CHUNKS, int64 (n,), and how many they are."""
    low = 0
    for width in CHUNKS:
        yield ((hashes >> np.uint64(low)) & np.uint64((1 << width) - 1)).astype(np.int64), width
        low += width


def _masks(width: int, flips: int) -> Iterator[int]:
    for count in range(flips + 1):
        for places in combinations(range(width), count):
            yield sum(1 << place for place in places)


def _expand(first: NDArray[np.int64], size: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Every (left, position) where position runs over left's bucket, in blocks of about BLOCK pairs."""
    ends = np.cumsum(size)
    start = 0
    while start < len(size):
        base = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, base + BLOCK, side="right")))
        sizes = size[start:stop]
        left = np.repeat(np.arange(start, stop), sizes)
        inside = np.arange(len(left)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        yield left, np.repeat(first[start:stop], sizes) + inside
        start = stop


def best_correlation(one: NDArray[np.float32], two: NDArray[np.float32], enough: float = 2.0) -> float:
    """The normalised correlation of two high-passed thumbnails at their best scale and shift, up to 4 of their pixels;
    the search stops at `enough`.
    """
    import cv2

    best = -1.0
    for scale in SCALES:
        core = cv2.warpAffine(one, _core_of(scale), (CORE, CORE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        best = max(best, _peak(np.asarray(cv2.matchTemplate(two, core, cv2.TM_CCOEFF_NORMED))))
        if best >= enough:
            break
    return best


def _core_of(scale: float) -> NDArray[np.float32]:
    """The transform from the pixels of a core to those of a thumbnail: its centre, enlarged by `scale`."""
    offset = (SIDE - 1) / 2 - (CORE - 1) / 2 / scale
    return np.array([[1 / scale, 0, offset], [0, 1 / scale, offset]], np.float32)


def _peak(surface: NDArray[np.float32]) -> float:
    """The height of the peak between the pixels, by a parabola each way: half a pixel of shift costs up to 0.1."""
    row, column = divmod(int(surface.argmax()), surface.shape[1])
    top = float(surface[row, column])
    height = top
    for line, at in ((surface[row], column), (surface[:, column], row)):
        if 0 < at < len(line) - 1:
            before, after = float(line[at - 1]), float(line[at + 1])
            bend = before - 2 * top + after
            height -= (after - before) ** 2 / (8 * bend) if bend < 0 else 0.0
    return height
