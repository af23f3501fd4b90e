#!/usr/bin/env bash
# ncnn 1.0.20261020 (Python): `ncnn.Mat(array)` takes the array's shape and its memory, but not its strides. A picture
# that was turned to channels-first by `transpose` holds other pixels then, without a word; `astype` and `/ 255` after
# it keep the order of memory, so the usual preprocessing is hit, while `.copy()` helps (kept in a name: a Mat
# borrows) and `Mat.clone()` does not. And a Mat knows the size of its elements, not their type: uint8 200 reads back
# as int8 -56, int32 as float32.
# Seen: "equal: transpose False, transpose astype / 255 False, clone False, copy True; uint8 200 reads int8 -56, int32
# 3 reads float32".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ncnn==1.0.20261020 numpy==2.4.6 || exit 69
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import ncnn
import numpy as np

image = np.random.RandomState(0).randint(0, 256, (10, 12, 3)).astype(np.uint8)
scaled = image.transpose(2, 0, 1).astype(np.float32) / 255
turned = image.astype(np.float32).transpose(2, 0, 1)
copied, bytes_, integers = turned.copy(), np.full((1, 2, 2), 200, np.uint8), np.full((1, 2, 2), 3, np.int32)


def read(mat):
    return np.array(mat)


ways = {
    "transpose": (read(ncnn.Mat(turned)), turned),
    "transpose astype / 255": (read(ncnn.Mat(scaled)), scaled),
    "clone": (read(ncnn.Mat(turned).clone()), turned),
    "copy": (read(ncnn.Mat(copied)), turned),
}
equal = {name: bool(np.array_equal(mat, array)) for name, (mat, array) in ways.items()}
byte, integer = read(ncnn.Mat(bytes_)), read(ncnn.Mat(integers))
print("equal:", ", ".join(f"{name} {value}" for name, value in equal.items()) + ";",
      f"uint8 200 reads {byte.dtype} {byte.flat[0]}, int32 3 reads {integer.dtype}")
right = list(equal.values()) == [False, False, False, True]
sys.exit(not (right and byte.flat[0] == -56 and integer.dtype == np.float32))
PYTHON
