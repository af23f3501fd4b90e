"""Derive the crop rule: which square around a YuNet box shows what FER2013's own pictures show.

Each picture is enlarged, set into a padded canvas and searched for a face; the true square is the picture's own
outline. Several ways to draw a square from the box and the landmarks are fitted on Training rows (medians) and compared
on PublicTest rows. The winner's numbers are the defaults of `runtime.card.CropSpec`.

    python tests/benchmarks/crop_rule.py ../shared/datasets/fer2013_dev.csv.gz --face-model
    face_detection_yunet_2023mar.onnx
"""

from __future__ import annotations

import argparse
import csv
import gzip
from pathlib import Path

import numpy as np

from deepfer_yolo.faces.detect import YuNetDetector
from deepfer_yolo.runtime.preprocess import resize

NATIVE, ENLARGE, PAD = 48, 4, 0.6


def read_rows(path: Path, usage: str, n: int) -> np.ndarray:
    """The first `n` pictures of one split, uint8 (n, 48, 48)."""
    pictures = []
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            if row["Usage"] == usage:
                pictures.append(np.array(row["pixels"].split(), np.uint8).reshape(NATIVE, NATIVE))
                if len(pictures) == n:
                    break
    return np.stack(pictures)


def padded(picture: np.ndarray, how: str) -> tuple[np.ndarray, int, int]:
    """The enlarged picture in its canvas, uint8 RGB, with the offset and side of the true square."""
    side = NATIVE * ENLARGE
    big = resize(np.repeat(picture[:, :, None], 3, axis=2), side, side)
    pad = round(PAD * side)
    if how == "mean":
        canvas = np.full((side + 2 * pad, side + 2 * pad, 3), int(picture.mean()), np.uint8)
        canvas[pad : pad + side, pad : pad + side] = big
    else:
        canvas = np.pad(big, ((pad, pad), (pad, pad), (0, 0)), mode=how)
    return canvas, pad, side


def measure(pictures: np.ndarray, detector: YuNetDetector, how: str) -> np.ndarray:
    """Rows of box and landmarks relative to the true square: x1 y1 x2 y2, then five x y; NaN where no face or not the
    face was found.
    """
    rows = np.full((len(pictures), 15), np.nan)
    for row, picture in zip(rows, pictures, strict=True):
        canvas, pad, side = padded(picture, how)
        faces = [
            face
            for face in detector.detect(canvas)
            if np.hypot(*((face.box[:2] + face.box[2:]) / 2 - canvas.shape[0] / 2)) < side / 3
        ]
        if faces:
            row[:4] = (faces[0].box - pad) / side
            row[4:14] = ((faces[0].landmarks - pad) / side).ravel()
            row[14] = faces[0].score
    return rows


