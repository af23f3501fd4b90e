"""What a worker of a cluster does: the model opened once, then rows of items, exactly as one process makes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from deepfer_yolo.config import AuditConfig, EvaluateConfig, PredictConfig, StreamConfig
from deepfer_yolo.data.audit.parts import checks_with, seen_of
from deepfer_yolo.data.dataset import Dataset, Row
from deepfer_yolo.data.layouts.boxes import Box
from deepfer_yolo.data.layouts.item import Item
from deepfer_yolo.evaluate.predictions import model_probs
from deepfer_yolo.faces.detect import open_detector
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.stream.address import Address
from deepfer_yolo.stream.batch import label_images
from deepfer_yolo.stream.parts import Named, found_in
from deepfer_yolo.stream.recordings import read_recording

OpenModel = Callable[[], Classifier]
Found = dict[str, Any]


class Task(Protocol):
    """One kind of work; travels to the workers, where it opens what it needs."""

    what: ClassVar[str] = "images"
    """What its items are called."""
    most: ClassVar[int] = 2048
    """How many of them a worker takes at a time, at most: a lost block costs a second or, of large photos, minutes."""

    def start(self) -> None:
        """Open the model: once a worker."""
        ...

    def look(self, items: Sequence[dict[str, Any]]) -> Iterable[Found]:
        """What is found of some items, in their order."""
        ...

    def schema(self) -> Any:
        """The columns of the rows, besides `index`."""
        ...


@dataclass(slots=True)
class PredictTask(Task):
    """`deepfer predict`: items have `path`."""

    open_model: OpenModel
    config: PredictConfig
    classifier: Classifier | None = None

    def start(self) -> None:
        """Open the model."""
        self.classifier = self.open_model()
        self.config = self.config.model_copy(update={"workers": 0})  # a worker is one processor: no threads beside it

    def look(self, items: Sequence[dict[str, Any]]) -> Iterator[Found]:
        """A row an image: the label and probability of its first face, and all of it under `rows`."""
        assert self.classifier is not None
        rows = list(label_images((Path(item["path"]) for item in items), self.classifier, self.config))
        firsts = {row.index: row for row in reversed(rows)}
        for found in found_in(rows):
            first = firsts[found["index"]]
            confidence = None if first.prediction is None else first.prediction.confidence
            yield {
                "path": items[found["index"]]["path"],
                "label": first.label,
                "confidence": confidence,
                "error": first.error,
                "rows": found["rows"],
            }

    def schema(self) -> Any:
        """Path, label, confidence, error, and the rows of `predict`."""
        import pyarrow as pa

        numbers = pa.list_(pa.float32())
        face = pa.struct({"box": numbers, "score": pa.float64(), "landmarks": pa.list_(numbers)})
        quality = pa.struct(dict.fromkeys(("size_px", "brightness", "contrast", "sharpness"), pa.float64()))
        kinds = {"error": pa.string(), "probs": numbers, "face": face, "quality": quality, "lack": pa.string()}
        text = {"path": pa.string(), "label": pa.string(), "confidence": pa.float32(), "error": pa.string()}
        return text | {"rows": pa.list_(pa.struct(kinds))}


@dataclass(slots=True)
class EvaluateTask(Task):
    """`deepfer evaluate`: items have `path` in the data set and `sha256`."""

    open_model: OpenModel
    root: Path
    config: EvaluateConfig
    classifier: Classifier | None = None

    def start(self) -> None:
        """Open the model."""
        self.classifier = self.open_model()

    def look(self, items: Sequence[dict[str, Any]]) -> Iterator[Found]:
        """The probabilities of each image."""
        assert self.classifier is not None
        rows = [Row(item["path"], "", "", sha256=item["sha256"]) for item in items]
        dataset = Dataset(self.root, "", (), "", ())
        flip = self.config.tta == "flip"
        config = self.config.model_copy(update={"workers": 0})
        for item, probs in zip(items, model_probs(self.classifier, dataset, rows, config, flip=flip), strict=True):
            yield {"path": item["path"], "probs": probs.tolist()}

    def schema(self) -> Any:
        """Path and probabilities."""
        import pyarrow as pa

        return {"path": pa.string(), "probs": pa.list_(pa.float32())}


@dataclass(slots=True)
class AuditTask(Task):
    """`deepfer audit`: items have `key`, and `file` (perhaps with `box`), `content`, or `pixels` with `shape`."""

    open_model: OpenModel | None
    config: AuditConfig
    with_faces: bool
    opened: list[Any] = field(default_factory=list)

    def start(self) -> None:
        """Open model and detector."""
        model = None if self.open_model is None else self.open_model()
        self.opened = [model, open_detector(self.config, "image") if self.with_faces else None]

    def look(self, items: Sequence[dict[str, Any]]) -> Iterator[Found]:
        """What is kept of each image."""
        for found in seen_of(map(item_again, items), checks_with(*self.opened)):
            if "notes" in found:
                found["notes"] = json.dumps(found["notes"])
            yield found

    def schema(self) -> Any:
        """What `audit_part` writes, the notes as JSON."""
        import pyarrow as pa

        text = dict.fromkeys(("key", "error", "pixels", "thumb", "notes"), pa.string())
        light = dict.fromkeys(("brightness", "contrast", "sharpness", "entropy"), pa.float64())
        return text | dict.fromkeys(("width", "height"), pa.int64()) | light


@dataclass(slots=True)
class RecordingTask(Task):
    """`deepfer stream` of files: items have `name` and `path`."""

    what: ClassVar[str] = "recordings"
    most: ClassVar[int] = 1

    open_model: OpenModel
    config: StreamConfig
    classifier: Classifier | None = None

    def start(self) -> None:
        """Open the model."""
        self.classifier = self.open_model()

    def look(self, items: Sequence[dict[str, Any]]) -> Iterator[Found]:
        """The records of each recording, and how it ended."""
        assert self.classifier is not None
        for item in items:
            yield read_recording(Address(item["name"], "file", item["path"]), self.classifier, self.config)

    def schema(self) -> Any:
        """What `read_recording` keeps."""
        import pyarrow as pa

        text = dict.fromkeys(("source", "state", "error"), pa.string())
        counts = dict.fromkeys(("images", "faces"), pa.int64())
        return text | counts | {"records": pa.large_list(pa.large_string())}


def predict_items(images: Named) -> dict[str, list[Any]]:
    """The columns of the items of a `PredictTask`."""
    return {"path": [str(path.absolute()) for _, path in images]}


def evaluate_items(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The columns of the items of an `EvaluateTask`."""
    return {"path": [row.path for row in rows], "sha256": [row.sha256 for row in rows]}


