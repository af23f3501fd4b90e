"""What a camera does to a face, batched in tensors: cover, light, optics, resolution, noise, compression.

In that order, after how a frame comes about: light falls on the scene, a lens spreads it, a sensor of few pixels counts
it with shot and read noise, and an encoder quantises blocks of 8 pixels of *that* grid; only then is the crop enlarged
to the network's input. What stands for no camera (primitives.py) comes last. As in augment.py everything follows from
seed, epoch and the image's index.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch  # noqa: TID253  (this package exists to run torch)
from numpy.typing import NDArray

from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.train.primitives import PrimitiveDraws, column, disturb

Floats = NDArray[np.float32]

_SENSOR_STREAM, _KERNEL_STREAM, _NOISE_STREAM, _WARP_STREAM = 3, 4, 5, 7
FACE_PX = 48
"""Lengths in pixels are those of a face of this side, FER2013's."""
N_KERNELS, N_NOISES, N_WARPS = 192, 192, 64
REACH = 12
"""Pixels of the network's input by which a kernel reaches out to either side."""
N_OFFSETS = 8
"""Places of the encoder's blocks relative to the crop, in each direction."""
GAMMA = 2.2
LUMINANCE = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=torch.float32,
)
"""Quantisation of luminance at quality 50 (ITU-T T.81, table K.1)."""


