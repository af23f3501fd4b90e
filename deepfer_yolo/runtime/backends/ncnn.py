"""ncnn: for small Arm boards and phones. It has no batch, so images go through one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deepfer_yolo.errors import ModelError, explained_imports
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.model_file import checked_sidecar, parts

INPUT, OUTPUT = "in0", "out0"
"""Names that pnnx gives the first input and output."""


class NcnnBackend:
    """A `.param` with its `.bin`: float planes (3, S, S) in 0..1 to probabilities.

    The cast, transpose and scale are done here.
    """

    provider = "ncnn"

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        with explained_imports():
            import ncnn
        self.card = checked_sidecar(path)
        self.threads = threads
        self._path = path
        self._mat = ncnn.Mat
        self._net = ncnn.Net()
        options = self._net.opt
        options.num_threads = threads
        options.use_vulkan_compute = False
        exact = self.card.precision != "fp16"
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = not exact
        options.use_bf16_storage = False
        param, weights = parts(path)
        if self._net.load_param(str(param)) != 0 or self._net.load_model(str(weights)) != 0:
            raise ModelError(f"{path}: ncnn refuses the model", "export it again with: deepfer export --format ncnn")
        if INPUT not in self._net.input_names() or OUTPUT not in self._net.output_names():
            takes, gives = self._net.input_names(), self._net.output_names()
            raise ModelError(f"{path}: the model takes {takes} and gives {gives}, not {INPUT} and {OUTPUT}")

    def run(self, crops: Crops) -> Probs:
        """See `Backend.run`."""
        n_labels = len(self.card.labels)
        probs = np.empty((len(crops), n_labels), np.float32)
        for row, crop in zip(probs, crops, strict=True):
            planes = np.ascontiguousarray(crop.transpose(2, 0, 1), np.float32) / np.float32(255)
            extractor = self._net.create_extractor()
            extractor.input(INPUT, self._mat(planes))
            code, answer = extractor.extract(OUTPUT)
            values = np.array(answer)
            if code != 0 or values.shape != (n_labels,):
                found = f"code {code}, answer {values.shape}, where {n_labels} numbers belong"
                raise ModelError(f"{self._path}: ncnn failed with {found}")
            row[:] = values
        return probs
