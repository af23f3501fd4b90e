"""A TensorRT engine from our ONNX graph, built on the machine where it will run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from deepfer_yolo.export.candidates import Candidate, Request
from deepfer_yolo.export.fp16 import to_fp16
from deepfer_yolo.export.int8 import Quantiser, Rung, calibration_pictures, prepare
from deepfer_yolo.export.onnx import save
from deepfer_yolo.export.rounding import observe
from deepfer_yolo.runtime.backends.tensorrt import environment, import_tensorrt, require_driver
from deepfer_yolo.runtime.engine_cache import build_engine

if TYPE_CHECKING:
    import onnx

RUNGS = (Rung("min-max", "min-max", bits=8), Rung("least squares", bits=8))
"""Signed weights with all 8 bits: a GPU's sums do not saturate."""


def candidates(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    """The engine in the wanted precision; int8 that fails parity is followed by fp16.

    Raises MissingDependencyError without GPU or library.
    """
    require_driver()
    import_tensorrt(full=True)
    precision = request.config.precision
    if precision == "int8" and request.data is not None:
        crops, _ = calibration_pictures(request.data, request.card.input, request.config.calibration, request.avoid)
        quantiser = Quantiser(observe(prepare(graph, request.scratch), crops), request.scratch, symmetric=True)
        for rung in RUNGS:
            made = quantiser.make(rung)
            yield Candidate(f"int8, {rung.name}", "int8", lambda path, made=made: _build(made, request, path))  # type: ignore[misc]
        precision = "fp16"
    made = to_fp16(graph) if precision == "fp16" else graph
    yield Candidate(precision, precision, lambda path: _build(made, request, path))


def describe(request: Request) -> dict[str, str]:
    """What the engine is bound to, for its card; compared before it is opened anywhere."""
    bound = environment(import_tensorrt(full=True))
    return bound | {"version_compatible": "yes" if request.config.version_compatible else "no"}


def _build(graph: onnx.ModelProto, request: Request, path: Path) -> None:
    source = request.scratch / "engine.onnx"
    save(graph, source)
    here = environment(import_tensorrt(full=True))
    build_engine(source, path, here, batch=request.config.batch, version_compatible=request.config.version_compatible)
