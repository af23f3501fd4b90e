"""A camera over a WebSocket: one JPEG in, its faces out, one image at a time."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.faces.track import Tracked
from deepfer_yolo.records import Crops, Face, Frame, Image
from deepfer_yolo.serve.decode_pool import Found
from deepfer_yolo.serve.schemas import CameraAnswer, ProblemError
from deepfer_yolo.serve.services import Services
from deepfer_yolo.serve.video import tracked_faces
from deepfer_yolo.stream.records import Result
from deepfer_yolo.stream.scene import Scene

IDLE_S = 60.0
"""A camera that sends nothing for so long is disconnected."""
MAX_BAD = 10
"""After so many unreadable images in a row the sender is no camera."""
UNSUPPORTED, GOING_AWAY, TRY_LATER = 1003, 1001, 1013


class FoundFaces:
    """A detector whose faces were found in a decode worker already."""

    name = "found"

    def __init__(self, boxes: Literal["face", "crop"]) -> None:
        self.boxes = boxes
        self.faces: list[Face] = []

    def detect(self, image: Image) -> list[Face]:
        """The faces of the image under way."""
        return self.faces


class Camera:
    """The faces of one camera over time; the same scene that `deepfer stream` uses."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._began = time.monotonic()
        self._detector = FoundFaces(services.boxes)
        self._scene = Scene(self._detector, services.classifier.card, StreamConfig.of_faces(services.config))
        self._index = 0

    async def answer(self, content: bytes) -> CameraAnswer:
        """The faces of the next image. Raises ProblemError where it cannot be read."""
        services, began = self._services, time.perf_counter()
        reply = await services.pool.run({"task": "image"}, content, limit=services.image_limit)
        found_s = time.perf_counter()
        result = await self._label(Found.of(reply), reply.blobs[0])
        height, width = result.frame.image.shape[:2]
        return CameraAnswer(
            index=result.frame.index,
            time_s=round(result.frame.time_s, 3),
            width=width,
            height=height,
            faces=tracked_faces(result),
            find_ms=round(1000 * (found_s - began), 1),
            label_ms=round(1000 * (time.perf_counter() - found_s), 1),
        )

    async def _label(self, found: Found, pixels: bytes) -> Result:
        """Follow, cut out, infer and smooth the faces that a decode worker found in one image."""
        image = np.frombuffer(pixels, np.uint8).reshape(found.height, found.width, 3)
        self._detector.faces = found.faces
        frame = Frame(self._index, time.monotonic() - self._began, "arrival", image, "camera")
        self._index += 1

        def look() -> tuple[list[Tracked], Crops]:
            tracked = self._scene.find(frame)
            return tracked, self._scene.crops(image, tracked)

        tracked, crops = await asyncio.to_thread(look)
        return self._scene.conclude(frame, tracked, crops, await self._services.batcher.predict(crops))


async def serve_camera(websocket: WebSocket, services: Services) -> None:
    """Answer the images of one camera until it leaves."""
    try:
        # A browser shows a page why a connection was closed, but not why it was refused.
        await websocket.accept()
        services.check_live("labelling a camera's images")
        with services.cameras.hold():
            await _answer_all(websocket, services)
    except ProblemError as problem:
        await websocket.close(TRY_LATER, problem.detail)
    except WebSocketDisconnect:
        pass


async def _answer_all(websocket: WebSocket, services: Services) -> None:
    camera = Camera(services)
    n_bad = 0
    while True:
        try:
            async with asyncio.timeout(IDLE_S):
                message = await websocket.receive()
        except TimeoutError:
            await websocket.close(GOING_AWAY, "no image for a minute")
            return
        if message["type"] == "websocket.disconnect":
            return
        content = message.get("bytes")
        if content is None:
            await websocket.close(UNSUPPORTED, "send images as binary messages")
            return
        try:
            await websocket.send_text((await camera.answer(content)).model_dump_json())
            n_bad = 0
        except ProblemError as problem:
            n_bad += 1
            if n_bad >= MAX_BAD:
                await websocket.close(UNSUPPORTED, "these are not images")
                return
            await websocket.send_json({"error": problem.detail})
