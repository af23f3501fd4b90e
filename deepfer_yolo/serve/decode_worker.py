"""A decode worker: a process of its own, with a memory limit, that turns the bytes of strangers into crops and faces.

`decode_pool` starts it as `python -m deepfer_yolo.serve.decode_worker FD`, where FD is its end of a socket pair. It
holds no model: it answers `crops` and `image` tasks with pixels, and during a `video` it asks the server for the
probabilities of its crops.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepfer_yolo.data.images import load_image
from deepfer_yolo.errors import DatasetError, SourceError, lacking_live
from deepfer_yolo.faces.align import crop_faces
from deepfer_yolo.faces.detect import Detector, WholeDetector, open_detector
from deepfer_yolo.records import Crops, Image, Json, Probs
from deepfer_yolo.runtime.card import parse_card
from deepfer_yolo.runtime.child_process import Channel, Message, error_head
from deepfer_yolo.serve.decode_pool import Found
from deepfer_yolo.serve.video import label_video
from deepfer_yolo.servers import ServeConfig

if TYPE_CHECKING:
    from deepfer_yolo.runtime.child_process import Blob

PAGE_BYTES = resource.getpagesize()


class Worker:
    """One process's state: the card, the configuration, the detectors and the connection.

    With `card` and `predict` it is a `Model`.
    """

    def __init__(self, setup: Message, channel: Channel) -> None:
        self._channel = channel
        self.card = parse_card(setup.head["card"], "the server")
        self.config = ServeConfig.model_validate(setup.head["config"])
        self._image_detector = open_detector(self.config, "image")
        self._camera_detector = open_detector(self.config, "video")

    def answer(self, message: Message) -> tuple[Json, list[Blob]]:
        """Do one task, whose answer is a head and blobs; what is wrong with the file is an answer too."""
        task, content = message.head, message.blobs[0]
        try:
            if task["task"] == "video":
                return label_video(content, task["name"], self, self.config).model_dump(), []
            if task["task"] == "image":
                image, found = self._find(content, self._camera_detector)
                return found.to_json(), [image]
            detector = self._image_detector if task["faces"] else WholeDetector()
            image, found = self._find(content, detector)
            return found.to_json(), [crop_faces(image, found.faces, detector.boxes, self.card)]
        except (DatasetError, SourceError) as error:
            return error_head(error), []
        except MemoryError:
            limit = f"{self.config.worker_memory_mb} MB (worker_memory_mb)"
            return error_head(SourceError(f"decoding it takes more memory than the limit of {limit}")), []

    def _find(self, content: bytes, detector: Detector) -> tuple[Image, Found]:
        image = load_image(content, max_pixels=int(self.config.max_megapixels * 1e6))
        height, width = image.shape[:2]
        return image, Found(width, height, detector.detect(image))

    def predict(self, crops: Crops) -> Probs:
        """Probabilities, float32 (n, C), asked of the server, which alone holds the model."""
        if len(crops) == 0:
            return np.zeros((0, len(self.card.labels)), np.float32)
        self._channel.send({"n": len(crops)}, crops)
        reply = self._channel.receive()
        if reply is None:
            sys.exit(0)
        return np.frombuffer(reply.blobs[0], np.float32).reshape(len(crops), len(self.card.labels))


def limit_process(memory_mb: int) -> None:
    """Allow this process `memory_mb` beyond what its libraries take already, no file of its own and no core dump."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE_BYTES
    limit = in_use + memory_mb * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Serve one connection to its end."""
    file = socket.socket(fileno=int(sys.argv[1])).makefile("rwb")
    os.environ.clear()
    if lacking_live() is None:
        import cv2

        cv2.setNumThreads(1)
    channel = Channel(file, file)
    setup = channel.receive()
    if setup is None:
        return
    worker = Worker(setup, channel)
    _warm_up(worker)
    limit_process(worker.config.worker_memory_mb)
    channel.send({"ready": os.getpid()})
    while (message := channel.receive()) is not None:
        head, blobs = worker.answer(message)
        channel.send(head, *blobs)


def _warm_up(worker: Worker) -> None:
    """Load what the first image and video would load, so that the memory limit counts from there."""
    import io

    from PIL import Image as PillowImage

    if lacking_live() is None:
        import av  # noqa: F401

    PillowImage.init()
    for kind in ("PNG", "JPEG", "WEBP"):
        content = io.BytesIO()
        PillowImage.new("RGB", (64, 64)).save(content, kind)
        worker.answer(Message({"task": "crops", "faces": True}, (content.getvalue(),)))
    worker.answer(Message({"task": "image"}, (content.getvalue(),)))


if __name__ == "__main__":
    main()
