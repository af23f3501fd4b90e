"""How well a face can be seen, and what is too little of it for a label."""

from __future__ import annotations

import numpy as np

from deepfer_yolo.config import LabelConfig
from deepfer_yolo.records import Face, Image, Lack, Quality
from deepfer_yolo.runtime.preprocess import resize

SIDE = 48
"""The crop is measured at this side, so that the figures do not depend on the model's input. A smaller input stays as
it is: enlarged it would look blurred.
"""


def quality_of(face: Face, crop: Image) -> Quality:
    """The quality of a face whose crop is the model's input, uint8 (S, S, 3)."""
    left, top, right, bottom = face.box.tolist()
    side = min(SIDE, len(crop))
    grey = resize(np.ascontiguousarray(crop[:, :, 1]), side, side).astype(np.float32)
    variance = float(grey.var())
    steps = float(np.mean(np.diff(grey, axis=0) ** 2) + np.mean(np.diff(grey, axis=1) ** 2))
    # One grey value of noise at least: a single grey must not be sharp because it was rounded.
    sharpness = steps / max(variance, 1.0)
    return Quality(min(right - left, bottom - top), float(grey.mean()), variance**0.5, sharpness)


def lack_of(quality: Quality, config: LabelConfig) -> Lack | None:
    """What keeps a face from being labelled, the plainest reason first; None where it can be seen."""
    if quality.size_px < config.min_face_px:
        return "small"
    if quality.brightness < config.min_brightness:
        return "dark"
    if quality.contrast < config.min_contrast:
        return "flat"
    if quality.sharpness < config.min_sharpness:
        return "blurred"
    return "noisy" if quality.sharpness > config.max_sharpness else None
