"""Pictures of a training: what the network is shown, and how it learned."""

from __future__ import annotations

import csv
from pathlib import Path

import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.files import atomic_path
from deepfer_yolo.report.plots import learning, save_png
from deepfer_yolo.train.augment import Draws
from deepfer_yolo.train.loader import TrainLoader
from deepfer_yolo.train.validator import MACRO_F1, TOP1

ROWS, COLUMNS = 6, 10
AUGMENTED, CURVES = "augmented.png", "curves.png"


def save_augmented(loader: TrainLoader, folder: Path) -> Path:
    """A sheet of training pictures of the first epoch as the network will see them, enlarged twice; return its path."""
    from PIL import Image

    n = min(ROWS * COLUMNS, len(loader.dataset))
    index = torch.linspace(0, len(loader.dataset) - 1, n).long()
    batch = loader.batch(index, loader.pixels_of(index), Draws(loader.config, len(loader.dataset), 0), loader.size_at(0))
    side = batch["img"].shape[-1]
    sheet = torch.full((ROWS * side, COLUMNS * side, 3), 255, dtype=torch.uint8)
    for place, image in enumerate(batch["img"].mul(255).round().byte().cpu().permute(0, 2, 3, 1)):
        row, column = divmod(place, COLUMNS)
        sheet[row * side : (row + 1) * side, column * side : (column + 1) * side] = image
    picture = Image.fromarray(sheet.numpy())
    with atomic_path(folder / AUGMENTED) as part:
        picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST).save(part)
    return folder / AUGMENTED


def save_curves(folder: Path) -> Path:
    """Losses, top-1 and macro-F1 by epoch, from results.csv; return the picture's path."""
    rows = list(csv.DictReader((folder / "results.csv").read_text(encoding="utf-8").splitlines()))
    losses, shares = (
        {shown: [float(row[key]) for row in rows] for shown, key in names.items()}
        for names in ({"train": "train/loss", "val": "val/loss"}, {"val top-1": TOP1, "val macro-F1": MACRO_F1})
    )
    save_png(learning([int(row["epoch"]) for row in rows], losses, shares), folder / CURVES)
    return folder / CURVES
