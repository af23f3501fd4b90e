"""TensorRT: an engine file on an NVIDIA GPU.

Without a driver the library crashes the process, so it is asked for first.
"""

from __future__ import annotations

import ctypes
import importlib
import platform
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from deepfer_yolo.errors import MissingDependencyError, ModelError, explained_imports
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.model_file import checked_sidecar
from deepfer_yolo.runtime.onnx_graph import INPUT, OUTPUT

MODULES = ("tensorrt", "tensorrt_lean")
"""The full library, or the small one that runs version-compatible engines only."""
DRIVERS = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")


def require_driver() -> None:
    """Raise MissingDependencyError unless the NVIDIA driver's library is there and finds a device."""
    for name in DRIVERS:
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0:
            return
        raise MissingDependencyError(
            "TensorRT needs an NVIDIA GPU: the driver is installed and finds no device",
            "deepfer doctor shows the devices",
        )
    raise MissingDependencyError(
        f"TensorRT needs an NVIDIA GPU: the driver's library ({DRIVERS[0]}) is not on this machine",
        "export --format onnx runs everywhere",
    )


def import_tensorrt(*, full: bool = False) -> ModuleType:
    """The library, or its lean run-time where `full` is not asked for; raises MissingDependencyError where neither is
    installed.
    """
    for name in MODULES[:1] if full else MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingDependencyError.for_extra("tensorrt", MODULES[0])


def environment(trt: ModuleType) -> dict[str, str]:
    """What an engine is bound to: TensorRT's version, the GPU's compute capability, the system and its processor."""
    cuda = _cuda()
    device = _checked(cuda.cudaGetDevice())
    major = _checked(cuda.cudaDeviceGetAttribute(cuda.cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor, device))
    minor = _checked(cuda.cudaDeviceGetAttribute(cuda.cudaDeviceAttr.cudaDevAttrComputeCapabilityMinor, device))
    return {
        "tensorrt": str(trt.__version__),
        "compute_capability": f"{major}.{minor}",
        "system": f"{sys.platform}-{platform.machine()}",
    }


def check_environment(built_with: dict[str, str], here: dict[str, str], where: str) -> None:
    """Raise ModelError that names each difference between where an engine was built and here.

    A version-compatible engine runs on any version of the same major number; a version that is not, on its own alone.
    """
    compatible = built_with.get("version_compatible") == "yes"
    problems = []
    for key, shown in (("tensorrt", "TensorRT"), ("compute_capability", "compute capability"), ("system", "system")):
        built, now = built_with.get(key, "unknown"), here[key]
        same = built.split(".")[0] == now.split(".")[0] if key == "tensorrt" and compatible else built == now
        if not same:
            problems.append(f"{shown} {built} there, {now} here")
    if problems:
        raise ModelError(
            f"{where} was built for another machine: {'; '.join(problems)}",
            "build it here: deepfer export MODEL.pt --format engine --overwrite",
        )


class TensorRtBackend:
    """An engine with its sidecar.

    Version, device and system are compared before a byte of it is given to the library.
    """

    provider = "tensorrt"

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        require_driver()
        trt = import_tensorrt()
        self.card = checked_sidecar(path)
        if self.card.file_sha256 is None:
            # An engine holds code for the device and the host, so that only a file which our own export has vouched for
            # is run.
            raise ModelError(
                f"{path}: its card has no file_sha256", "build it here: deepfer export MODEL.pt --format engine"
            )
        self.threads = threads
        self._path = path
        check_environment(self.card.producer, environment(trt), str(path))
        runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        if self.card.producer.get("version_compatible") == "yes":
            runtime.engine_host_code_allowed = True
        self._engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise ModelError(
                f"{path}: TensorRT refuses the engine",
                "build it here: deepfer export MODEL.pt --format engine --overwrite",
            )
        self._runtime = runtime
        self._context = self._engine.create_execution_context()
        self._check_form()
        self._max_n = int(self._engine.get_tensor_profile_shape(INPUT, 0)[2][0])
        self._buffers = _Buffers(self._max_n, self.card.input.size, len(self.card.labels))

    def _check_form(self) -> None:
        names = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        shape = tuple(self._engine.get_tensor_shape(INPUT)) if INPUT in names else ()
        side = self.card.input.size
        if names != {INPUT, OUTPUT} or shape[1:] != (side, side, 3):
            found = f"{', '.join(sorted(names))} {shape}"
            raise ModelError(f"{self._path}: the card says uint8 (n, {side}, {side}, 3), the engine has {found}")

    def run(self, crops: Crops) -> Probs:
        """See `Backend.run`. More images than the engine's profile holds go through in several calls."""
        parts = [self._run(crops[start : start + self._max_n]) for start in range(0, len(crops), self._max_n)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, crops: Crops) -> Probs:
        buffers = self._buffers
        buffers.upload(crops)
        self._context.set_input_shape(INPUT, crops.shape)
        self._context.set_tensor_address(INPUT, buffers.source)
        self._context.set_tensor_address(OUTPUT, buffers.answer)
        if not self._context.execute_async_v3(buffers.stream):
            raise ModelError(f"{self._path}: TensorRT failed on {len(crops)} images")
        return buffers.download(len(crops))


class _Buffers:
    """Device memory for the largest batch, and one stream."""

    def __init__(self, n: int, size: int, n_labels: int) -> None:
        cuda = _cuda()
        self._cuda = cuda
        self._n_labels = n_labels
        self.source: int = _checked(cuda.cudaMalloc(n * size * size * 3))
        self.answer: int = _checked(cuda.cudaMalloc(n * n_labels * 4))
        self.stream: int = int(_checked(cuda.cudaStreamCreate()))

    def upload(self, crops: Crops) -> None:
        """Images to the device, in order with what the stream does."""
        array = np.ascontiguousarray(crops)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(self._cuda.cudaMemcpyAsync(self.source, array.ctypes.data, array.nbytes, kind, self.stream))

    def download(self, n: int) -> Probs:
        """The answers for `n` images; waits for them."""
        probs = np.empty((n, self._n_labels), np.float32)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _checked(self._cuda.cudaMemcpyAsync(probs.ctypes.data, self.answer, probs.nbytes, kind, self.stream))
        _checked(self._cuda.cudaStreamSynchronize(self.stream))
        return probs

    def __del__(self) -> None:
        for free, handle in (("cudaFree", "source"), ("cudaFree", "answer"), ("cudaStreamDestroy", "stream")):
            if hasattr(self, handle):
                getattr(self._cuda, free)(getattr(self, handle))


def _cuda() -> Any:
    with explained_imports():
        return importlib.import_module("cuda.bindings.runtime")


def _checked(result: tuple[Any, ...]) -> Any:
    """The value of a CUDA call, whose first item is its error code; raises ModelError for any code but 0."""
    code = result[0]
    if int(code) != 0:
        raise ModelError(f"CUDA failed: {getattr(code, 'name', code)}", "deepfer doctor shows the devices")
    return result[1] if len(result) > 1 else None
