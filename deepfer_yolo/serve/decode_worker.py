"""The decode worker: a process of its own, with a memory limit, that turns the bytes of strangers into crops and faces.

Started by `pool.py` as `python -m deepfer_yolo.serve.decode_worker FD`, where FD is its end of a socket pair. It holds no
model: it answers `crops` and `look` requests with pixels, and during a `video` it asks the server for the probabilities
of its crops.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from io import BufferedRWPair
from pathlib import Path
from typing import Any

import numpy as np

from deepfer_yolo.config import FaceConfig
from deepfer_yolo.data.images import load_image
from deepfer_yolo.errors import DatasetError, ImageTooLargeError, SourceError
from deepfer_yolo.faces.align import crop_face
from deepfer_yolo.faces.detect import WholeDetector, open_detector
from deepfer_yolo.records import Crops, Face, Image, Probs
from deepfer_yolo.runtime.card import Card, parse_card
from deepfer_yolo.runtime.preprocess import to_input
from deepfer_yolo.serve.decode_pool import Message, pack, read
from deepfer_yolo.serve.schemas import TooLarge
from deepfer_yolo.serve.video import VideoRules, watch_video

PAGE_BYTES = resource.getpagesize()
TOO_LARGE, UNREADABLE = 413, 422
MAX_FACES = 64
"""Faces of one picture that are labelled, best score first."""


class Worker:
    """One process's state: the card's rules, the detectors and the connection."""

    def __init__(self, setup: dict[str, Any], file: BufferedRWPair) -> None:
        self._file = file
        self._card: Card = parse_card(setup["card"], "the server")
        self._max_pixels = int(setup["max_pixels"])
        self._video = VideoRules(**setup["video"])
        self._faces = FaceConfig(**setup["faces"])
        self._image_detector, self._camera_detector = (
            open_detector(self._faces, "image"),
            open_detector(self._faces, "video"),
        )

    def answer(self, message: Message) -> Message:
        """Do one task; what is wrong with the file becomes an `error` with an HTTP status."""
        try:
            return {"crops": self._crops, "look": self._look, "video": self._watch}[message.head["task"]](message)
        except (ImageTooLargeError, TooLarge) as error:
            return _refusal(TOO_LARGE, error.message)
        except (DatasetError, SourceError) as error:
            return _refusal(UNREADABLE, error.message)
        except MemoryError:
            return _refusal(TOO_LARGE, "needs more memory than a decode worker may use")

    def _crops(self, message: Message) -> Message:
        """Model inputs of one picture: of the faces in it, or of the whole picture."""
        image = self._load(message.blobs[0])
        if message.head["faces"]:
            faces = self._image_detector.detect(image)[:MAX_FACES]
            spec = self._card.crop if self._image_detector.boxes == "face" else None
            crops = [crop_face(image, face, spec, self._card.input) for face in faces]
        else:
            faces = WholeDetector().detect(image)
            crops = [to_input(image, self._card.input)]
        head = {"width": image.shape[1], "height": image.shape[0], "faces": [_plain(face) for face in faces]}
        return Message(head, (b"".join(crop.tobytes() for crop in crops),))

    def _look(self, message: Message) -> Message:
        """One image of a camera, decoded, its faces, and what may carry on a track."""
        image = self._load(message.blobs[0])
        faces = self._camera_detector.detect(image)[:MAX_FACES]
        head = {"shape": image.shape, "faces": [_plain(face) for face in faces], "boxes": self._camera_detector.boxes}
        return Message(head, (image.tobytes(),))

    def _watch(self, message: Message) -> Message:
        return Message({"video": watch_video(message.blobs[0], self, self._faces, self._video)})

    @property
    def card(self) -> Card:
        """The served model's card; with `predict` this makes the worker a `stream.pipeline.Model`."""
        return self._card

    def predict(self, crops: Crops) -> Probs:
        """Probabilities, float32 (n, C), asked of the server, which alone holds the model."""
        _send(self._file, Message({"n": len(crops)}, (crops.tobytes(),)))
        reply = read(self._file)
        if reply is None:
            sys.exit(0)
        return np.frombuffer(reply.blobs[0], np.float32).reshape(len(crops), len(self._card.labels))

    def _load(self, content: bytes) -> Image:
        return load_image(content, max_pixels=self._max_pixels)


def _refusal(status: int, message: str) -> Message:
    return Message({"error": message, "status": status})


def _plain(face: Face) -> dict[str, Any]:
    landmarks = None if face.landmarks is None else face.landmarks.tolist()
    return {"box": face.box.tolist(), "score": face.score, "landmarks": landmarks}


def _send(file: BufferedRWPair, message: Message) -> None:
    file.write(pack(message))
    file.flush()


def limit_process(memory_mb: int) -> None:
    """Allow this process `memory_mb` beyond what its libraries take already, no file of its own and no core dump."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE_BYTES
    limit = in_use + memory_mb * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Serve one connection to its end."""
    import cv2

    file = socket.socket(fileno=int(sys.argv[1])).makefile("rwb")
    os.environ.clear()
    cv2.setNumThreads(1)
    setup = read(file)
    if setup is None:
        return
    worker = Worker(setup.head, file)
    _warm_up(worker)
    limit_process(int(setup.head["memory_mb"]))
    _send(file, Message({"ready": os.getpid()}))
    while (message := read(file)) is not None:
        _send(file, worker.answer(message))


def _warm_up(worker: Worker) -> None:
    """Load what the first picture and video would load, so that the memory limit counts from there."""
    import io

    import av  # noqa: F401
    from PIL import Image as PillowImage

    PillowImage.init()
    for kind in ("PNG", "JPEG", "WEBP"):
        content = io.BytesIO()
        PillowImage.new("RGB", (64, 64)).save(content, kind)
        worker.answer(Message({"task": "crops", "faces": True}, (content.getvalue(),)))
    worker.answer(Message({"task": "look"}, (content.getvalue(),)))


if __name__ == "__main__":
    main()
