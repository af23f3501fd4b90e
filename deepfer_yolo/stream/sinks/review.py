"""The sink that keeps faces whose label the model was unsure of, so that a person can say what they show."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.data.dataset import Row
from deepfer_yolo.data.images import encode_png
from deepfer_yolo.data.kept_faces import MAX_IMAGES, KeptFaces, kept_faces, refuse_other
from deepfer_yolo.errors import ConfigError, DeepferError
from deepfer_yolo.faces.align import native_crop
from deepfer_yolo.records import Image
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.runtime.preprocess import resize
from deepfer_yolo.stream.address import slugs
from deepfer_yolo.stream.records import Result
from deepfer_yolo.stream.sinks.images import REMEMBERED, SNAPSHOT_GAP_S, ImageSink

SAVE_S = 5.0
"""After so long without a face the manifest is written."""
MAX_SIDE_PX = 256
"""What a person needs to see; larger crops are reduced."""


class ReviewSink(ImageSink):
    """At most `review_crops` crops of a track whose label is uncertain though the face can be seen well, none within a
    second of another; see `data/kept_faces.py`.
    """

    def __init__(self, target: str, sources: Sequence[str], card: Card, config: StreamConfig) -> None:
        super().__init__(f"review={target}", config)
        if config.anonymise:
            raise ConfigError(
                "--sink review keeps faces that a person must recognise the expression of, and --anonymise hides them",
                "leave one of them out",
            )
        self.folder: Path = Path(target)
        refuse_other(self.folder)
        self._card = card
        self._slugs = slugs(sources)
        self._stack = ExitStack()
        self._kept: KeptFaces | None = None
        self._taken: dict[tuple[str, int, int], tuple[int, float]] = {}
        self._is_told = False

    def open(self) -> None:
        """Open the folder, and remove what has been kept long enough."""
        now = datetime.now(UTC)
        opened = kept_faces(self.folder, self._card.labels, self._config.keep_days, now)
        try:
            self._kept = self._stack.enter_context(opened)
        except BlockingIOError as error:
            raise DeepferError(str(error.strerror), "wait for it, or name another folder") from None

    def take(self, result: Result) -> None:
        """Keep the faces of a frame that no label is sure of."""
        assert self._kept is not None
        frame, rule = result.frame, self._card.crop if result.boxes == "face" else None
        for track in result.tracks:
            if track.reason != "low confidence":
                continue
            key = (frame.source, result.epoch, track.id)
            n, kept_s = self._taken.pop(key, (0, float("-inf")))
            is_due = n < self._config.review_crops and frame.time_s - kept_s >= SNAPSHOT_GAP_S
            if is_due and not self._is_full(self._kept):
                who = f"{self._slugs[frame.source]}-{result.epoch}"
                image, subject = f"{who}-{frame.index:06d}", f"{self.run}-{who}-{track.id}"
                row = Row("", "", track.raw.label, f"{image}#{track.id}", subject)
                content = encode_png(_reduced(native_crop(frame.image, track.face, rule)))
                self._kept.add(content, row, f"{image}-{track.id}", datetime.now(UTC))
                n, kept_s = n + 1, frame.time_s
            self._taken[key] = (n, kept_s)
            if len(self._taken) > REMEMBERED:
                del self._taken[next(iter(self._taken))]

    def idle_s(self) -> float | None:
        """Faces that are not in the manifest yet do not wait long."""
        return None if self._kept is None or self._kept.is_saved else SAVE_S

    def idle(self) -> None:
        """Write the manifest."""
        if self._kept is not None:
            self._kept.save()

    def end(self, source: str) -> None:
        """Write the manifest."""
        self.idle()

    def close(self) -> None:
        """Write the manifest, and let the folder go."""
        self._stack.close()

    def _is_full(self, kept: KeptFaces) -> bool:
        if kept.is_full and not self._is_told:
            self._is_told = True
            self.report(f"{self.folder} holds {MAX_IMAGES:,} faces and takes no more; review them")
        return kept.is_full


def _reduced(image: Image) -> Image:
    height, width = image.shape[:2]
    scale = min(1.0, MAX_SIDE_PX / max(height, width))
    return resize(image, max(1, round(width * scale)), max(1, round(height * scale)))
