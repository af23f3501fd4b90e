"""One split of a data set as training sees it: decoded into memory or, where it does not fit, anew for every batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.data.images import grey_plane
from deepfer_yolo.data.leaks import Hashes, image_hash
from deepfer_yolo.records import Image
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.runtime.preprocess import to_input

Read = Callable[[Sequence[int]], Iterable[Image]]
"""Reads the images of a split at the given places, uint8 RGB (H, W, 3), in that order."""
Prepare = Callable[[Image], Image]


class FilePixels:
    """Stands for the pixels of a split and decodes what is asked for; `prepare` makes all of one size."""

    device = torch.device("cpu")

    def __init__(self, read: Read, prepare: Prepare, spec: InputSpec) -> None:
        self.read, self.prepare, self.spec = read, prepare, spec

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        return _planes([self.prepare(image) for image in self.read(index.tolist())], self.spec)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedSplit:
    """One split. `pixels` gives uint8 (n, c, h, w) by an index tensor, c 1 for grey; `labels` int64 (n,); `soft`, where
    there are votes, is float (n, C) and sums to 1; `hashes` (n,) tell each image, as it was before any resize, by 64
    bits.
    """

    pixels: torch.Tensor | FilePixels
    labels: torch.Tensor
    soft: torch.Tensor | None = None
    hashes: Hashes | None = None

    def __len__(self) -> int:
        return len(self.labels)


class Survey:
    """What the images that pass have in common, and the hash of each."""

    def __init__(self) -> None:
        self.grey = True
        self.sides: set[int] = set()
        self.shapes: set[tuple[int, ...]] = set()
        self.hashes: list[int] = []

    def of(self, images: Iterable[Image]) -> Iterator[Image]:
        """`images` as they are."""
        for image in images:
            plane = grey_plane(image)
            self.grey = self.grey and plane is not None
            self.sides.add(min(image.shape[:2]))
            self.shapes.add(image.shape[:2])
            self.hashes.append(image_hash(image if plane is None else plane))
            yield image


def read_train(
    images: Iterable[Image], labels: Sequence[int], size: int, read: Read | None = None
) -> tuple[DecodedSplit, InputSpec]:
    """The training split, and what a model learns to see from it: grey where all are, and their side where all share
    one.

    Square images of one side up to `size` are kept as they are: the augmentation then enlarges them in the same step
    that moves them. All others are reduced to the model's input as they arrive, so that large images do not fill the
    memory. With `read` none is kept.
    """
    plain, survey, kept = InputSpec(size=size), Survey(), []
    for image in survey.of(images):
        if read is None:
            kept.append(image if image.shape[0] == image.shape[1] <= size else to_input(image, plain))
    native = survey.sides.pop() if len(survey.sides) == 1 else None
    spec = InputSpec(
        size=size, colour="grey" if survey.grey else "rgb", native_px=native if native and 8 <= native <= 1024 else None
    )
    height, width = survey.shapes.pop() if len(survey.shapes) == 1 else (size, size)
    side = height if height == width <= size else size

    def prepare(image: Image) -> Image:
        return image if image.shape[:2] == (side, side) else to_input(image, plain)

    pixels = _planes([prepare(image) for image in kept], spec) if read is None else FilePixels(read, prepare, spec)
    return _split(pixels, labels, survey), spec


def read_val(images: Iterable[Image], labels: Sequence[int], spec: InputSpec, read: Read | None = None) -> DecodedSplit:
    """A held-out split exactly as the exported model will be fed; with `read` no image is kept."""
    survey = Survey()

    def prepare(image: Image) -> Image:
        return to_input(image, spec)

    kept = [prepare(image) for image in survey.of(images) if read is None]
    return _split(_planes(kept, spec) if read is None else FilePixels(read, prepare, spec), labels, survey)


def _split(pixels: torch.Tensor | FilePixels, labels: Sequence[int], survey: Survey) -> DecodedSplit:
    hashes = np.array(survey.hashes, np.uint64)
    return DecodedSplit(pixels, torch.tensor(labels, dtype=torch.int64), hashes=hashes)


def _planes(images: Sequence[Image], spec: InputSpec) -> torch.Tensor:
    channels = 1 if spec.colour == "grey" else 3
    whole = np.empty((len(images), channels, *images[0].shape[:2]), np.uint8)
    for planes, image in zip(whole, images, strict=True):
        planes[:] = image[..., :channels].transpose(2, 0, 1)
    return torch.from_numpy(whole)