class SensorDraws:
    """The camera of each image of one epoch, and the banks of kernels, noises and resampling that the images share."""

    def __init__(self, config: TrainConfig, n: int, epoch: int) -> None:
        self.config, self.seed = config, [config.seed, epoch]
        random = np.random.Generator(np.random.PCG64([*self.seed, _SENSOR_STREAM]))
        seen = random.random(n) < config.sensor
        self.seen = torch.from_numpy(seen)

        def stage(on: object) -> NDArray[np.bool_]:
            """Which images a stage is for: none where the recipe has it off."""
            chosen: NDArray[np.bool_] = (random.random(n) < config.stage_chance) & seen & bool(on)
            return chosen

        def upto(value: float, chosen: NDArray[np.bool_]) -> Floats:
            return (random.random(n, dtype=np.float32) * value * chosen).astype(np.float32)

        self.cover = torch.from_numpy(_covers(random, stage(config.covering), config.covering))
        self.cover_grey = torch.from_numpy(random.random(n, dtype=np.float32))
        self.shade = torch.from_numpy(upto(config.shade, stage(config.shade)))
        turn, edge = random.random((2, n), dtype=np.float32)
        self.shade_line = torch.from_numpy(
            np.stack([np.cos(turn * 2 * np.pi), np.sin(turn * 2 * np.pi), edge - 0.5, 1 + 11 * edge[::-1] ** 2], 1)
        )
        self.haze = torch.from_numpy(upto(config.haze, stage(config.haze)))
        self.haze_grey = torch.from_numpy(0.3 + 0.7 * random.random(n, dtype=np.float32))
        dark, bright = stage(config.dark_stops), stage(config.bright_stops)
        stops = upto(config.bright_stops, bright & ~dark) - upto(config.dark_stops, dark)
        self.stops = torch.from_numpy(stops)
        # A camera's own gain gives back part of the light, and raises the noise with it.
        self.gain = torch.from_numpy(np.where(dark, -stops * random.random(n, dtype=np.float32), 0).astype(np.float32))
        self.shot = torch.from_numpy(upto(config.shot_noise, stage(config.shot_noise)))
        self.read = torch.from_numpy(upto(config.read_noise, stage(config.read_noise)))
        optics = stage(_kernel_kinds(config))
        self.kernel = torch.from_numpy(np.where(optics, random.integers(1, N_KERNELS, n), 0))
        self.noise = torch.from_numpy(random.integers(0, N_NOISES, n))
        low = stage(config.least_face_px)
        least = float(config.least_face_px or FACE_PX)
        side = np.exp(np.log(least) + random.random(n) * (np.log(FACE_PX) - np.log(least)))
        lossy = stage(config.least_quality)
        in_grid = low | (lossy & (random.random(n) < 0.5))
        self.side = torch.from_numpy(np.where(in_grid, np.where(low, np.round(side), FACE_PX), 0).astype(np.int64))
        """Pixels of the sensor's grid; 0: the network's own, where nothing is reduced."""
        self.offset = torch.from_numpy(random.integers(0, N_OFFSETS, (2, n)))
        quality = random.integers(config.least_quality or 95, 96, n)
        self.quality = torch.from_numpy(np.where(lossy, quality, 0).astype(np.float32))
        self.cast = torch.from_numpy(
            1
            + (random.random((n, 3), dtype=np.float32) * 2 - 1) * config.colour_cast * seen[:, None].astype(np.float32)
        )
        grey = random.dirichlet([2, 4, 1], n).astype(np.float32)
        self.to_grey = torch.from_numpy(grey * (random.random(n) < config.grey_conversion)[:, None])
        self.dead = torch.from_numpy(upto(config.dead_pixels, stage(config.dead_pixels)))
        self.bands = torch.from_numpy(upto(config.banding, stage(config.banding)))
        count, phase, upright = random.random((3, n), dtype=np.float32)
        self.band_waves = torch.from_numpy(np.stack([1 + 7 * count, phase, upright < 0.3], 1))
        self.warp = torch.from_numpy(upto(config.warp_px, stage(config.warp_px)))
        self.warp_field = torch.from_numpy(random.integers(0, N_WARPS, n))
        self.primitives = (
            PrimitiveDraws(config, n, epoch) if config.texture or config.hidden or config.tone_curve else None
        )
        self._sways: dict[int, torch.Tensor] = {}
        self._banks: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def to(self, device: torch.device) -> SensorDraws:
        """Everything on `device`, once an epoch."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value.to(device))
        if self.primitives is not None:
            self.primitives.to(device)
        return self

    def banks(self, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """For images of `size`: the kernels' spectra, the noises, and the matrices that reduce and enlarge."""
        if size not in self._banks:
            device = self.kernel.device
            random = np.random.Generator(np.random.PCG64([*self.seed, _KERNEL_STREAM]))
            kernels = torch.from_numpy(_kernels(self.config, random, size)).to(device)
            side = size + 2 * REACH
            padded = torch.zeros(N_KERNELS, side, side, device=device)
            padded[:, : 2 * REACH + 1, : 2 * REACH + 1] = kernels
            spectra = torch.fft.rfft2(padded.roll((-REACH, -REACH), (1, 2)))
            random = np.random.Generator(np.random.PCG64([*self.seed, _NOISE_STREAM]))
            noises = torch.from_numpy(random.standard_normal((N_NOISES, 1, size, size), dtype=np.float32)).to(device)
            down, up = _resamplers(size)
            self._banks[size] = spectra, noises, down.to(device), up.to(device)
        return self._banks[size]

    def sways(self, size: int) -> torch.Tensor:
        """Smooth fields of displacement, (N_WARPS, size, size, 2), each figure about -1 to 1."""
        if size not in self._sways:
            random = np.random.Generator(np.random.PCG64([*self.seed, _WARP_STREAM]))
            coarse = torch.from_numpy(random.random((N_WARPS, 2, 4, 4), dtype=np.float32) * 2 - 1)
            fields = torch.nn.functional.interpolate(
                coarse.to(self.warp.device), (size, size), mode="bicubic", align_corners=True
            )
            self._sways[size] = fields.permute(0, 2, 3, 1)
        return self._sways[size]


