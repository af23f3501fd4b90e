"""LiteRT, once TensorFlow Lite: for phones and microcontroller boards.

The batch is free unless the export fixed it; the run-time makes room anew whenever it changes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deepfer_yolo.errors import ModelError, explained_imports
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.backends.protocol import first_line, in_batches
from deepfer_yolo.runtime.model_file import checked_sidecar

MAX_N = 64
"""Images in one run of a file with a free batch, whose memory grows with them."""


class LiteRtBackend:
    """A `.tflite` file: uint8 (n, S, S, 3) to float32 (n, C)."""

    provider = "litert"

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        with explained_imports():
            from ai_edge_litert.interpreter import Interpreter
        self.card = checked_sidecar(path)
        self.threads = threads
        self._path = path
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"{path}: LiteRT refuses the model: {first_line(error)}", "export it again with: deepfer export"
            ) from None
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        found = [
            (value["dtype"].__name__, tuple(int(side) for side in value["shape"])) for value in (*inputs, *outputs)
        ]
        side, n_labels = self.card.input.size, len(self.card.labels)
        self._n = found[0][1][0] if found and found[0][1] else 0
        if found != [("uint8", (self._n, side, side, 3)), ("float32", (self._n, n_labels))]:
            raise ModelError(
                f"{path}: the card says uint8 (n, {side}, {side}, 3) to float32 (n, {n_labels}), the model says {found}"
            )
        self._source, self._answer = inputs[0]["index"], outputs[0]["index"]
        self._is_free = int(inputs[0]["shape_signature"][0]) == -1

    def run(self, crops: Crops) -> Probs:
        """See `Backend.run`."""
        if not self._is_free:
            return in_batches(self._run, crops, self._n)
        return np.concatenate([self._run(crops[start : start + MAX_N]) for start in range(0, len(crops), MAX_N)])

    def _run(self, crops: Crops) -> Probs:
        try:
            if len(crops) != self._n:
                self._interpreter.resize_tensor_input(self._source, crops.shape)
                self._interpreter.allocate_tensors()
                self._n = len(crops)
            self._interpreter.set_tensor(self._source, crops)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{self._path}: LiteRT failed on {len(crops)} images: {first_line(error)}") from None
        probs: Probs = self._interpreter.get_tensor(self._answer)
        return probs
