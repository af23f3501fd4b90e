"""What the routes share: the model, the batcher, the decode workers, the counters and the live sources."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from deepfer_yolo.errors import lacking_live
from deepfer_yolo.faces.detect import WholeDetector, find_face_model, open_detector
from deepfer_yolo.faces.quality import lack_of, quality_of
from deepfer_yolo.faces.smooth import UNCERTAIN
from deepfer_yolo.records import Prediction
from deepfer_yolo.serve.batching import Batcher
from deepfer_yolo.serve.decode_pool import Found, Limit, Pool
from deepfer_yolo.serve.metrics import Metrics, resident_bytes
from deepfer_yolo.serve.middleware import Quota
from deepfer_yolo.serve.schemas import LabelledFace, Picture, ProblemError, Watched

if TYPE_CHECKING:
    from deepfer_yolo.records import Crops, Face, Json, Lack, Probs, Quality
    from deepfer_yolo.runtime.child_process import Message
    from deepfer_yolo.runtime.classifier import Classifier
    from deepfer_yolo.serve.live_sources import LiveBoard
    from deepfer_yolo.serve.upload import Upload
    from deepfer_yolo.servers import ServeConfig


class Services:
    """Everything that lives as long as the server."""

    def __init__(self, classifier: Classifier, config: ServeConfig, live: LiveBoard | None) -> None:
        self.classifier = classifier
        self.config = config
        self.live = live
        self.metrics = Metrics()
        n_videos = max(1, config.workers - 1)
        self.videos = Quota(n_videos, f"{n_videos} videos are under way already")
        self.cameras = Quota(config.max_cameras, f"{config.max_cameras} cameras are under way already")
        # Without the extra [live] images are labelled that are faces already, and nothing else is.
        self.lacking = lacking_live()
        # A wrong or missing detector file shows here, before a worker is started.
        detector = WholeDetector() if self.lacking and config.detector == "auto" else open_detector(config, "image")
        self.detector, self.boxes = detector.name, detector.boxes
        self.batcher = Batcher(classifier, config, self.metrics)
        self.pool = Pool(worker_setup(classifier, config, self.detector), config.workers, self.metrics)
        self.image_limit = Limit("decode_timeout_s", config.decode_timeout_s)
        self.video_limit = Limit("video_timeout_s", config.video_timeout_s)
        self.is_ready = False
        measure = self.metrics.measure
        measure("deepfer_ready", "1 when requests are answered.", lambda: self.is_ready)
        measure("deepfer_workers", "Decode workers that are up.", lambda: len(self.pool.pids))
        measure("deepfer_cameras", "Camera connections.", lambda: self.cameras.in_use)
        words = "Resident memory of all decode workers."
        measure("deepfer_worker_resident_memory_bytes", words, lambda: resident_bytes(self.pool.pids))

    async def start(self) -> None:
        """Start the workers, warm up the model, open the live sources."""
        await asyncio.gather(self.pool.start(), self.batcher.start())
        if self.live is not None:
            self.live.start()
        self.is_ready = True

    async def close(self) -> None:
        """Stop everything."""
        self.is_ready = False
        if self.live is not None:
            await asyncio.to_thread(self.live.close)
        await self.pool.close()
        await self.batcher.close()

    def check_live(self, what: str) -> None:
        """Raise ProblemError where `what` cannot be done here for want of the extra [live]."""
        if self.lacking is not None:
            raise ProblemError(501, f"{what} needs the extra [live], which this server was installed without")

    async def label_image(self, upload: Upload, *, faces: bool) -> Picture:
        """Size and labelled faces of one image. Raises ProblemError where it cannot be read."""
        if faces:
            self.check_live("finding faces")
        self.batcher.n_coming += 1
        try:
            task: Json = {"task": "crops", "faces": faces}
            reply = await self.pool.run(task, upload.content, limit=self.image_limit)
        finally:
            self.batcher.n_coming -= 1
        found = Found.of(reply)
        crops = self._crops(reply, len(found.faces))
        probs = await self.batcher.predict(crops)
        predictions = (Prediction(row, self.classifier.labels) for row in probs)
        rows = []
        for face, crop, prediction in zip(found.faces, crops, predictions, strict=True):
            quality = quality_of(face, crop) if faces else None
            rows.append(_labelled(face, prediction, quality, lack_of(quality, self.config) if quality else None))
        return Picture(name=upload.name, width=found.width, height=found.height, faces=rows)

    async def label_video(self, upload: Upload) -> Watched:
        """Frames and events of one video. Raises ProblemError where it cannot be read."""
        self.check_live("labelling videos")
        task = {"task": "video", "name": upload.name}
        with self.videos.hold():
            reply = await self.pool.run(task, upload.content, limit=self.video_limit, predict=self._predict)
        return Watched.model_validate(reply.head)

    async def _predict(self, asked: Message) -> Probs:
        return np.ascontiguousarray(await self.batcher.predict(self._crops(asked, int(asked.head["n"]))))

    def _crops(self, message: Message, n: int) -> Crops:
        """The crops that a worker sent. Raises ValueError where the bytes are not `n` of them."""
        size = self.classifier.card.input.size
        return np.frombuffer(message.blobs[0], np.uint8).reshape(n, size, size, 3)


def worker_setup(classifier: Classifier, config: ServeConfig, detector: str) -> Json:
    """What a decode worker is told at its start: with the detector that was chosen and its file, which it could not
    find without an environment, and without the token.
    """
    face_model = find_face_model(config.face_model) if detector == "yunet" else None
    file = None if face_model is None else face_model.resolve()
    told = config.model_copy(update={"detector": detector, "face_model": file, "token": None})
    return {"card": classifier.card.to_json(), "config": told.model_dump(mode="json")}


def _labelled(face: Face, prediction: Prediction, quality: Quality | None, lack: Lack | None) -> LabelledFace:
    """One face for JSON. Its probabilities are exact: a float32 survives the way to a decimal fraction and back."""
    return LabelledFace(
        box=[round(v, 2) for v in face.box.tolist()],
        score=round(face.score, 4),
        label=UNCERTAIN if lack else prediction.label,
        confidence=prediction.confidence,
        probs=dict(zip(prediction.labels, prediction.probs.tolist(), strict=True)),
        reason=lack,
        **(asdict(quality) if quality else {}),
    )