def photograph(images: torch.Tensor, draws: SensorDraws, index: torch.Tensor) -> torch.Tensor:
    """`images`, float (b, c, S, S) in 0..1, as the camera of each in `draws` would give them; `index` picks the draws.

    S is a multiple of 8.
    """
    size, config, unseen = images.shape[-1], draws.config, images
    spectra, noises, down, up = draws.banks(size)
    if config.warp_px:
        images = _sway(images, draws, index)
    images = _colour(images, draws, index)
    images = _light(images, draws, index)
    if _kernel_kinds(config):
        images = _filter(images, spectra, draws.kernel[index])
    # From here on in the grid of the sensor: `side` pixels of the face, the rest repeats its edge.
    side, offset = draws.side[index], draws.offset[:, index]
    in_grid = bool(config.least_face_px or config.least_quality)
    if in_grid:
        images = down[side, offset[0]].unsqueeze(1) @ images @ down[side, offset[1]].unsqueeze(1).mT
    images = _expose(images, draws, index, noises)
    if config.least_quality:
        images = _compress(images, draws.quality[index])
    if in_grid:
        images = up[side, offset[0]].unsqueeze(1) @ images @ up[side, offset[1]].unsqueeze(1).mT
    if draws.primitives is not None:
        images = disturb(images.clamp(0, 1), draws.primitives, index)
    return torch.where(column(draws.seen[index]), images.clamp(0, 1), unseen)


def inside(box: torch.Tensor, size: int) -> torch.Tensor:
    """Which pixels, (b, 1, size, size), lie in the boxes (b, 4) of x, y, width and height in shares of the side."""
    place = (torch.arange(size, device=box.device) + 0.5) / size
    left, top, width, height = (one.view(-1, 1) for one in box.unbind(1))
    columns, rows = (place > left) & (place < left + width), (place > top) & (place < top + height)
    return (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)


def _sway(images: torch.Tensor, draws: SensorDraws, index: torch.Tensor) -> torch.Tensor:
    """Each image with its places displaced by a smooth field of its own, of up to `warp` pixels."""
    size, device = images.shape[-1], images.device
    place = (torch.arange(size, device=device) * 2 + 1) / size - 1
    still = torch.stack([place.expand(size, size), place.view(-1, 1).expand(size, size)], -1)
    away = draws.sways(size)[draws.warp_field[index]] * draws.warp[index].view(-1, 1, 1, 1) * (2 / FACE_PX)
    swayed = torch.nn.functional.grid_sample(images, still + away, padding_mode="border", align_corners=False)
    return torch.where(column(draws.warp[index] > 0), swayed, images)


def _colour(images: torch.Tensor, draws: SensorDraws, index: torch.Tensor) -> torch.Tensor:
    """A cast, and grey by weights of its own, where images have colours."""
    if images.shape[1] != 3:
        return images
    images = images * draws.cast[index].view(-1, 3, 1, 1)
    weights = draws.to_grey[index]
    grey = (images * weights.view(-1, 3, 1, 1)).sum(1, keepdim=True).expand_as(images)
    return torch.where(column(weights.sum(1) > 0), grey, images).clamp(0, 1)


def _light(images: torch.Tensor, draws: SensorDraws, index: torch.Tensor) -> torch.Tensor:
    """What lies in front of the face, a shadow across it and a veil over all."""
    config, size = draws.config, images.shape[-1]
    place = (torch.arange(size, device=images.device) + 0.5) / size
    if config.covering:
        images = torch.where(inside(draws.cover[index], size), column(draws.cover_grey[index]), images)
    if config.shade:
        across, along, edge, steep = (one.view(-1, 1, 1) for one in draws.shade_line[index].unbind(1))
        distance = across * (place - 0.5).view(1, 1, -1) + along * (place - 0.5).view(1, -1, 1) - 0.6 * edge
        images = images * (1 - column(draws.shade[index]) * torch.sigmoid(steep * distance).unsqueeze(1))
    if config.banding:
        waves, phase, upright = (one.view(-1, 1, 1) for one in draws.band_waves[index].unbind(1))
        across = torch.where(upright > 0, place.view(1, 1, -1), place.view(1, -1, 1))
        bands = 0.5 + 0.5 * torch.sin(2 * torch.pi * (waves * across + phase))
        images = images * (1 - column(draws.bands[index]) * bands.unsqueeze(1))
    if config.haze:
        images = torch.lerp(images, column(draws.haze_grey[index]).expand_as(images), column(draws.haze[index]))
    return images


