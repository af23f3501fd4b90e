"""One peer's model in its own run-time, for peers.py: no line of this program is imported here.

python peer_litert.py KIND MODEL: for each line `CROPS.npy<TAB>PROBS.npy` on stdin, grey uint8 (n, 48, 48) are answered
and a line of JSON printed with `ms`, the median processor time of one face from its 48 px image to probabilities on one
thread. KIND says what is done before:

- fer: enlarged to 64 px and rounded as OpenCV does, then (x/255 − 0.5)·2, one channel (fer 25.10.3, fer/fer.py)
- fer-unit: the same with x/255, a mistake often made
- facex: enlarged to 200 px in 0…1, three equal channels (facex 1.1.0, facex/utils.py)
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]

SIDES = {"fer": 64, "fer-unit": 64, "facex": 200}


def enlarged(image: np.ndarray, side: int) -> np.ndarray:
    """`image` (h, h) by bilinear interpolation between the centres of pixels, as OpenCV and scikit-image enlarge."""
    n = len(image)
    at = np.clip((np.arange(side) + 0.5) * n / side - 0.5, 0, n - 1)
    low = np.minimum(at.astype(int), n - 2)
    weights = np.zeros((side, n), np.float32)
    weights[np.arange(side), low] = 1 - (at - low)
    weights[np.arange(side), low + 1] = at - low
    return weights @ image.astype(np.float32) @ weights.T


def prepared(image: np.ndarray, kind: str) -> np.ndarray:
    """What the model takes for one face."""
    large = enlarged(image, SIDES[kind])
    if kind == "facex":
        return np.repeat(large[None, :, :, None] / 255, 3, axis=3).astype(np.float32)
    unit = np.round(large) / 255
    return ((unit - 0.5) * 2 if kind == "fer" else unit)[None, :, :, None].astype(np.float32)


def main() -> None:
    """Answer until nothing more comes."""
    kind, model = sys.argv[1:]
    interpreter = Interpreter(model_path=model, num_threads=1)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    for line in sys.stdin:
        crops, out = line.rstrip("\n").split("\t")
        answers, times = [], []
        for face in np.load(crops):
            start = time.process_time()
            interpreter.set_tensor(taken, prepared(face, kind))
            interpreter.invoke()
            answers.append(interpreter.get_tensor(given)[0].copy())
            times.append(time.process_time() - start)
        np.save(out, np.stack(answers))
        print(json.dumps({"ms": 1000 * float(np.median(times)), "bytes": Path(model).stat().st_size}), flush=True)


if __name__ == "__main__":
    main()