def recording_items(recordings: Sequence[Address]) -> dict[str, list[Any]]:
    """The columns of the items of a `RecordingTask`."""
    return {
        "name": [recording.name for recording in recordings],
        "path": [str(Path(recording.target).absolute()) for recording in recordings],
    }


def audit_items(items: Iterable[Item]) -> dict[str, list[Any]]:
    """The columns of the items of an `AuditTask`; images that are no files of their own travel whole."""
    columns: dict[str, list[Any]] = {name: [] for name in ("key", "file", "box", "content", "pixels", "shape")}
    for item in items:
        columns["key"].append(item.key)
        columns["file"].append(None if item.file is None else str(item.file.absolute()))
        columns["box"].append(None if item.box is None else json.dumps(astuple(item.box)))
        columns["content"].append(item.content)
        columns["pixels"].append(None if item.pixels is None else item.pixels.tobytes())
        columns["shape"].append(None if item.pixels is None else [*item.pixels.shape])
    return columns


def item_again(columns: dict[str, Any]) -> Item:
    """The item of a row of `audit_items`, without what only its reader needs."""
    pixels = columns["pixels"]
    return Item(
        "", "", "", columns["key"],
        pixels=None if pixels is None else np.frombuffer(pixels, np.uint8).reshape(columns["shape"]),
        content=columns["content"],
        file=None if columns["file"] is None else Path(columns["file"]),
        box=None if columns["box"] is None else _box(*json.loads(columns["box"])),
        listed_as=columns["key"],
    )  # fmt: skip


def _box(x1: float, y1: float, x2: float, y2: float, is_share: bool, size: list[int] | None) -> Box:
    return Box(x1, y1, x2, y2, is_share, None if size is None else (size[0], size[1]))
