"""TODO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deepfer_yolo.config import ExportConfig
from deepfer_yolo.runtime.card import Card

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class Request:
    """What a writer may need besides the graph.

    `avoid` are the SHA-256 of the evaluated pictures, `scratch` a folder to work in.
    """

    checkpoint: Path
    card: Card
    config: ExportConfig
    data: Path | None
    avoid: frozenset[str]
    scratch: Path


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to write the model; `write` puts it (and its companion file) at the path it is given."""

    name: str
    precision: str
    write: Callable[[Path], None]
