"""What a reader yields, and what it is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.problems import Problems


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One labelled picture of a source.

    `label` is as the source spells it, or canonical where it had a code. `split` is the official one, or empty. The picture is `pixels`
    (uint8, (H, W) or (H, W, 3)) or else the file `file`. `place` says where it stands, for error messages; `name` is a wish for the file name.
    `box` is the face, xyxy in pixels, where the picture is more than a face. `key` names the picture in quarantine lists; where it is empty,
    `source_id` does.
    """

    label: str
    split: str
    name: str
    place: str
    pixels: NDArray[np.uint8] | None = None
    file: Path | None = None
    source_id: str = ""
    subject: str = ""
    votes: str = ""
    box: tuple[float, float, float, float] | None = None
    key: str = ""


@dataclass(slots=True)
class Reading:
    """One pass over a source: where it is, what was found wrong, and how far it is (`fraction`, 0 to 1), what was left out and why.

    A reader may set `title`, `origin`, `licence` and `labels` (known besides the emotions) where the source states its own.
    """

    source: Path
    options: ConvertConfig = field(default_factory=ConvertConfig)
    problems: Problems = field(default_factory=Problems)
    fraction: float = 0.0
    title: str = ""
    origin: str = ""
    licence: str = ""
    labels: frozenset[str] = frozenset()
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Layout:
    """One known layout: its name for `--layout`, what it is, and its reader."""

    name: str
    title: str
    source: str
    licence: str
    matches: Callable[[Path], bool]
    read: Callable[[Reading], Iterator[Item]]
