"""The whole split as one uint8 tensor, and batches drawn from it by index.

Decoding once and augmenting in tensors replaces the stock loader, which delivers about 1,000 pictures a second and core.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.config import TrainConfig
from deepfer_yolo.data.leaks import Hashes
from deepfer_yolo.records import Image
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.runtime.preprocess import to_input, to_inputs
from deepfer_yolo.train.augment import Draws, augment, cut_mix, mix, soft_targets
from deepfer_yolo.train.losses import class_weights

_SHUFFLE_STREAM = 0


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """One split, decoded. `pixels` is uint8 (n, c, h, w), c 1 for grey; `labels` int64 (n,); `paths` names each picture;
    `soft`, where there are votes, is float (n, C) and sums to 1; `hashes` (n,) tell each picture, as it was before any resize, by 64 bits.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    paths: tuple[str, ...]
    soft: torch.Tensor | None = None
    hashes: Hashes | None = None

    def __len__(self) -> int:
        return len(self.labels)


def read_train(images: Iterable[Image], labels: Sequence[int], paths: Sequence[str], size: int) -> tuple[Faces, InputSpec]:
    """The training split, and what a model learns to see from it: grey where all are, and their side where all share one.

    Square pictures of one side up to `size` are kept as they are: the augmentation then enlarges them in the same step that moves them.
    All others are reduced to the model's input as they arrive, so that large pictures do not fill the memory.
    """
    plain = InputSpec(size=size)
    grey, kept, sides, shapes = True, [], set(), set()
    for image in images:
        grey = grey and bool((image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all())
        sides.add(min(image.shape[:2]))
        shapes.add(image.shape[:2])
        kept.append(image if image.shape[0] == image.shape[1] <= size else to_input(image, plain))
    native = sides.pop() if len(sides) == 1 else None
    spec = InputSpec(size=size, colour="grey" if grey else "rgb", native_px=native if native and 8 <= native <= 1024 else None)
    return _faces(np.stack(kept) if len(shapes) == 1 else to_inputs(kept, plain), labels, paths, spec), spec


def read_val(images: Iterable[Image], labels: Sequence[int], paths: Sequence[str], spec: InputSpec) -> Faces:
    """The validation split exactly as the exported model will be fed."""
    return _faces(np.stack([to_input(image, spec) for image in images]), labels, paths, spec)


def _faces(pixels: np.ndarray[Any, np.dtype[np.uint8]], labels: Sequence[int], paths: Sequence[str], spec: InputSpec) -> Faces:
    if spec.colour == "grey":
        pixels = pixels[..., :1]
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return Faces(torch.from_numpy(planes), torch.tensor(labels, dtype=torch.int64), tuple(paths))


class EpochSampler:
    """The order of one epoch: a permutation by seed and epoch, dealt to `world` ranks without loss or duplicates.

    Batches are as equal as can be, so that no epoch ends in a batch of one, and every rank has the same number of them.
    """

    def __init__(self, n: int, batch: int, seed: int, rank: int = 0, world: int = 1, weights: torch.Tensor | None = None) -> None:
        self.n, self.batch, self.seed, self.rank, self.world = n, batch, seed, rank, world
        self.chance = None if weights is None else weights.double().numpy() / weights.double().sum().item()
        """The chance (n,) of each picture to be drawn, with replacement; None draws each once."""
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(range(self.rank, self.n, self.world))

    @property
    def n_batches(self) -> int:
        """Batches a rank draws in one epoch."""
        return max(1, math.ceil(self.n / (self.batch * self.world)))

    def batches(self) -> list[torch.Tensor]:
        """Index tensors of this rank's batches."""
        random = np.random.Generator(np.random.PCG64([self.seed, self.epoch, _SHUFFLE_STREAM]))
        order = random.permutation(self.n) if self.chance is None else random.choice(self.n, self.n, p=self.chance)
        return [torch.from_numpy(part) for part in np.array_split(order[self.rank :: self.world], self.n_batches)]


class TrainLoader:
    """Augmented batches ``{img, cls, target}`` on the device; has what Ultralytics' loop asks of a DataLoader."""

    num_workers = 0
    drop_last = True  # no batch is ever short: see EpochSampler

    def __init__(self, faces: Faces, config: TrainConfig, n_classes: int, device: torch.device, *, rank: int = 0, world: int = 1) -> None:
        self.dataset = faces
        self.config, self.device = config, device
        self.batch_size = config.batch
        weights = None
        if config.sampling != "natural":
            counts = torch.bincount(faces.labels, minlength=n_classes).clamp_min(1)
            weights = class_weights(config.sampling, counts)[faces.labels]
        self.sampler = EpochSampler(len(faces), config.batch, config.seed, rank, world, weights)
        self.epochs = config.epochs
        """How long the run is; under a time budget an estimate that the trainer renews."""
        self.skip = 0
        """Batches of the next epoch that a resumed run has made already."""
        self._pixels = faces.pixels.to(device)
        self._labels = faces.labels.to(device)
        hard = torch.nn.functional.one_hot(faces.labels, n_classes).float()
        self._targets = soft_targets(hard if faces.soft is None else faces.soft, config.label_smoothing).to(device)

    def __len__(self) -> int:
        return self.sampler.n_batches

    def size_at(self, epoch: int) -> int:
        """The side in pixels that pictures have in `epoch`; smaller at first where the recipe says so."""
        config = self.config
        early = config.start_imgsz is not None and epoch < config.start_share * self.epochs
        return config.start_imgsz if early and config.start_imgsz else config.imgsz

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        epoch = self.sampler.epoch
        draws, size = Draws(self.config, len(self.dataset), epoch), self.size_at(epoch)
        batches, self.skip = self.sampler.batches()[self.skip :], 0
        for index in batches:
            yield self.batch(index, draws, size)

    def batch(self, index: torch.Tensor, draws: Draws, size: int) -> dict[str, torch.Tensor]:
        """One training batch of the pictures at `index`."""
        where = index.to(self.device)
        images = augment(self._pixels[where], draws, index, size)
        images, targets = mix(images, self._targets[where], draws.share[index])
        images, targets = cut_mix(images, targets, draws.cut[index])
        return {"img": _three_channels(images), "cls": self._labels[where], "target": targets}


class ValLoader:
    """The validation split in its own order, ``{img, cls}``, nothing padded and nothing shuffled.

    Of `world` processes each has one stretch, so that their answers in the order of the ranks are in the order of the files.
    """

    num_workers = 0

    def __init__(self, faces: Faces, batch: int, device: torch.device, *, rank: int = 0, world: int = 1) -> None:
        self.dataset, self.batch_size, self.device = faces, batch, device
        self.first, self.end = (len(faces) * part // world for part in (rank, rank + 1))

    def __len__(self) -> int:
        return math.ceil((self.end - self.first) / self.batch_size)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for start in range(self.first, self.end, self.batch_size):
            part = slice(start, min(start + self.batch_size, self.end))
            images = self.dataset.pixels[part].to(self.device).float().div_(255)
            yield {"img": _three_channels(images), "cls": self.dataset.labels[part].to(self.device)}


def _three_channels(images: torch.Tensor) -> torch.Tensor:
    return images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
