"""8-bit files on other processors: labels and probabilities that differ from this one's, by emulation.

.venv/bin/python tests/benchmarks/int8_processors.py DATASET MODEL.onnx… [--quantise FP32.onnx] [--limit 3589] [--qemu
qemu-x86_64-static] [--cpu Haswell]…

onnxruntime runs each file here and again under qemu's emulation of a processor without VNNI: Haswell has AVX2, Nehalem
SSE4.2. `--quantise` adds a file as onnxruntime's own quantiser makes it with unsigned activations and 8-bit weights.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from deepfer_yolo.data.dataset import load_images, open_dataset
from deepfer_yolo.records import Crops
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.runtime.model_file import attach
from deepfer_yolo.runtime.onnx_graph import open_graph
from deepfer_yolo.runtime.preprocess import to_inputs

ANSWER = """
import sys
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
crops = np.load(sys.argv[2])
parts = [session.run(["probs"], {"image": crops[i : i + 32]})[0] for i in range(0, len(crops), 32)]
np.save(sys.argv[3], np.concatenate(parts))
"""


def answered(prefix: list[str], model: Path, crops: Crops, work: Path) -> np.ndarray:
    """The model's probabilities, from a process of its own that `prefix` may emulate."""
    np.save(work / "crops.npy", crops)
    line = [*prefix, sys.executable, "-c", ANSWER, str(model), str(work / "crops.npy"), str(work / "probs.npy")]
    subprocess.run(line, check=True, stderr=subprocess.DEVNULL)
    found: np.ndarray = np.load(work / "probs.npy")
    return found


def quantised(model: Path, crops: Crops, out: Path) -> Path:
    """`model` by onnxruntime's own quantiser: unsigned activations, weights of 8 bits per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class OneBatch(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter([{"image": crops}])

        def get_next(self) -> dict[str, Crops] | None:
            return next(self._batches, None)

    form = {"quant_format": QuantFormat.QDQ, "per_channel": True, "activation_type": QuantType.QUInt8}
    quantize_static(str(model), str(out), OneBatch(), **form)
    attach(open_graph(model)[1].model_copy(update={"precision": "int8", "golden": None}), out)
    return out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--quantise", type=Path)
    parser.add_argument("--limit", type=int, default=3589)
    parser.add_argument("--qemu", default=shutil.which("qemu-x86_64-static") or "qemu-x86_64")
    parser.add_argument("--cpu", action="append")
    given = parser.parse_args()
    dataset = open_dataset(given.data)
    rows = dataset.rows("val")[: given.limit]

    def crops_of(spec: InputSpec, split: str = "val", n: int = given.limit) -> Crops:
        return to_inputs(list(load_images(dataset, dataset.rows(split)[:n])), spec)

    with tempfile.TemporaryDirectory() as folder:
        work, models = Path(folder), [*given.models]
        if given.quantise is not None:
            spec = open_graph(given.quantise)[1].input
            # Rows stand by label: every tenth of the val split has all of them.
            models.append(quantised(given.quantise, crops_of(spec)[:: max(1, len(rows) // 128)], work / "8-bit.onnx"))
        print(f"{len(rows):,} images\n\n| file | processor | labels that differ | max |Δp| |\n|---|---|---|---|")
        for model in models:
            crops = crops_of(open_graph(model)[1].input)
            here = answered([], model, crops, work)
            for cpu in given.cpu or ["Haswell", "Nehalem"]:
                there = answered([given.qemu, "-cpu", cpu], model, crops, work)
                changed = int((here.argmax(1) != there.argmax(1)).sum())
                print(f"| {model.name} | {cpu} | {changed:,} | {np.abs(here - there).max():.1e} |", flush=True)


if __name__ == "__main__":
    main()
