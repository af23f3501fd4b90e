"""The live sources of the command line, watched by the same engine as `deepfer stream`; the newest frame of each is
kept, nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepfer_yolo.config import LabelConfig, StreamConfig
from deepfer_yolo.serve.schemas import LiveSource
from deepfer_yolo.serve.video import tracked_faces
from deepfer_yolo.stream.address import Address
from deepfer_yolo.stream.draw import draw_faces
from deepfer_yolo.stream.pipeline import Pipeline
from deepfer_yolo.stream.records import Output, Result, SourceSummary, State
from deepfer_yolo.stream.sinks.worker import Sink, SinkWorker

if TYPE_CHECKING:
    from deepfer_yolo.runtime.classifier import Classifier

PREVIEW_PX = 960
"""The longer side of a preview at most."""
JPEG_QUALITY = 80
LOG = logging.getLogger("deepfer.serve")


class NewestSink(Sink):
    """Keeps the newest result of each source, and why it is in its state."""

    wants = "images"
    depth = 4

    def __init__(self) -> None:
        super().__init__("page")
        self.newest: dict[str, tuple[Result, float]] = {}
        """By source: the result, and when it came (monotonic, seconds)."""
        self.reasons: dict[str, str] = {}

    def write(self, output: Output) -> None:
        """Take one output."""
        if output.result is not None:
            self.newest[output.result.frame.source] = output.result, time.monotonic()
        for record in output.records:
            if isinstance(record, State):
                self.reasons[record.source] = record.reason
                if record.state in ("lost", "failed"):
                    LOG.warning("source %s is %s: %s", record.source, record.state, record.reason)


class LiveBoard:
    """Runs the engine over the sources in a thread of its own, and tells their state."""

    def __init__(self, addresses: Sequence[Address], classifier: Classifier, faces: LabelConfig) -> None:
        self._addresses = list(addresses)
        self._sink = NewestSink()
        # Recordings play at their own speed, all at once.
        config = StreamConfig.of_faces(faces, policy="latest", jobs=min(1000, max(1, len(self._addresses))))
        self._pipeline = Pipeline(self._addresses, classifier, [SinkWorker(self._sink)], config)
        self._thread = threading.Thread(target=self._pipeline.run, name="live sources", daemon=True)

    @property
    def n_sources(self) -> int:
        """How many sources there are."""
        return len(self._addresses)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._pipeline.stop()
        self._thread.join(5.0)

    def rows(self) -> list[LiveSource]:
        """State, age, counters and faces of each source."""
        sources = zip(self._addresses, self._pipeline.summary().sources, strict=True)
        return [self._row(index, address, source) for index, (address, source) in enumerate(sources)]

    def _row(self, index: int, address: Address, source: SourceSummary) -> LiveSource:
        newest, came_s = self._sink.newest.get(source.source, (None, 0.0))
        reason = self._sink.reasons.get(source.source)
        age_ms = None
        if newest is not None and newest.age_ms is not None:
            # Of what is shown now: a source that is lost has an old frame, not a fast one.
            age_ms = round(newest.age_ms + 1000 * (time.monotonic() - came_s), 1)
        return LiveSource(
            index=index,
            name=_shown(address),
            state=source.state,
            reason=None if reason is None else reason.replace(address.name, _shown(address)),
            age_ms=age_ms,
            captured=source.counters.captured,
            processed=source.counters.processed,
            dropped=source.counters.dropped,
            reconnects=source.reconnects,
            faces=[] if newest is None or source.state != "live" else tracked_faces(newest),
        )

    def preview(self, index: int) -> bytes | None:
        """The newest frame of a source with its faces marked, as JPEG; None where there is none."""
        import cv2

        names = [address.name for address in self._addresses]
        found = self._sink.newest.get(names[index]) if 0 <= index < len(names) else None
        if found is None:
            return None
        image = draw_faces(found[0])
        scale = min(1.0, PREVIEW_PX / max(image.shape[:2]))
        if scale < 1:
            image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        is_written, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        return jpeg.tobytes() if is_written else None


def _shown(address: Address) -> str:
    """A source's name for strangers: no credentials, and of a file only the last part of its path."""
    return address.name if address.is_live else Path(address.name).name
