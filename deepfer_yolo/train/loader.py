"""Batches drawn by index from a decoded split, and augmented in tensors.

Decoding once and augmenting in tensors replaces the stock loader, which delivers about 1,000 images a second and
core.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch  # noqa: TID253  (this package exists to run torch)
from torch.nn.functional import interpolate  # noqa: TID253

from deepfer_yolo.data.images import map_in_order
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.train.augment import Draws, augment, cut_mix, mix, soft_targets
from deepfer_yolo.train.decoded_split import DecodedSplit, FilePixels
from deepfer_yolo.train.device import fits_on
from deepfer_yolo.train.losses import class_weights
from deepfer_yolo.train.schedule import side_at
from deepfer_yolo.train.sensor import photograph

_SHUFFLE_STREAM = 0


class EpochSampler:
    """The order of one epoch: a permutation by seed and epoch, dealt to `world` ranks without loss or duplicates.

    Batches are as equal as can be, so that no epoch ends in a batch of one, and every rank has the same number of them.
    """

    def __init__(
        self, n: int, batch: int, seed: int, rank: int = 0, world: int = 1, weights: torch.Tensor | None = None
    ) -> None:
        self.n, self.batch, self.seed, self.rank, self.world = n, batch, seed, rank, world
        self.chance = None if weights is None else weights.double().numpy() / weights.double().sum().item()
        """The chance (n,) of each image to be drawn, with replacement; None draws each once."""
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

    def __init__(
        self,
        split: DecodedSplit,
        config: TrainConfig,
        n_classes: int,
        device: torch.device,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.dataset = split
        self.config, self.device = config, device
        self.batch_size = config.batch
        weights = None
        if config.sampling != "natural":
            counts = torch.bincount(split.labels, minlength=n_classes).clamp_min(1)
            weights = class_weights(config.sampling, counts)[split.labels]
        self.sampler = EpochSampler(len(split), config.batch, config.seed, rank, world, weights)
        self.epochs = config.epochs
        """How long the run is; under a time budget an estimate that the trainer renews."""
        self.skip = 0
        """Batches of the next epoch that a resumed run has made already."""
        self._pixels = split.pixels
        if isinstance(self._pixels, torch.Tensor) and fits_on(device, self._pixels.nbytes):
            self._pixels = self._pixels.to(device)
        self._labels = split.labels.to(device)
        hard = torch.nn.functional.one_hot(split.labels, n_classes).float()
        self._targets = soft_targets(hard if split.soft is None else split.soft, config.label_smoothing).to(device)
        self.taught: torch.Tensor | None = None
        """What teachers say of each image, probabilities (n, C), where they were asked once and for all."""

    def __len__(self) -> int:
        return self.sampler.n_batches

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        epoch = self.sampler.epoch
        draws, size = Draws(self.config, len(self.dataset), epoch), side_at(self.config, epoch, self.epochs)
        if draws.sensor is not None:
            draws.sensor.to(self.device)
        batches, self.skip = self.sampler.batches()[self.skip :], 0
        # From files, the next batch is decoded while the network works on this one.
        pixels = map_in_order(
            self.pixels_of, batches, 1 if isinstance(self._pixels, FilePixels) else 0, waiting_per_worker=2
        )
        for index, part in zip(batches, pixels, strict=True):
            yield self.batch(index, part, draws, size)

    def pixels_of(self, index: torch.Tensor) -> torch.Tensor:
        """The images at `index` as they are stored, uint8 (b, c, h, w)."""
        return self._pixels[index.to(self._pixels.device)]

    def still(self) -> Iterator[torch.Tensor]:
        """All images of the split in its order, as a network is fed them: nothing moved, nothing spoilt."""
        for part in torch.split(torch.arange(len(self.dataset)), self.batch_size):
            images = self.pixels_of(part).to(self.device).float().div_(255)
            side = self.config.imgsz
            if images.shape[-2:] != (side, side):
                images = interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)
            yield _three_channels(images)

    def batch(self, index: torch.Tensor, pixels: torch.Tensor, draws: Draws, size: int) -> dict[str, torch.Tensor]:
        """One training batch of the images at `index`."""
        where = index.to(self.device)
        images = augment(pixels.to(self.device), draws, index, size)
        views = {"img": images if draws.sensor is None else photograph(images, draws.sensor, where)}
        if self.config.teacher_view == "clean":
            views["clean"] = images
        targets = self._targets[where]
        if self.taught is not None:
            targets = torch.cat([targets, self.taught[where]], 1)
        for name, view in views.items():
            mixed, shares = mix(view, targets, draws.share[index])
            mixed, shares = cut_mix(mixed, shares, draws.cut[index])
            views[name] = _three_channels(mixed)
        n_classes = self._targets.shape[1]
        batch = {**views, "cls": self._labels[where], "target": shares[:, :n_classes]}
        return batch if self.taught is None else {**batch, "taught": shares[:, n_classes:]}


class ValLoader:
    """The validation split in its own order, ``{img, cls}``, nothing padded and nothing shuffled.

    Of `world` processes each has one stretch, so that their answers in the order of the ranks are in the order of the
    files.
    """

    num_workers = 0

    def __init__(self, split: DecodedSplit, batch: int, device: torch.device, *, rank: int = 0, world: int = 1) -> None:
        self.dataset, self.batch_size, self.device = split, batch, device
        self.first, self.end = (len(split) * part // world for part in (rank, rank + 1))

    def __len__(self) -> int:
        return math.ceil((self.end - self.first) / self.batch_size)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for start in range(self.first, self.end, self.batch_size):
            part = torch.arange(start, min(start + self.batch_size, self.end))
            images = self.dataset.pixels[part].to(self.device).float().div_(255)
            yield {"img": _three_channels(images), "cls": self.dataset.labels[part].to(self.device)}


def _three_channels(images: torch.Tensor) -> torch.Tensor:
    return images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
