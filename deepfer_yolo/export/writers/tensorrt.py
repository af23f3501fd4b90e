"""A TensorRT engine from our ONNX graph, built on the machine where it will run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from deepfer_yolo.export.calibration import calibration_images, observe, prepare
from deepfer_yolo.export.candidates import Candidate, Request
from deepfer_yolo.export.fp16 import to_fp16
from deepfer_yolo.export.graph import save
from deepfer_yolo.export.int8 import Quantiser, Rung
from deepfer_yolo.runtime.backends.tensorrt import environment, import_tensorrt, require_driver
from deepfer_yolo.runtime.engine_cache import build_engine

if TYPE_CHECKING:
    import onnx

RUNGS = (Rung("min-max", "min-max"), Rung("least squares"))


def candidates(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    """The engine in the wanted precision; int8 that fails parity is followed by fp16.

    Raises MissingDependencyError without GPU or library.
    """
    require_driver()
    config = request.config
    here = environment(import_tensorrt(full=True))
    compatible = config.version_compatible

    def candidate(name: str, precision: str, made: onnx.ModelProto) -> Candidate:
        def write(path: Path) -> None:
            source = request.scratch / "engine.onnx"
            save(made, source)
            build_engine(source, path, here, batch=config.batch, version_compatible=compatible)

        # What the engine is bound to is compared before it is opened anywhere.
        bound = here | {"version_compatible": "yes" if compatible else "no"}
        return Candidate(name, precision, write, "fp16" if precision == "fp16" else None, producer=bound)

    precision = config.precision
    if precision == "int8":
        crops, _ = calibration_images(request.data, request.card.input, config.calibration, request.avoid)
        quantiser = Quantiser(observe(prepare(graph, request.scratch), crops), request.scratch, symmetric=True)
        for rung in RUNGS:
            yield candidate(f"int8, {rung.name}", "int8", quantiser.make(rung))
        precision = "fp16"
    yield candidate(precision, precision, to_fp16(graph) if precision == "fp16" else graph)
