"""What an export tries: the ways to write a model in one format and precision, best first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Literal

from deepfer_yolo.export.graph import save
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.runtime.formats import Format

if TYPE_CHECKING:
    import onnx

    from deepfer_yolo.config import ExportConfig

Arithmetic = Literal["fp32", "fp16"]


@dataclass(frozen=True, slots=True)
class Request:
    """What a writer may need besides the graph.

    `avoid` are the SHA-256 of the evaluated images, `scratch` is a folder to work in.
    """

    checkpoint: Path
    card: Card
    config: ExportConfig
    data: Path | None
    avoid: frozenset[str]
    scratch: Path


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to write the model; `write` puts it (and its companion file) at the path it is given.

    `arithmetic` is what a file in fp16 calculates in; `producer` are facts for the card; `finish` is called with the
    proven file and its final card.
    """

    name: str
    precision: str
    write: Callable[[Path], None]
    arithmetic: Arithmetic | None = None
    producer: Mapping[str, str] = field(default_factory=dict)
    finish: Callable[[Path, Card], None] | None = None


def of_graph(
    name: str, precision: str, make: Callable[[], onnx.ModelProto], arithmetic: Arithmetic | None = None
) -> Candidate:
    """The candidate that is the ONNX graph which `make` returns."""
    return Candidate(name, precision, lambda path: save(make(), path), arithmetic)


def candidates(wanted: Format, graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    """The candidates of a format, by its own writer."""
    found: Iterator[Candidate] = resolve_name(wanted.writer)(graph, request)
    return found
