"""What the routes share: the model, the batcher, the decode workers, the counters and the live sources."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np

from deepfer_yolo.config import FaceConfig
from deepfer_yolo.faces.detect import find_face_model, open_detector
from deepfer_yolo.records import Crops, Prediction
from deepfer_yolo.serve.batching import Batcher
from deepfer_yolo.serve.decode_pool import Message, Pool
from deepfer_yolo.serve.metrics import Metrics, resident_bytes
from deepfer_yolo.serve.middleware import Budget, Rate, Slots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deepfer_yolo.config import ServeConfig
    from deepfer_yolo.runtime.classifier import Classifier
    from deepfer_yolo.serve.live_sources import LiveBoard


class Services:
    """Everything that lives as long as the server."""

    def __init__(self, classifier: Classifier, config: ServeConfig, live: LiveBoard | None) -> None:
        self.classifier = classifier
        self.config = config
        self.live = live
        self.metrics = Metrics()
        self.rate = Rate(config.rate_per_s, config.burst)
        self.uploads = Slots(config.max_uploads, "uploads")
        self.videos = Slots(max(1, config.workers - 1), "videos")
        self.cameras = Slots(config.max_cameras, "cameras")
        self.budget = Budget(int(config.max_memory_mb * 1e6))
        # A wrong or missing detector file shows here, before a worker is started.
        self.detector = open_detector(config, "image").name
        self.batcher = Batcher(classifier, self.metrics, max_batch=config.max_batch, max_wait_ms=config.max_wait_ms)
        self.pool = Pool(setup_of(classifier, config, self.detector), config.workers)
        self.is_ready = False

    async def start(self) -> None:
        """Start the workers, warm up the model, open the live sources."""
        await asyncio.gather(self.pool.start(), self.batcher.start())
        if self.live is not None:
            self.live.start(self.classifier)
        self.is_ready = True

    async def close(self) -> None:
        """Stop everything."""
        self.is_ready = False
        if self.live is not None:
            await asyncio.to_thread(self.live.close)
        await self.pool.close()
        await self.batcher.close()

    async def label_picture(self, content: bytes, *, faces: bool) -> dict[str, Any]:
        """Width, height and labelled faces of one picture. Raises Problem where it cannot be read."""
        self.batcher.n_coming += 1
        try:
            task = Message({"task": "crops", "faces": faces}, (content,))
            reply = await self.pool.run(task, timeout_s=self.config.decode_timeout_s)
        finally:
            self.batcher.n_coming -= 1
        found = reply.head["faces"]
        probs = await self.batcher.predict(self.crops_of(reply, len(found)))
        labels = self.classifier.labels
        rows = [_face_row(face, Prediction(row, labels)) for face, row in zip(found, probs, strict=True)]
        return {"width": reply.head["width"], "height": reply.head["height"], "faces": rows}

    async def label_video(self, content: bytes) -> dict[str, Any]:
        """Frames and events of one video. Raises Problem where it cannot be read."""
        task = Message({"task": "video"}, (content,))
        with self.videos.hold():
            reply = await self.pool.run(task, timeout_s=self.config.video_timeout_s, answer=self._answer_crops)
        video: dict[str, Any] = reply.head["video"]
        return video

    async def _answer_crops(self, asked: Message) -> Message:
        probs = await self.batcher.predict(self.crops_of(asked, int(asked.head["n"])))
        return Message({}, (np.ascontiguousarray(probs).tobytes(),))

    def crops_of(self, message: Message, n: int) -> Crops:
        """The crops that a worker sent. Raises ValueError where the bytes are not `n` of them."""
        size = self.classifier.card.input.size
        return np.frombuffer(message.blobs[0], np.uint8).reshape(n, size, size, 3)

    def gauges(self) -> dict[str, tuple[str, float]]:
        """What is measured now, for /metrics."""
        return {
            "deepfer_ready": ("1 when requests are answered.", float(self.is_ready)),
            "deepfer_workers": ("Decode workers that are up.", self.pool.n_alive),
            "deepfer_worker_crashes_total": ("Decode workers that died in a request.", self.pool.n_crashes),
            "deepfer_worker_timeouts_total": (
                "Decode workers that were ended for taking too long.",
                self.pool.n_timeouts,
            ),
            "deepfer_uploads_in_flight": ("Uploads under way.", self.uploads.in_use),
            "deepfer_upload_bytes_in_flight": ("Bytes that uploads under way hold.", self.budget.in_use),
            "deepfer_cameras": ("Camera connections.", self.cameras.in_use),
            "process_resident_memory_bytes": ("Resident memory of the server.", resident_bytes()),
            "deepfer_worker_resident_memory_bytes": (
                "Resident memory of all decode workers.",
                sum(map(resident_bytes, self.pool.pids)),
            ),
        }


def setup_of(classifier: Classifier, config: ServeConfig, detector: str) -> dict[str, Any]:
    """What a decode worker is told at its start: with the detector that was chosen and its file, which it could not
    find without an environment.
    """
    pixels = int(config.max_megapixels * 1e6)
    face_model = find_face_model(config.face_model) if detector == "yunet" else None
    file = None if face_model is None else str(face_model.resolve())
    return {
        "card": classifier.card.to_json(),
        "faces": config.model_dump(include=set(FaceConfig.model_fields)) | {"detector": detector, "face_model": file},
        "max_pixels": pixels,
        "memory_mb": config.worker_memory_mb,
        "video": {"max_s": config.max_video_s, "max_pixels": min(pixels, 9_000_000), "fps": config.video_fps},
    }


def _face_row(face: Mapping[str, Any], prediction: Prediction) -> dict[str, Any]:
    """One face for JSON; the probabilities are exact, a float32 survives the way through a decimal fraction and back."""
    values: Sequence[float] = prediction.probs.tolist()
    return {
        "box": [round(v, 2) for v in face["box"]],
        "score": round(face["score"], 4),
        "label": prediction.label,
        "confidence": prediction.confidence,
        "probs": dict(zip(prediction.labels, values, strict=True)),
    }
