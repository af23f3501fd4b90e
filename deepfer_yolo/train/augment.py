"""Augmentation for small faces, batched in tensors on the training device.

What happens to an image follows from the seed, the epoch and the image's index alone, never from the order of
batches or the number of workers; only what is mixed in, pasted in or set around it comes from the neighbour in the
batch.
"""

from __future__ import annotations

import numpy as np
import torch  # noqa: TID253  (this package exists to run torch)
from torch.nn import functional  # noqa: TID253

from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.train.sensor import SensorDraws, inside

_AUGMENT_STREAM, _NOISE_STREAM, _MARGIN_STREAM = 1, 2, 6
"""Keep the draws here apart from the shuffling of the same seed and epoch."""
N_PATTERNS = 64
"""Patterns of noise that the images of an epoch share."""


class Draws:
    """Every random number of one epoch's augmentation, one entry an image; drawn by numpy, so equal on every device."""

    def __init__(self, config: TrainConfig, n: int, epoch: int) -> None:
        random = np.random.Generator(np.random.PCG64([config.seed, epoch, _AUGMENT_STREAM]))
        uniform = random.random((11, n), dtype=np.float32)
        signed = uniform * 2 - 1
        angle, shear = np.radians(signed[0] * config.degrees), np.tan(np.radians(signed[1] * config.shear))
        mirror = np.where(uniform[2] < config.fliplr, -1.0, 1.0).astype(np.float32)
        zoom = 1 / (1 + signed[3] * config.scale)
        if config.margin:
            more = np.random.Generator(np.random.PCG64([config.seed, epoch, _MARGIN_STREAM])).random((2, n))
            zoom = zoom * (1 + 2 * config.margin * more[0] * (more[1] < 0.5)).astype(np.float32)
        cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
        # Rows map output to input coordinates in [-1, 1], as affine_grid wants them; the image's half side is 1.
        rows = [cos * mirror, shear * cos - sin, signed[4] * config.translate * 2, sin * mirror, shear * sin + cos]
        self.theta = torch.from_numpy(np.stack([*rows, signed[5] * config.translate * 2], 1).astype(np.float32)).view(
            n, 2, 3
        )
        self.gain = torch.from_numpy(1 + signed[6] * config.contrast)
        self.lift = torch.from_numpy(signed[7] * config.brightness)
        # Rectangles of 10-33 % of the side in each direction, as (x, y, width, height); width 0 where nothing is
        # erased.
        side = random.uniform(0.1, 0.33, (2, n)).astype(np.float32) * (uniform[8] < config.erasing)
        self.box = torch.from_numpy(np.stack([uniform[9] * (1 - side[0]), uniform[10] * (1 - side[1]), *side], 1))
        share = random.beta(config.mixup, config.mixup, n) if config.mixup else np.ones(n)
        share = np.maximum(share, 1 - share).astype(np.float32)
        # CutMix pastes a square of up to half the area from the neighbour; such an image is not mixed as well.
        cut = np.sqrt(random.uniform(0.05, 0.5, n)).astype(np.float32) * (random.random(n) < config.cutmix)
        corner = random.random((2, n), dtype=np.float32) * (1 - cut)
        self.cut = torch.from_numpy(np.stack([*corner, cut, cut], 1).astype(np.float32))
        self.share = torch.from_numpy(np.where(cut > 0, 1, share).astype(np.float32))
        self.power = torch.from_numpy(
            np.exp((random.random(n, dtype=np.float32) * 2 - 1) * np.log1p(config.gamma)).astype(np.float32)
        )
        blur, noise, chance = torch.from_numpy(random.random((3, n), dtype=np.float32))
        self.blur, self.noise, self.surrounded = blur * config.blur, noise * config.noise, chance < config.surround
        self.pattern = torch.from_numpy(random.integers(0, N_PATTERNS, n))
        self.sensor = SensorDraws(config, n, epoch) if config.sensor else None
        self._noise_seed = [config.seed, epoch, _NOISE_STREAM]
        self._patterns: dict[int, torch.Tensor] = {}

    def patterns(self, size: int) -> torch.Tensor:
        """Standard normal noise (N_PATTERNS, 1, size, size) of this epoch."""
        if size not in self._patterns:
            random = np.random.Generator(np.random.PCG64(self._noise_seed))
            self._patterns[size] = torch.from_numpy(
                random.standard_normal((N_PATTERNS, 1, size, size), dtype=np.float32)
            )
        return self._patterns[size]


