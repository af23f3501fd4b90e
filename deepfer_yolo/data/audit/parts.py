"""An audit in parts: what each part has seen of its images, and the inspection of all put together from them.

Copies and near copies across parts are found where they are put together, by hash and thumbnail, with no image read
again: the groups are those of one process.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from deepfer_yolo.config import AuditConfig, FaceConfig
from deepfer_yolo.data.archives import unpacked
from deepfer_yolo.data.audit.inspection import InspectedImage, Inspection, PixelCheck, Seen, inspect, looked_at
from deepfer_yolo.data.audit.model_checks import FaceCheck, LabelCheck
from deepfer_yolo.data.layouts.item import Item, Reading
from deepfer_yolo.data.layouts.registry import find_layout
from deepfer_yolo.data.near_candidates import SIDE
from deepfer_yolo.data.shards import Answers, Job, Part, Shard, check_folder, write_part, wrong_row
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.faces.detect import Detector
from deepfer_yolo.records import JsonValue
from deepfer_yolo.runtime.classifier import Classifier

Check = LabelCheck | FaceCheck
SEEN = [field.name for field in fields(InspectedImage)][5:]
"""What was measured: width and height first, then the light."""
OTHER_IMAGES = "names other images than the parts were made from"


def checks_with(classifier: Classifier | None, detector: Detector | None) -> list[Check]:
    """The checks that take part in the inspection."""
    labels: list[Check] = [] if classifier is None else [LabelCheck(classifier)]
    return labels if detector is None else [*labels, FaceCheck(detector)]


def job_of(config: AuditConfig, checks: Sequence[Check]) -> Job:
    """What all parts of an audit have in common, but for the images."""
    settings: dict[str, JsonValue] = {"layout": config.layout, "faces": any(isinstance(c, FaceCheck) for c in checks)}
    if settings["faces"]:
        settings |= config.model_dump(mode="json", include=set(FaceConfig.model_fields))
    model = next((check.model for check in checks if isinstance(check, LabelCheck)), "")
    return Job(command="audit", model=model, settings=settings)


def audit_part(
    source: Path,
    config: AuditConfig,
    checks: Sequence[Check],
    shard: Shard,
    out: Path,
    progress: Callable[[float], None] | None = None,
) -> Part:
    """Look at the images of one shard, and write what was seen into `out`."""
    job = job_of(config, checks)
    check_folder(out, shard, job)
    with unpacked(source, layout=config.layout) as root:
        seen = inspect(
            root, config.layout, source.name, workers=config.workers, progress=progress, checks=checks, only=shard.has
        )
        return write_part(out, shard, job.over(seen.names), found_in(seen, checks))


def items_of(source: Path, layout: str = "auto") -> Iterator[Item]:
    """The images of a source, in the order in which an audit looks at them."""
    yield from find_layout(source, layout).read(Reading(source))


def seen_of(items: Iterable[Item], checks: Sequence[Check]) -> Iterator[dict[str, Any]]:
    """What is kept of each of some images, by its place among them."""
    seen = Inspection("")
    for place, item in enumerate(items):
        image, prepared = looked_at(item, "", checks)
        seen.add(place, item, image)
        for check, part in zip(checks, prepared, strict=False):
            check.take(seen.images[-1], part)
    return found_in(seen, checks)


def found_in(seen: Inspection, checks: Sequence[PixelCheck]) -> Iterator[dict[str, Any]]:
    """What is kept of each image, its place under `index`; the thumbnail with the first one of its pixels."""
    notes = [iter(check.notes()) for check in checks]
    size, thumbs = SIDE * SIDE, {key: place for place, key in enumerate(seen.pixels_met)}
    for place, image in seen.looked_at:
        if isinstance(image, tuple):
            yield {"index": place, "key": image[0], "error": image[1]}
            continue
        row: dict[str, Any] = {"index": place, "key": image.key, "pixels": image.pixel_hash.hex()}
        row |= {name: getattr(image, name) for name in SEEN} | {"notes": [next(note) for note in notes]}
        at = thumbs.pop(image.pixel_hash, None)
        if at is not None:
            row["thumb"] = base64.b64encode(seen.thumbs[at * size : (at + 1) * size]).decode()
        yield row


def inspection_again(
    root: Path,
    config: AuditConfig,
    name: str,
    checks: Sequence[Check],
    answers: Answers,
    progress: Callable[[float], None] | None = None,
) -> Inspection:
    """The inspection of all images of `root`, from the answers of whoever looked at them.

    Raises DatasetError where those are of other images, of another job, or not whole.
    """
    found = answers.of(job_of(config, checks))

    def look(place: int, item: Item, label: str) -> Seen | str:
        row = next(found, None)
        while row is not None and row["index"] < place:  # bears a label that no reader knows
            row = next(found, None)
        if row is None or row["index"] != place or row.get("key") != item.key:
            raise DatasetError(f"{OTHER_IMAGES}, such as {item.key}", "name the source that they were", path=root)
        return _seen(item, label, row, checks)

    seen = inspect(root, config.layout, name, progress=progress, checks=checks, look=look)
    n = seen.names.n
    if next((row for row in found if row["index"] >= n), None) is not None:
        raise DatasetError(OTHER_IMAGES, "name the source that they were", path=root)
    return seen


def _seen(item: Item, label: str, row: Mapping[str, Any], checks: Sequence[PixelCheck]) -> Seen | str:
    """What was seen of one image; its notes go to the checks."""
    if "error" in row:
        return str(row["error"])
    try:
        width, height, *light = (row[name] for name in SEEN)
        pixels, sides, lights = bytes.fromhex(row["pixels"]), (int(width), int(height)), [float(x) for x in light]
        image = InspectedImage(item, item.key, item.split, label, pixels, *sides, *lights)
        for check, note in zip(checks, row["notes"], strict=True):
            check.recall(image, note)
        return image, base64.b64decode(row.get("thumb", ""), validate=True)
    except (KeyError, TypeError, ValueError):
        raise wrong_row(item.key) from None
