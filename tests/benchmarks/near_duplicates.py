"""How many planted near copies the audit finds, and how many unrelated faces it takes for copies, on real FER2013
faces.

    python tests/benchmarks/near_duplicates.py ../shared/datasets/fer2013_dev.csv.gz [N]

Unrelated faces are mirror images of PublicTest faces: a mirrored image has no copy in Training unless someone put a
mirrored one there.
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from deepfer_yolo.data.duplicates import near_pairs, thumbnail
from deepfer_yolo.data.layouts.fer2013 import read_csv as read
from deepfer_yolo.data.layouts.item import Reading


def jpeg(face):
    file = io.BytesIO()
    PillowImage.fromarray(face).save(file, "JPEG", quality=50)
    return np.asarray(PillowImage.open(file))


def resized(face, box):
    return np.asarray(PillowImage.fromarray(face).resize((48, 48), PillowImage.Resampling.BILINEAR, box=box))


def padded(face):
    wide = np.pad(face, 2, "edge")
    return np.asarray(
        PillowImage.fromarray(wide).resize((48, 48), PillowImage.Resampling.BILINEAR, box=(0.56, 0.56, 51.44, 51.44))
    )


CHANGES = {
    "JPEG quality 50": jpeg,
    "3 % cropped on every side": lambda face: resized(face, (1.44, 1.44, 46.56, 46.56)),
    "3 % cropped on two sides": lambda face: resized(face, (1.44, 1.44, 48, 48)),
    "3 % added on every side": padded,
    "10 % brighter": lambda face: np.clip(face * 1.1, 0, 255).astype(np.uint8),
    "10 % darker": lambda face: (face * 0.9).astype(np.uint8),
    "one pixel to the right": lambda face: np.pad(face, ((0, 0), (1, 0)), "edge")[:, :48],
    "one pixel down": lambda face: np.pad(face, ((1, 0), (0, 0)), "edge")[:48],
    "one pixel both ways": lambda face: np.pad(face, ((1, 0), (1, 0)), "edge")[:48, :48],
}


def main(source: str, n: int) -> None:
    items = list(read(Reading(Path(source))))
    train = np.stack([thumbnail(item.pixels) for item in items if item.split == "train"])
    chosen = np.random.default_rng(0).choice(len(items), n, replace=False)
    faces = [items[index].pixels for index in chosen]
    originals = np.stack([thumbnail(face) for face in faces])
    print(f"found, of {n} planted near copies of each kind (FER2013 faces, seed 0):")
    for name, change in CHANGES.items():
        pairs = near_pairs(np.concatenate([originals, np.stack([thumbnail(change(face)) for face in faces])]))
        print(f"  {name:28} {100 * float((pairs[:, 1] - pairs[:, 0] == n).sum()) / n:5.1f} %")
    mirrored = np.stack(
        [thumbnail(np.ascontiguousarray(item.pixels[:, ::-1])) for item in items if item.split == "val"]
    )
    start = time.process_time()
    pairs = near_pairs(np.concatenate([train, mirrored]))
    across = pairs[(pairs[:, 0] < len(train)) & (pairs[:, 1] >= len(train))]
    false = len(np.unique(across[:, 1]))
    share = f"{100 * false / len(mirrored):.2f} %"
    print(f"taken for copies, of {len(mirrored):,} unrelated faces against {len(train):,}: {false} ({share})")
    print(f"search among {len(train) + len(mirrored):,} images: {time.process_time() - start:.1f} s of CPU time")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1500)
