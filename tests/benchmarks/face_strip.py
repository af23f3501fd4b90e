"""Faces out of images and clips with the answers of several models beside them, as one picture to look at.

Nothing is measured: nobody said what these faces show. It is for eyes, which see at once what figures hide.

    python tests/benchmarks/face_strip.py strip.png photo.jpg clip.mp4 -m deepfer-n -m deepfer-live
        [--face-model face_detection_yunet_2023mar.onnx] [--faces 24]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import av
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw

from deepfer_yolo import Classifier
from deepfer_yolo.config import FaceConfig
from deepfer_yolo.data.images import load_image
from deepfer_yolo.faces.align import crop_faces, cut
from deepfer_yolo.faces.detect import open_detector
from deepfer_yolo.records import Face, Image
from deepfer_yolo.runtime.card import CropSpec

SIDE, LINE, COLUMNS = 112, 14, 8
IMAGES = {".jpg", ".jpeg", ".png"}


def frames(path: Path, n: int) -> list[Image]:
    """The image, or `n` frames evenly out of a clip, uint8 RGB."""
    if path.suffix.lower() in IMAGES:
        return [load_image(path)]
    with av.open(str(path)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [decoded[i] for i in np.linspace(0, len(decoded) - 1, n).round().astype(int)]


def main() -> None:
    """Find, crop, ask and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("-m", "--model", action="append", required=True)
    parser.add_argument("--face-model", type=Path)
    parser.add_argument("--faces", type=int, default=24)
    options = parser.parse_args()
    detector = open_detector(FaceConfig(face_model=options.face_model), "image")
    found: list[tuple[Image, Face]] = []
    for source in options.sources:
        for image in frames(source, options.faces):
            found += [(image, face) for face in detector.detect(image)]
    chosen = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, options.faces).round().astype(int))]
    models = [Classifier(name) for name in options.model]
    height = SIDE + LINE * len(models)
    rows = -(-len(chosen) // COLUMNS)
    sheet = PillowImage.new("RGB", (COLUMNS * (SIDE + 4), rows * (height + 4)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (image, face) in enumerate(chosen):
        left, top = place % COLUMNS * (SIDE + 4), place // COLUMNS * (height + 4)
        seen = PillowImage.fromarray(cut(image, face, models[0].card.crop or CropSpec())).resize((SIDE, SIDE))
        sheet.paste(seen, (left, top))
        draw.text((left + 2, top + 2), f"{face.box[2] - face.box[0]:.0f} px", fill="yellow")
        for line, model in enumerate(models):
            probs = model.predict(crop_faces(image, [face], detector.boxes, model.card))[0]
            text = f"{model.labels[int(probs.argmax())]} {probs.max():.0%}"
            draw.text((left + 2, top + SIDE + LINE * line), text, fill=("black", "blue", "darkgreen")[line % 3])
    sheet.save(options.out)
    lines = ", then ".join(options.model)
    print(f"{options.out}: {len(chosen)} of {len(found)} faces; under each: {lines}")


if __name__ == "__main__":
    main()
