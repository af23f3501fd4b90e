"""Model files on other processors: the tables of docs/deploy.md and docs/formats.md.

.venv/bin/python tests/benchmarks/devices.py DATASET deepfer-n deepfer-n-int8.onnx deepfer-xs [--limit 3589]
    [--rounds 9] [--device AVX2 --device cortex-a72 …] [--quantise FP32.onnx] [--arm FOLDER]

A row is a file on a device: the worst figure of `deepfer verify`; of n images of the val split, how many labels are not
those of the same file here, and not those of the first file on the same device; and, where the device is this processor
with instructions masked (fewer_instructions.c; Linux on x86-64 with cpuid_fault, and a C compiler), the processor time
of an image in batches of 32 on one thread, and that of the first file as a multiple of it, medians over rounds in which
all take turns. Others are emulated by qemu, which says nothing of speed: tests/emulation.py. `--quantise` adds a file
as onnxruntime's own quantiser makes it with unsigned activations and 8-bit weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deepfer_yolo.data.dataset import load_images, open_dataset
from deepfer_yolo.records import Crops
from deepfer_yolo.runs import cpu_name
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.runtime.model_file import attach, locate
from deepfer_yolo.runtime.onnx_graph import open_graph
from deepfer_yolo.runtime.preprocess import to_inputs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from emulation import Arm, Device, call, kept_folder, x86

MASKED = {"all it has": 0, "AVX512-VNNI": 1, "AVX2": 2, "AVX": 3, "SSE4.2": 4}
"""This processor with fewer instructions: what fewer_instructions.c calls them."""
X86 = {"Haswell": "AVX2", "Nehalem": "SSE4.2"}
ARM = {"cortex-a72": "NEON", "cortex-a76": "NEON, dot products, fp16", "max": "NEON, SVE, all that qemu has"}
"""Emulated, by qemu's names."""
SESSION = """
import sys, time
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
crops = np.load(sys.argv[2])
"""
ANSWER = """
parts = [session.run(["probs"], {"image": crops[i : i + 32]})[0] for i in range(0, len(crops), 32)]
np.save(sys.argv[3], np.concatenate(parts))
"""
TIME = """
times = []
for _ in range(20):
    began = time.thread_time()
    session.run(["probs"], {"image": crops[:32]})
    times.append(time.thread_time() - began)
print(float(np.median(times[2:])) / 32 * 1000)
"""


def masked(name: str, work: Path) -> Device:
    """This processor, with instructions masked."""
    library = work / "fewer_instructions.so"
    if not library.exists():
        call("cc", "-O1", "-shared", "-fPIC", "-o", library, Path(__file__).with_name("fewer_instructions.c"))
    settings = {"LD_PRELOAD": str(library), "INSTRUCTIONS": str(MASKED[name])}
    return Device.of(name, work, settings, [sys.executable])


def answered(device: Device, model: Path, crops: Path, work: Path) -> np.ndarray:
    """The model's probabilities on the device."""
    call(device.program, "-c", SESSION + ANSWER, model, crops, work / "probs.npy")
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


def worst(device: Device, model: Path) -> str:
    """max |Δp| of the golden self-test, or that the file has none."""
    if open_graph(model)[1].golden is None:
        return "no golden answers"
    line = [str(device.program), "-m", "deepfer_yolo", "verify", str(model), "--json", "--timeout-s", "36000"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    result = json.loads(done.stdout)
    return f"{result['max_diff']:.1e}{'' if result['passed'] else ' FAILED'}"


def times_ms(
    devices: Mapping[str, Device], models: Mapping[Path, Path], rounds: int
) -> dict[tuple[str, Path], list[float]]:
    """Milliseconds an image of each file on each device, one number a round."""
    found: dict[tuple[str, Path], list[float]] = {(name, model): [] for name in devices for model in models}
    for _ in range(rounds):
        for (name, model), times in found.items():
            times.append(float(call(devices[name].program, "-c", SESSION + TIME, model, models[model])))
    return found


def speeds(found: dict[tuple[str, Path], list[float]], first: Path) -> dict[tuple[str, Path], str]:
    """As the table shows them: the median, and that of the first file on the device over it, with its range."""
    shown = {}
    for (name, model), times in found.items():
        ratios = sorted(whole / one for whole, one in zip(found[name, first], times, strict=True))
        spread = f" {statistics.median(ratios):.2f} × ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        shown[name, model] = f"{statistics.median(times):.2f} |" + ("" if model == first else spread)
    return shown


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--quantise", type=Path)
    parser.add_argument("--limit", type=int, default=3589)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", action="append", choices=[*MASKED, *X86, *ARM])
    parser.add_argument("--arm", type=Path, help="where the arm64 system stays")
    given = parser.parse_args()
    dataset = open_dataset(given.data)
    rows = dataset.rows("val")
    rows = rows[:: max(1, len(rows) // given.limit)][: given.limit]  # they stand by label

    def crops_of(spec: InputSpec) -> Crops:
        return to_inputs(list(load_images(dataset, rows)), spec)

    with tempfile.TemporaryDirectory() as folder:
        work, files = Path(folder), [locate(model) for model in given.models]
        if given.quantise is not None:
            whole = locate(given.quantise)
            few = crops_of(open_graph(whole)[1].input)[:: max(1, len(rows) // 128)]
            files.append(quantised(whole, few, work / f"{whole.stem}-8-bit.onnx"))
        crops = {model: work / f"{place}.npy" for place, model in enumerate(files)}
        for model, path in crops.items():
            np.save(path, crops_of(open_graph(model)[1].input))
        print(f"{len(rows):,} images; {cpu_name()}\n")
        show(given.device or [*MASKED, *X86, *ARM], crops, given.rounds, given.arm or kept_folder(work), work)


def show(names: list[str], crops: dict[Path, Path], rounds: int, arm: Path, work: Path) -> None:
    """The table, row by row as they are measured."""
    own = Device.of("own", work, {}, [sys.executable])
    devices = {name: masked(name, work) for name in names if name in MASKED}
    times = speeds(times_ms(devices, crops, rounds), next(iter(crops)))
    devices |= {name: x86(name, work) for name in names if name in X86}
    if wanted := [name for name in names if name in ARM]:
        system = Arm(arm)
        devices |= {name: system.device(name, work) for name in wanted}
    print("| processor | file | verify | labels not as here | not as the first file | ms | speed |")
    print("|---|---|---|---|---|---|---|")
    here = {model: answered(own, model, path, work) for model, path in crops.items()}
    for name, device in devices.items():
        what = f"this one, {name}" if name in MASKED else f"emulated {name} ({(X86 | ARM)[name]})"
        there = {model: answered(device, model, path, work) for model, path in crops.items()}
        first = next(iter(there.values()))
        for model, probs in there.items():
            changed, apart = (int((probs.argmax(1) != other.argmax(1)).sum()) for other in (here[model], first))
            file = f"{model.stem}, {open_graph(model)[1].precision}"
            moved = f"{changed} ({np.abs(probs - here[model]).max():.1e})"
            cells = (what, file, worst(device, model), moved, str(apart), times.get((name, model), " | "))
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