def augment(pixels: torch.Tensor, draws: Draws, index: torch.Tensor, size: int) -> torch.Tensor:
    """A training batch, float (b, c, size, size) in 0..1, from uint8 (b, c, h, w); `index` picks the images' draws.

    Flip, shift, rotation, scale and shear are one grid sample from the stored pixels, so an image is interpolated
    once.
    """
    n, device = len(pixels), pixels.device
    grid = functional.affine_grid(draws.theta[index].to(device), [n, pixels.shape[1], size, size], align_corners=False)
    images = functional.grid_sample(
        pixels.float().div_(255), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    if n > 1 and bool((surrounded := draws.surrounded[index]).any()):
        # A crop from a frame shows what is around the face there, not a repeated border.
        outside = (grid.abs() > 1).any(-1).unsqueeze(1) & surrounded.to(device).view(n, 1, 1, 1)
        images = torch.where(outside, images.roll(1, 0), images)
    images = _degrade(images, draws, index)
    gain, lift = (values[index].to(device).view(n, 1, 1, 1) for values in (draws.gain, draws.lift))
    mean = images.mean((1, 2, 3), keepdim=True)
    images = ((images - mean).mul_(gain).add_(mean + lift)).clamp_(0, 1)
    power = draws.power[index].to(device)
    if bool((power != 1).any()):
        images = images.pow(power.view(n, 1, 1, 1))
    return torch.where(inside(draws.box[index].to(device), size), mean, images)


def _degrade(images: torch.Tensor, draws: Draws, index: torch.Tensor) -> torch.Tensor:
    """Blur, a share of a Gaussian of 1 px that each image has for itself, and noise, where the recipe has any."""
    shape, device = (len(images), 1, 1, 1), images.device
    if bool((blur := draws.blur[index]).any()):
        soft = functional.pad(images, (2, 2, 2, 2), mode="replicate")
        kernel = torch.exp(-torch.arange(-2.0, 3.0, device=device).square() / 2)
        kernel = (kernel / kernel.sum()).repeat(images.shape[1], 1, 1, 1)
        soft = functional.conv2d(
            functional.conv2d(soft, kernel, groups=images.shape[1]), kernel.transpose(2, 3), groups=images.shape[1]
        )
        images = torch.lerp(images, soft, blur.to(device).view(shape))
    if bool((noise := draws.noise[index]).any()):
        images = images + draws.patterns(images.shape[-1])[draws.pattern[index]].to(device) * noise.to(device).view(
            shape
        )
    return images


def soft_targets(targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Target probabilities (b, C) with `smoothing` of each taken away and spread evenly over all classes."""
    return targets * (1 - smoothing) + smoothing / targets.shape[1]


def mix(images: torch.Tensor, targets: torch.Tensor, share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixup (Zhang et al., 2018): `share` (b,) of each image stays, the rest is its neighbour in the batch."""
    if len(images) < 2 or bool((share == 1).all()):
        return images, targets
    share = share.to(images.device)
    return torch.lerp(images.roll(1, 0), images, share.view(-1, 1, 1, 1)), torch.lerp(
        targets.roll(1, 0), targets, share.view(-1, 1)
    )


def cut_mix(images: torch.Tensor, targets: torch.Tensor, box: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """CutMix (Yun et al., 2019): inside each `box` (b, 4) is the neighbour, with as large a share of the target."""
    if len(images) < 2 or not bool((box[:, 2] > 0).any()):
        return images, targets
    patch = inside(box.to(images.device), images.shape[-1])
    kept = 1 - patch.float().mean((1, 2, 3)).view(-1, 1)
    return torch.where(patch, images.roll(1, 0), images), torch.lerp(targets.roll(1, 0), targets, kept)