def _filter(images: torch.Tensor, spectra: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Each image convolved with its kernel; kernel 0 leaves it as it is."""
    size = images.shape[-1]
    padded = torch.nn.functional.pad(images, (REACH,) * 4, mode="replicate")
    wide = torch.fft.irfft2(torch.fft.rfft2(padded) * spectra[kernel].unsqueeze(1), s=padded.shape[-2:])
    filtered = wide[..., REACH : REACH + size, REACH : REACH + size]
    return torch.where(column(kernel > 0), filtered, images).clamp(0, 1)


def _expose(images: torch.Tensor, draws: SensorDraws, index: torch.Tensor, noises: torch.Tensor) -> torch.Tensor:
    """Light counted by a sensor: more or less of it, noise that grows with its root, a constant noise, and clipping."""
    noise = noises[draws.noise[index]]
    light = images.clamp(1e-4, 1).pow(GAMMA) * column(draws.stops[index].exp2())
    spread = (column(draws.shot[index]).square() * light + column(draws.read[index]).square()).sqrt()
    counted = (light + spread * noise) * column(draws.gain[index].exp2())
    counted = (counted.clamp(1e-6, 1).pow(1 / GAMMA) * 255).round() / 255
    if draws.config.dead_pixels:
        # The tails of the same noise, so that as many pixels are dead as the share says; half of them are white.
        rare = column(2**0.5 * torch.erfinv(1 - draws.dead[index]))
        counted = torch.where(noise.abs() > rare, (noise > 0).to(counted.dtype), counted)
    return counted


def _compress(images: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """Blocks of 8 pixels quantised as JPEG does at `quality` (b,); 0 leaves an image as it is.

    The scale of the table is that of the Independent JPEG Group's library.
    """
    b, c, size, _ = images.shape
    cosines = _cosines().to(images.device)
    share = torch.where(quality < 50, 5000 / quality.clamp_min(1), 200 - 2 * quality)
    steps = ((LUMINANCE.to(images.device) * share.view(-1, 1, 1) + 50) / 100).floor().clamp(1, 255)
    blocks = images.mul(255).sub(128).view(b, c, size // 8, 8, size // 8, 8).permute(0, 1, 2, 4, 3, 5)
    steps = steps.view(b, 1, 1, 1, 8, 8)
    coarse = ((cosines @ blocks @ cosines.T) / steps).round() * steps
    decoded = (cosines.T @ coarse @ cosines).permute(0, 1, 2, 4, 3, 5).reshape(images.shape)
    return torch.where(column(quality > 0), (decoded + 128).div(255).clamp(0, 1), images)


def _cosines() -> torch.Tensor:
    """The orthonormal cosine transform of 8 values, (8, 8)."""
    k = torch.arange(8.0)
    rows = torch.cos((2 * k.view(1, 8) + 1) * k.view(8, 1) * torch.pi / 16) / 2
    rows[0] /= 2**0.5
    return rows


def _covers(random: np.random.Generator, chosen: NDArray[np.bool_], largest: float) -> Floats:
    """Boxes (n, 4) of x, y, width and height in shares of the side: any place, mouth and chin, or the eyes."""
    n = len(chosen)
    kind = random.integers(0, 4, n)
    width, height = 0.15 + random.random((2, n)) * (largest - 0.15)
    x, y = random.random((2, n)) * (1 - np.stack([width, height]))
    mouth, eyes = kind == 2, kind == 3
    x, width = np.where(mouth | eyes, 0, x), np.where(mouth | eyes, 1, width)
    y = np.where(mouth, 0.5 + 0.25 * random.random(n), np.where(eyes, 0.2 + 0.15 * random.random(n), y))
    height = np.where(mouth, 1, np.where(eyes, 0.15 + 0.1 * random.random(n), height))
    return np.stack([x, y, width * chosen, height], 1).astype(np.float32)


def _kernel_kinds(config: TrainConfig) -> list[str]:
    return [name for name in ("defocus_px", "motion_px", "ghost_px", "sharpen", "any_filter") if getattr(config, name)]


def _kernels(config: TrainConfig, random: np.random.Generator, size: int) -> Floats:
    """N_KERNELS of (2 REACH + 1) squared, each of sum 1, the first the identity: discs, bells, paths, ghosts,
    sharpening and random taps.
    """
    ys, xs = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1].astype(np.float32)
    zoom = size / FACE_PX
    identity = ((xs == 0) & (ys == 0)).astype(np.float32)
    bank = [identity]
    for _ in range(N_KERNELS - 1):
        kind, strength = random.choice(_kernel_kinds(config) or ["none"]), random.random()
        if kind == "defocus_px":
            radius = max(0.3, strength * config.defocus_px) * zoom
            is_disc = random.random() < 0.5
            disc = np.clip(radius + 0.5 - np.hypot(xs, ys), 0, 1)
            kernel = disc if is_disc else np.exp(-(xs**2 + ys**2) / (2 * (0.6 * radius) ** 2))
        elif kind == "motion_px":
            kernel = _path(random, max(1.0, strength * config.motion_px) * zoom, xs, ys)
        elif kind == "ghost_px":
            angle, away = random.random() * 2 * np.pi, (0.2 + 0.8 * strength) * config.ghost_px * zoom
            x, y = away * np.cos(angle), away * np.sin(angle)
            ghost = np.clip(1 - np.abs(xs - x), 0, 1) * np.clip(1 - np.abs(ys - y), 0, 1)
            kernel = identity + random.random() * ghost
        elif kind == "sharpen":
            bell = np.exp(-(xs**2 + ys**2) / (2 * (0.8 * zoom) ** 2))
            kernel = identity + strength * config.sharpen * (identity - bell / bell.sum())
        elif kind == "any_filter":
            reach = (0.5 + 2.5 * random.random()) * zoom
            taps = random.standard_normal(xs.shape) * (np.hypot(xs, ys) <= reach)
            taps -= (taps.sum() - random.random()) * identity
            kernel = identity + strength * config.any_filter * taps
        else:
            kernel = identity
        bank.append((kernel / kernel.sum()).astype(np.float32))
    return np.stack(bank)


def _path(random: np.random.Generator, length: float, xs: Floats, ys: Floats) -> Floats:
    """The trace of a point that moves `length` pixels on a slightly bent line while the shutter is open."""
    angle, bend = random.random() * np.pi, (random.random() - 0.5) * 0.8
    along = np.linspace(-0.5, 0.5, 33) * min(length, 2 * REACH - 1)
    across = bend * (along**2 / max(length, 1) - length / 12)
    x = along * np.cos(angle) - across * np.sin(angle)
    y = along * np.sin(angle) + across * np.cos(angle)
    near = np.clip(1 - np.abs(xs[..., None] - x), 0, 1) * np.clip(1 - np.abs(ys[..., None] - y), 0, 1)
    trace: Floats = near.sum(-1).astype(np.float32)
    return trace


@cache
def _resamplers(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices by side and offset, (FACE_PX + 1, N_OFFSETS, size, size): to a grid of `side` pixels, and back.

    The grid begins `offset` pixels into the square, so that an encoder's blocks fall on any place of the face; what is
    outside repeats its edge. On the way back it is enlarged to FACE_PX first, as a model's input is.
    """
    down = torch.zeros(FACE_PX + 1, N_OFFSETS, size, size)
    down[0] = torch.eye(size)
    up = down.clone()
    enlarge = _triangle(FACE_PX, size)
    for side in range(1, min(FACE_PX, size) + 1):
        reduce, back = _triangle(size, side), enlarge @ _triangle(side, FACE_PX)
        for offset in range(N_OFFSETS):
            start = min(offset, size - side)
            place = (torch.arange(size) - start).clamp(0, side - 1)
            down[side, offset] = reduce[place]
            up[side, offset, :, start : start + side] = back
    return down, up


def _triangle(source: int, target: int) -> torch.Tensor:
    """The matrix (target, source) of a bilinear resize with antialias, as Pillow's is, without its rounding."""
    scale = source / target
    reach = max(scale, 1.0)
    centre = (torch.arange(target).view(-1, 1) + 0.5) * scale
    weights = (1 - ((torch.arange(source).view(1, -1) + 0.5) - centre).abs() / reach).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)
