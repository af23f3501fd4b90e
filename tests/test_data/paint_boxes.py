"""Detection sets in every known layout, painted: scenes with two faces each, the same ones in each layout."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.painted import paint_faces

FACES, LABELS = paint_faces(17, 40)
NAMES = [EMOTIONS[label] for label in LABELS]
WIDTH, HEIGHT, SIDE = 240, 160, 48
PLACES = ((20, 30), (150, 90))
SCENES = {"train": range(14), "val": range(14, 17), "test": range(17, 20)}
"""Scene n holds the faces 2n and 2n + 1."""
COUNTS = Counter((split, NAMES[2 * n + k]) for split, scenes in SCENES.items() for n in scenes for k in (0, 1))
ROBOFLOW = {"train": "train", "val": "valid", "test": "test"}
Boxed = tuple[str, int, int, int, int]


def scene(path: Path, *faces: NDArray[np.uint8]) -> Path:
    """A coloured image with the faces at their places."""
    image = np.full((HEIGHT, WIDTH, 3), (90, 120, 60), np.uint8)
    for face, (x, y) in zip(faces, PLACES, strict=False):
        image[y : y + SIDE, x : x + SIDE] = face[:, :, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(image).save(path)
    return path


def scenes(root: Path, folder: Callable[[str], str]) -> Iterator[tuple[str, int, Path, list[Boxed]]]:
    """(split, number, image, boxes xyxy with their labels) of each scene, painted into the folder of its split."""
    for split, numbers in SCENES.items():
        for n in numbers:
            path = scene(root / folder(split) / f"{n}.png", FACES[2 * n], FACES[2 * n + 1])
            boxes = [(NAMES[2 * n + k], x, y, x + SIDE, y + SIDE) for k, (x, y) in enumerate(PLACES)]
            yield split, n, path, boxes


def write_csv(path: Path, rows: list[list[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def roboflow_boxes(root: Path) -> None:
    rows: dict[str, list[list[Any]]] = {}
    header = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
    for split, _, path, boxes in scenes(root, ROBOFLOW.__getitem__):
        rows.setdefault(ROBOFLOW[split], [header]).extend(
            [path.name, WIDTH, HEIGHT, label, *corners] for label, *corners in boxes
        )
    for name, lines in rows.items():
        write_csv(root / name / "_annotations.csv", lines)


def roboflow_classes(root: Path) -> None:
    for split, numbers in SCENES.items():
        lines = ["filename" + "".join(f", {label}" for label in EMOTIONS)]
        for n in numbers:
            for face in (2 * n, 2 * n + 1):
                path = root / ROBOFLOW[split] / f"{face}_jpg.rf.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                PillowImage.fromarray(FACES[face]).save(path)
                lines.append(path.name + "".join(f", {int(label == NAMES[face])}" for label in EMOTIONS))
        (root / ROBOFLOW[split] / "_classes.csv").write_text("\n".join(lines) + "\n")


def yolo_line(box: Boxed) -> str:
    label, x1, y1, x2, y2 = box
    shares = ((x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT)
    return f"{EMOTIONS.index(label)} {' '.join(f'{share:.6f}' for share in shares)}\n"


def _yolo(root: Path, images: Callable[[str], str]) -> None:
    for _, n, path, boxes in scenes(root, images):
        text = root / path.parent.relative_to(root).as_posix().replace("images", "labels") / f"{n}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("".join(map(yolo_line, boxes)))


def yolo_by_split(root: Path) -> None:
    """Split folders above images and labels, paths that are wrong, as Roboflow writes them."""
    _yolo(root, lambda split: f"{ROBOFLOW[split]}/images")
    places = "".join(f"{split}: ../{name}/images\n" for split, name in ROBOFLOW.items())
    roboflow = "roboflow:\n  license: CC BY 4.0\n  url: https://universe.example/faces\n"
    (root / "data.yaml").write_text(f"{places}nc: 7\nnames: {list(EMOTIONS)}\n{roboflow}")


def yolo_by_kind(root: Path) -> None:
    """images and labels above split folders, `path` elsewhere, names by number, as Ultralytics writes them."""
    _yolo(root, lambda split: f"images/{split}")
    names = "".join(f"  {n}: {name}\n" for n, name in enumerate(EMOTIONS))
    places = "".join(f"{split}: images/{split}\n" for split in SCENES)
    (root / "data.yaml").write_text(f"path: ../datasets/faces\n{places}names:\n{names}")


def coco(images: list[tuple[int, str]], boxes: list[tuple[int, Boxed]]) -> dict[str, Any]:
    """A json of images by id and boxes by image; the first category is used by none, as with Roboflow."""
    return {
        "info": {"description": "faces"},
        "annotations": [
            {
                "id": n,
                "image_id": image,
                "category_id": EMOTIONS.index(label) + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "segmentation": [[x1, y1, x2, y1, x2, y2]],
                "iscrowd": 0,
            }
            for n, (image, (label, x1, y1, x2, y2)) in enumerate(boxes)
        ],
        "images": [{"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT} for n, name in images],
        "categories": [{"id": n, "name": name} for n, name in enumerate(("faces", *EMOTIONS))],
    }


def _coco(root: Path, images: Callable[[str], str], file: Callable[[str], str]) -> None:
    listed: dict[str, tuple[list[tuple[int, str]], list[tuple[int, Boxed]]]] = {split: ([], []) for split in SCENES}
    for split, n, path, boxes in scenes(root, images):
        listed[split][0].append((n, path.name))
        listed[split][1].extend((n, box) for box in boxes)
    for split, (names, boxes) in listed.items():
        (root / file(split)).parent.mkdir(exist_ok=True)
        (root / file(split)).write_text(json.dumps(coco(names, boxes), indent=1))


def coco_by_split(root: Path) -> None:
    _coco(root, ROBOFLOW.__getitem__, lambda split: f"{ROBOFLOW[split]}/_annotations.coco.json")


def coco_original(root: Path) -> None:
    _coco(root, lambda split: f"{split}2017", lambda split: f"annotations/instances_{split}2017.json")


def voc_xml(name: str, boxes: list[Boxed]) -> str:
    objects = "".join(
        f"<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin><xmax>{x2}</xmax>"
        f"<ymin>{y1}</ymin><ymax>{y2}</ymax></bndbox><part><name>nose</name></part></object>\n"
        for label, x1, y1, x2, y2 in boxes
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f'<?xml version="1.0"?>\n<annotation><filename>{name}</filename>{size}\n{objects}</annotation>\n'


def voc_by_split(root: Path) -> None:
    for _, n, path, boxes in scenes(root, ROBOFLOW.__getitem__):
        (path.parent / f"{n}.xml").write_text(voc_xml(path.name, boxes))


def voc_original(root: Path) -> None:
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, n, path, boxes in scenes(root, lambda _: "JPEGImages"):
        (root / "Annotations" / f"{n}.xml").write_text(voc_xml(path.name, boxes))
        with (root / "ImageSets" / "Main" / f"{split}.txt").open("a") as file:
            file.write(f"{n}\n")
