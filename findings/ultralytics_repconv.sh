#!/usr/bin/env bash
# Ultralytics 8.4.190: a model yaml may name RepConv, but the parser takes it for a layer that keeps the number of
# channels, so that the next layer is built for the wrong one; and `activation:` does not reach it: it keeps its SiLU.
# Seen: "after RepConv of 32 channels the next Conv takes 16; Conv acts by ReLU, RepConv by SiLU".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 \
  ultralytics==8.4.190 opencv-python==4.14.0.94 || exit 69
YOLO_OFFLINE=1 YOLO_CONFIG_DIR="$folder" "$folder/venv/bin/python" - <<'PYTHON'
import sys

from ultralytics.nn.tasks import parse_model

layers = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "RepConv", [16, 32, 3, 1]], [-1, 1, "Conv", [64, 3, 2]]]
model, _ = parse_model({"nc": 7, "activation": "nn.ReLU()", "backbone": layers, "head": []}, 3, verbose=False)
first, rep, last = model
wrong, acts = last.conv.in_channels, [type(layer.act).__name__ for layer in (first, rep)]
print(f"after RepConv of {rep.c2} channels the next Conv takes {wrong}; Conv acts by {acts[0]}, RepConv by {acts[1]}")
sys.exit(not (rep.c2 == 32 and wrong == 16 and acts == ["ReLU", "SiLU"]))
PYTHON
