"""Changes that stand for no camera in particular: any curve of tones, any texture, any part hidden.

After PRIME (Modas et al., 2022, arXiv:2112.13547): what was never simulated is met best by a network that has seen
changes drawn as freely as can be. As in augment.py everything follows from seed, epoch and the image's index.
"""

from __future__ import annotations

import numpy as np
import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.recipe import TrainConfig

_STREAM, _TONE_STREAM, _TEXTURE_STREAM = 8, 9, 10
N_TONES, N_TEXTURES = 256, 192
N_WAVES = 8
"""Half waves across the range of values, of which a curve of tones is made."""


class PrimitiveDraws:
    """What each image of one epoch gets, and the banks of curves and textures that the images share."""

    def __init__(self, config: TrainConfig, n: int, epoch: int) -> None:
        self.config, self.seed = config, [config.seed, epoch]
        random = np.random.Generator(np.random.PCG64([*self.seed, _STREAM]))

        def upto(value: float) -> torch.Tensor:
            strength = random.random(n, dtype=np.float32) * value
            return torch.from_numpy((strength * (random.random(n) < config.stage_chance)).astype(np.float32))

        self.texture, self.hidden, self.tone = upto(config.texture), upto(config.hidden), upto(config.tone_curve)
        fields = random.integers(0, N_TEXTURES, (3, n))
        self.field, self.hiding, self.within = torch.from_numpy(fields)
        self.curve = torch.from_numpy(random.integers(0, N_TONES, n))
        grey, rough = random.random((2, n), dtype=np.float32)
        self.grey, self.rough = torch.from_numpy(grey), torch.from_numpy(rough * 0.3)
        self._textures: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._curves: torch.Tensor | None = None

    def to(self, device: torch.device) -> PrimitiveDraws:
        """Everything on `device`, once an epoch."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value.to(device))
        return self

    def curves(self) -> torch.Tensor:
        """What each curve adds to the values 0 to 255, (N_TONES, 256), each of mean square 1."""
        if self._curves is None:
            random = np.random.Generator(np.random.PCG64([*self.seed, _TONE_STREAM]))
            waves = np.sin(np.pi * np.arange(1, N_WAVES + 1)[:, None] * np.linspace(0, 1, 256))
            highest = random.integers(1, N_WAVES + 1, (N_TONES, 1))
            weights = random.standard_normal((N_TONES, N_WAVES)) * (np.arange(N_WAVES) < highest)
            curves = weights @ waves
            curves /= np.sqrt((curves**2).mean(1, keepdims=True))
            self._curves = torch.from_numpy(curves.astype(np.float32)).to(self.tone.device)
        return self._curves

    def textures(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Fields of mean 0 and deviation 1, (N_TEXTURES, 1, size, size), and the rank of each place in its own, 0..1.

        Noise whose spectrum falls by a power of the frequency that each field has for itself, longer in one direction.
        """
        if size not in self._textures:
            random = np.random.Generator(np.random.PCG64([*self.seed, _TEXTURE_STREAM]))
            fx, fy = np.meshgrid(np.fft.rfftfreq(size), np.fft.fftfreq(size))
            fields = []
            for _ in range(N_TEXTURES):
                angle, longer, power = random.random() * np.pi, np.exp(random.random() * 1.5), random.random() * 3
                along, across = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
                frequency = np.hypot(along * longer, across / longer) + 1 / size
                white = np.fft.rfft2(random.standard_normal((size, size)))
                field = np.fft.irfft2(white * frequency**-power, s=(size, size))
                fields.append((field - field.mean()) / field.std())
            textures = np.stack(fields).astype(np.float32)
            ranks = textures.reshape(N_TEXTURES, -1).argsort(1).argsort(1).astype(np.float32) / size**2
            shape, device = (N_TEXTURES, 1, size, size), self.tone.device
            self._textures[size] = (
                torch.from_numpy(textures).view(shape).to(device),
                torch.from_numpy(ranks).view(shape).to(device),
            )
        return self._textures[size]


def disturb(images: torch.Tensor, draws: PrimitiveDraws, index: torch.Tensor) -> torch.Tensor:
    """`images`, float (b, c, S, S) in 0..1, each with its texture, its hidden part and its curve of tones."""
    config, out = draws.config, images
    if config.texture:
        textures, _ = draws.textures(images.shape[-1])
        out = (out + column(draws.texture[index]) * textures[draws.field[index]]).clamp(0, 1)
    if config.hidden:
        textures, ranks = draws.textures(images.shape[-1])
        within = column(draws.grey[index]) + column(draws.rough[index]) * textures[draws.within[index]]
        out = torch.where(ranks[draws.hiding[index]] < column(draws.hidden[index]), within.clamp(0, 1), out)
    if config.tone_curve:
        place = (out * 255).round().long() + 256 * column(draws.curve[index])
        added = draws.curves().view(-1)[place] * column(draws.tone[index])
        out = (out + added).clamp(0, 1)
    return out


def column(values: torch.Tensor) -> torch.Tensor:
    """One value an image, (b,), to be used with images (b, c, S, S)."""
    return values.view(-1, 1, 1, 1)