def references(rows: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each way to draw a square: its reference length and its reference point."""
    x1, y1, x2, y2 = rows[:, :4].T
    width, height = x2 - x1, y2 - y1
    centre = np.stack([(x1 + x2) / 2, (y1 + y2) / 2], axis=1)
    points = rows[:, 4:14].reshape(-1, 5, 2)
    eyes, mouth = points[:, :2].mean(axis=1), points[:, 3:].mean(axis=1)
    span = np.hypot(*(points[:, 0] - points[:, 1]).T)
    drop = np.hypot(*(mouth - eyes).T)
    five = points.mean(axis=1)
    mix = (centre + five) / 2
    return {
        "box width": (width, centre),
        "box height": (height, centre),
        "longer side": (np.maximum(width, height), centre),
        "mean side": ((width + height) / 2, centre),
        "geometric": (np.sqrt(width * height), centre),
        "eyes to mouth": (drop, (eyes + mouth) / 2),
        "eye span + drop": (span + drop, five),
        "mean side, landmarks' centre": ((width + height) / 2, five),
        "mean side, both centres": ((width + height) / 2, mix),
        "box + landmarks": ((width + height) / 2 + span + drop, mix),
    }


def fit(length: np.ndarray, point: np.ndarray) -> tuple[float, float, float]:
    """Scale and shift (in reference lengths) whose medians map the reference to the true square (side 1, centre 0.5,
    0.5).
    """
    scale = float(np.nanmedian(1 / length))
    shift = np.nanmedian((0.5 - point) / length[:, None], axis=0)
    return scale, float(shift[0]), float(shift[1])


def placed(length: np.ndarray, point: np.ndarray, fitted: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Side (n,) and centre (n, 2) of the squares that a fit draws."""
    scale, shift_x, shift_y = fitted
    return scale * length, point + np.array([shift_x, shift_y]) * length[:, None]


def regressed(rows: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Side (n,) and centre (n, 2) by a robust linear regression (Huber) on the box's shape and all five landmarks: what
    the best rule of this kind could reach.
    """

    def features(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x1, y1, x2, y2 = rows[:, :4].T
        width, centre = x2 - x1, np.stack([(x1 + x2) / 2, (y1 + y2) / 2], axis=1)
        points = (rows[:, 4:14].reshape(-1, 5, 2) - centre[:, None]) / width[:, None, None]
        return (
            np.concatenate(
                [np.ones((len(rows), 1)), np.log((y2 - y1) / width)[:, None], points.reshape(-1, 10)], axis=1
            ),
            width,
            centre,
        )

    rows = rows[np.isfinite(rows[:, 0])]
    known, width, centre = features(rows)
    out = []
    for target in (np.log(1 / width), *((0.5 - centre) / width[:, None]).T):
        weight = np.ones(len(rows))
        for _ in range(20):
            root = np.sqrt(weight)
            solved = np.linalg.lstsq(known * root[:, None], target * root, rcond=None)[0]
            left = np.abs(target - known @ solved)
            weight = np.minimum(1, 1.5 * 1.4826 * np.median(left) / np.maximum(left, 1e-9))
        out.append(solved)
    known, width, centre = features(held_out)
    log_scale, shift_x, shift_y = (known @ solved for solved in out)
    return np.exp(log_scale) * width, centre + np.stack([shift_x, shift_y], axis=1) * width[:, None]


def errors(side: np.ndarray, centre: np.ndarray) -> dict[str, float]:
    """How squares differ from the true one."""
    low, high = centre - side[:, None] / 2, centre + side[:, None] / 2
    inside = np.prod(np.clip(np.minimum(high, 1) - np.maximum(low, 0), 0, None), axis=1)
    iou = inside / (side**2 + 1 - inside)
    return {
        "iou_mean": float(np.nanmean(iou)),
        "iou_p10": float(np.nanpercentile(iou, 10)),
        "side_sd": float(np.nanstd(np.log(side))),
        "centre_sd": float(np.nanstd(centre)),
    }


def main() -> None:
    """Fit, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--face-model", type=Path, required=True)
    parser.add_argument("--n", type=int, default=2000)
    options = parser.parse_args()
    detector = YuNetDetector(options.face_model, size=448, min_score=0.6)
    fit_on, test_on = (read_rows(options.csv, usage, options.n) for usage in ("Training", "PublicTest"))
    for how in ("mean", "reflect", "edge"):
        rows, held_out = measure(fit_on, detector, how), measure(test_on, detector, how)
        print(f"\npadding {how}: a face found in {np.isfinite(rows[:, 0]).mean():.1%} of {len(rows)} Training rows")
        n = np.isfinite(held_out[:, 0]).sum()
        print(f"{'reference':30s} scale  shift_x shift_y | mean IoU  p10   sd side  sd centre (PublicTest, n={n})")
        squares = {}
        for name, (length, point) in references(rows).items():
            fitted = fit(length, point)
            squares[f"{name:30s} {fitted[0]:.3f}  {fitted[1]:+.3f}  {fitted[2]:+.3f}"] = placed(
                *references(held_out)[name], fitted
            )
        squares[f"{'regression on all of them':52s}"] = regressed(rows, held_out)
        for text, (side, centre) in squares.items():
            e = errors(side, centre)
            print(
                f"{text} | {e['iou_mean']:.4f}  {e['iou_p10']:.3f}  {e['side_sd']:.4f}  {e['centre_sd']:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
