"""A camera over a WebSocket: one JPEG in, its faces out, one picture at a time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.faces.track import Tracked
from deepfer_yolo.records import Crops, Face, Frame, Image
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.serve.decode_pool import Message
from deepfer_yolo.serve.schemas import Problem
from deepfer_yolo.serve.services import Services
from deepfer_yolo.serve.video import shortened
from deepfer_yolo.stream.records import Result
from deepfer_yolo.stream.scene import Scene

IDLE_S = 60.0
"""A camera that sends nothing for so long is disconnected."""
MAX_BAD = 10
"""After so many unreadable pictures in a row the sender is no camera."""
UNSUPPORTED, GOING_AWAY, TRY_LATER = 1003, 1001, 1013


class SeenFaces:
    """A detector whose faces were found in a decode worker already."""

    name = "seen"

    def __init__(self, boxes: Any) -> None:
        self.boxes = boxes
        self.faces: list[Face] = []

    def detect(self, image: Image) -> list[Face]:
        """The faces of the picture under way."""
        return self.faces


class CameraScene:
    """The faces of one camera over time; the same scene that `deepfer stream` uses."""

    def __init__(self, card: Card, config: StreamConfig) -> None:
        self._card = card
        self._config = config
        self._began = time.monotonic()
        self._seen: SeenFaces | None = None
        self._scene: Scene | None = None
        self._index = 0

    def look(self, reply: Message) -> tuple[Frame, list[Tracked], Crops]:
        """Follow the faces that a decode worker found in one picture, and cut them out."""
        height, width, _ = (int(v) for v in reply.head["shape"])
        image = np.frombuffer(reply.blobs[0], np.uint8).reshape(height, width, 3)
        if self._seen is None or self._scene is None:
            self._seen = SeenFaces(reply.head["boxes"])
            self._scene = Scene(self._seen, self._card, self._config)
        self._seen.faces = [_face(row) for row in reply.head["faces"]]
        frame = Frame(self._index, time.monotonic() - self._began, "arrival", image, "camera")
        self._index += 1
        tracked = self._scene.find(frame)
        return frame, tracked, self._scene.crops(image, tracked)

    def conclude(self, frame: Frame, tracked: list[Tracked], crops: Any, probs: Any) -> Result:
        """Smooth what the model says."""
        if self._scene is None:
            raise RuntimeError("conclude before look")
        return self._scene.conclude(frame, tracked, crops, probs)


async def serve_camera(websocket: WebSocket, services: Services) -> None:
    """Answer the pictures of one camera until it leaves."""
    try:
        # A browser shows a page why a connection was closed, but not why it was refused.
        await websocket.accept()
        with services.cameras.hold():
            await _answer_all(websocket, services)
    except Problem as problem:
        await websocket.close(TRY_LATER, problem.detail)
    except WebSocketDisconnect:
        pass


async def _answer_all(websocket: WebSocket, services: Services) -> None:
    scene = CameraScene(services.classifier.card, StreamConfig.of_faces(services.config))
    n_bad = 0
    while True:
        try:
            async with asyncio.timeout(IDLE_S):
                message = await websocket.receive()
        except TimeoutError:
            await websocket.close(GOING_AWAY, "no picture for a minute")
            return
        if message["type"] == "websocket.disconnect":
            return
        content = message.get("bytes")
        if content is None:
            await websocket.close(UNSUPPORTED, "send pictures as binary messages")
            return
        try:
            await websocket.send_json(await _answer(content, scene, services))
            n_bad = 0
        except Problem as problem:
            n_bad += 1
            if n_bad >= MAX_BAD:
                await websocket.close(UNSUPPORTED, "these are not pictures")
                return
            await websocket.send_json({"error": problem.detail})


async def _answer(content: bytes, scene: CameraScene, services: Services) -> dict[str, Any]:
    began = time.perf_counter()
    reply = await services.pool.run(Message({"task": "look"}, (content,)), timeout_s=services.config.decode_timeout_s)
    looked = time.perf_counter()
    frame, tracked, crops = await asyncio.to_thread(scene.look, reply)
    result = scene.conclude(frame, tracked, crops, await services.batcher.predict(crops))
    height, width = frame.image.shape[:2]
    return {
        "index": frame.index,
        "time_s": round(frame.time_s, 3),
        "width": width,
        "height": height,
        "faces": [shortened(track) for track in result.tracks],
        "find_ms": round(1000 * (looked - began), 1),
        "label_ms": round(1000 * (time.perf_counter() - looked), 1),
    }


def _face(row: dict[str, Any]) -> Face:
    landmarks = None if row["landmarks"] is None else np.array(row["landmarks"], np.float32)
    return Face(np.array(row["box"], np.float32), float(row["score"]), landmarks)
