#!/usr/bin/env bash
# pillow-heif 1.8.1: `quality=-1` is called lossless, and for colour it is not: the coder is, but the picture was made
# YCbCr 4:2:0 before. With `chroma=444` a step of 1 remains; only `matrix_coefficients=0` (RGB inside) gives the same
# bytes. Grey survives, 16 bits lose six.
# Seen: "largest difference of noise: quality=-1 230, chroma=444 1, matrix_coefficients=0 too 0; grey 0; 16 bits 63".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow-heif==1.8.1 pillow==13.0.0 numpy==2.4.6 || exit 69
"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys

import numpy as np
from PIL import Image
from pillow_heif import register_heif_opener

register_heif_opener()
random = np.random.RandomState(0)
colour, grey = random.randint(0, 256, (64, 64, 3)).astype(np.uint8), random.randint(0, 256, (64, 64)).astype(np.uint8)
deep = random.randint(0, 65536, (64, 64)).astype(np.uint16)


def loss(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "HEIF", quality=-1, **options)
    with Image.open(file) as image:
        return int(np.abs(np.asarray(image).astype(int) - pixels).max())


losses = [loss(colour), loss(colour, chroma=444), loss(colour, chroma=444, matrix_coefficients=0)]
losses += [loss(grey), loss(deep)]
print("largest difference of noise: quality=-1 {}, chroma=444 {}, matrix_coefficients=0 too {}; grey {}; 16 bits {}"
      .format(*losses))
sys.exit(not (losses[0] > 50 and losses[1:] == [1, 0, 0, 63]))
PYTHON
