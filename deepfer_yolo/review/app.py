"""The application of a review: the page, the queue, the images and the decisions, behind the guard of `serve`."""

from __future__ import annotations

import asyncio
import io
import json
import random
import secrets
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query  # noqa: TID253 (only `deepfer review` imports this package)
from PIL import Image as PillowImage
from pydantic import BaseModel, Field, StringConstraints
from starlette.responses import Response

from deepfer_yolo import __version__
from deepfer_yolo.data.corrections import CorrectionsWriter
from deepfer_yolo.data.dataset import Dataset, Row, load_images
from deepfer_yolo.data.decisions import MAX_CHARS, is_plain_text
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.records import Json
from deepfer_yolo.review.queue import Entry
from deepfer_yolo.review.session import Filter, Review
from deepfer_yolo.review.summary import summarise
from deepfer_yolo.runtime.preprocess import resize
from deepfer_yolo.serve.app import add_errors, add_page
from deepfer_yolo.serve.metrics import Metrics
from deepfer_yolo.serve.middleware import Guard
from deepfer_yolo.serve.schemas import ProblemError
from deepfer_yolo.servers import ReviewConfig

PAGE = Path(__file__).parent / "page"
SHARED = ("elements.js", "icon.svg", "style.css")
SCHEMA = 1
MAX_SIDE_PX = 1600
"""The longer side of what is sent; a screen shows no more."""
EXACT_PX = 256
"""Up to this side an image is sent as it is; a photo as a JPEG, which takes a tenth of the time."""

Name = Annotated[str, StringConstraints(max_length=20)]
Text = Annotated[str, StringConstraints(max_length=MAX_CHARS["new_label"])]
Session = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{8,64}$")]
Reviewer = Annotated[str, StringConstraints(max_length=MAX_CHARS["reviewer"], strip_whitespace=True)]


class Asked(BaseModel, extra="forbid"):
    """What every call of the page says: which browser, whose, and what of the queue it wants."""

    session: Session
    reviewer: Reviewer = ""
    label: Text = ""
    split: Text = ""
    kind: Text = ""


class Decided(Asked):
    """A decision."""

    id: Name
    answer: Text
    seconds: float | None = Field(None, ge=0, le=86_400)


def create_app(
    dataset: Dataset,
    entries: tuple[Entry, ...],
    writer: CorrectionsWriter,
    config: ReviewConfig,
    model: str | None = None,
) -> tuple[Guard, Review]:
    """The whole server as one ASGI application, and the review that it holds."""
    images = _images(entries)
    names = {row.path: name for name, row in images.items()}
    review = Review(
        entries, [names[entry.row.path] for entry in entries], dataset.labels, writer, config, model=model or ""
    )
    app = FastAPI(title="DeepFER review", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    _add_facts(app, dataset, review, model)
    _add_decisions(app, review, names)
    _add_images(app, dataset, images)
    add_page(app, PAGE, SHARED)
    add_errors(app)
    return Guard(app, config, Metrics()), review


def _images(entries: tuple[Entry, ...]) -> dict[str, Row]:
    """The images of a review and their copies by names that tell nothing of their place, path or label; each start has
    its own, since browsers keep images by them.
    """
    rows = {row.path: row for entry in entries for row in (entry.row, *(copy for copy, _ in entry.copies))}
    numbers = list(range(len(rows)))
    random.Random(secrets.token_bytes(16)).shuffle(numbers)  # noqa: S311 (it only hides the order)
    start = secrets.token_hex(4)
    return {f"{start}-{number}": row for number, row in zip(numbers, rows.values(), strict=True)}


def _add_facts(app: FastAPI, dataset: Dataset, review: Review, model: str | None) -> None:
    config = review.config

    told: dict[str, Any] = {
        "schema_version": SCHEMA,
        "name": printable(dataset.name),
        "labels": dataset.labels,
        "splits": sorted({entry.row.split for entry in review.entries}),
        "kinds": sorted({kind for entry in review.entries for kind in entry.kinds}),
        "model": model,
        "blind": config.blind,
        "held_out": config.held_out,
        "reviewer": config.reviewer,
        "file": printable(str(review.corrections.path)),
        "version": __version__,
    }

    @app.get("/v1/review")
    async def facts() -> Response:
        """What is reviewed and how."""
        return _json(told)

    @app.get("/v1/summary")
    async def summary() -> Response:
        """What all decisions of the file come to."""
        return _json(summarise(review.corrections).to_json())


def _add_decisions(app: FastAPI, review: Review, names: dict[str, str]) -> None:
    config, turn = review.config, asyncio.Lock()

    def who(asked: Asked) -> str:
        reviewer = asked.reviewer if config.reviewer is None else config.reviewer
        if not is_plain_text(reviewer):
            raise ProblemError(422, "a name has no control characters")
        return reviewer

    def ahead(asked: Asked, **more: Any) -> Response:
        if config.blind and asked.label:
            raise ProblemError(422, "the label is hidden")
        reviewer = who(asked)
        places = review.next(asked.session, reviewer, Filter(asked.label, asked.split, asked.kind))
        items = [_shown(review.entries[place], names, blind=config.blind) for place in places]
        return _json({"items": items, "progress": review.progress(asked.session, reviewer), **more})

    @app.post("/v1/next")
    async def following(asked: Asked) -> Response:
        """The images that this browser holds, the next one first; a sign that it is still there."""
        async with turn:
            return ahead(asked)

    @app.post("/v1/decisions")
    async def decide(asked: Decided) -> Response:
        """Write one decision; the answer comes when it is on the disk."""
        async with turn:
            place = review.place(asked.id)
            await asyncio.to_thread(review.decide, asked.session, who(asked), asked.id, asked.answer, asked.seconds)
            reveals = config.blind and not config.repeat
            return ahead(asked, revealed=_shown(review.entries[place], names, blind=False) if reveals else None)

    @app.post("/v1/release", status_code=204)
    async def release(asked: Asked) -> Response:
        """A browser closes: others may have the images that it held."""
        async with turn:
            review.release(asked.session)
        return Response(status_code=204)

    @app.post("/v1/undo")
    async def undo(asked: Asked) -> Response:
        """Take back this browser's last decision; its image comes first again."""
        async with turn:
            await asyncio.to_thread(review.undo, asked.session, who(asked))
            return ahead(asked.model_copy(update={"label": "", "split": "", "kind": ""}))


def _json(told: Json) -> Response:
    return Response(json.dumps(told), media_type="application/json")


def _shown(entry: Entry, names: dict[str, str], *, blind: bool) -> dict[str, Any]:
    """What a browser learns of an image; blind, nothing but the image itself."""
    name = names[entry.row.path]
    if blind:
        return {"id": name}
    copies = [
        {"id": names[row.path], "label": row.label, "split": row.split, "exact": is_exact}
        for row, is_exact in entry.copies
    ]
    return {
        "id": name,
        "path": printable(entry.row.path),
        "label": entry.row.label,
        "split": entry.row.split,
        "why": [printable(words) for words in entry.why],
        "probs": entry.probs,
        "votes": entry.votes,
        "copies": copies,
    }


def _add_images(app: FastAPI, dataset: Dataset, images: dict[str, Row]) -> None:
    @app.get("/v1/images/{name}", response_class=Response)
    async def image(name: str, side: Annotated[int, Query(ge=16, le=MAX_SIDE_PX)] = MAX_SIDE_PX) -> Response:
        """An image with at most `side` pixels on its longer side: a small one as a PNG, a large one as a JPEG."""
        if name not in images:
            raise ProblemError(404, "no such image in this review")
        try:
            content, kind = await asyncio.to_thread(_encoded, dataset, images[name], side)
        except DatasetError as error:
            raise ProblemError(422, printable(error.reason)) from None
        return Response(content, media_type=kind, headers={"cache-control": "private, max-age=600"})


def _encoded(dataset: Dataset, row: Row, side: int) -> tuple[bytes, str]:
    pixels = next(load_images(dataset, [row], workers=0))
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    if scale < 1:
        pixels = resize(pixels, max(1, round(width * scale)), max(1, round(height * scale)))
    content, image = io.BytesIO(), PillowImage.fromarray(pixels)
    if max(pixels.shape[:2]) > EXACT_PX:
        image.save(content, "JPEG", quality=92)
        return content.getvalue(), "image/jpeg"
    image.save(content, "PNG", compress_level=1)
    return content.getvalue(), "image/png"
