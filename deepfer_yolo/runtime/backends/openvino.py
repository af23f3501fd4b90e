"""OpenVINO: its own IR, or our ONNX file, on the processor."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from deepfer_yolo.errors import ModelError, explained_imports
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.runtime.model_file import checked_sidecar, parts
from deepfer_yolo.runtime.onnx_graph import INPUT, OUTPUT, open_graph


def import_openvino() -> ModuleType:
    """The library, its telemetry made impossible first; raises MissingDependencyError where it is not installed."""
    # Its import writes a client identity into the home folder and later sends events; without this module it does
    # neither.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    with explained_imports():
        import openvino
    module: ModuleType = openvino
    return module


class OpenVinoBackend:
    """An IR (`.xml` with its `.bin`) or an exported ONNX graph in OpenVINO, in fp32 arithmetic where the file leaves
    the choice; with `precision` None in what the library chooses. `arithmetic` says which it is.
    """

    provider = "openvino"

    def __init__(self, path: Path, *, threads: int = 1, precision: str | None = "f32") -> None:
        openvino = import_openvino()
        core = openvino.Core()
        try:
            if path.suffix == ".onnx":
                graph, card = open_graph(path)
                self.card: Card = card
                model = core.read_model(bytes(graph.content), b"")
            else:
                self.card = checked_sidecar(path)
                model = core.read_model(*map(str, parts(path)))
            _check_form(model, self.card, path)
            # bf16 and fp16 arithmetic, which some processors would choose by themselves, would not be the answers that
            # were proven.
            hints = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
            chosen = {} if precision is None else {"INFERENCE_PRECISION_HINT": precision}
            self._compiled = core.compile_model(model, "CPU", hints | chosen)
            self.arithmetic = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        except RuntimeError as error:
            raise ModelError(
                f"{path}: OpenVINO refuses the model: {_last_line(error)}", "export it again with: deepfer export"
            ) from None
        self._request = self._compiled.create_infer_request()
        self.threads = threads
        self._path = path

    def run(self, crops: Crops) -> Probs:
        """See `Backend.run`."""
        try:
            self._request.infer({INPUT: crops}, share_inputs=True)
        except RuntimeError as error:
            raise ModelError(f"{self._path}: OpenVINO failed on {len(crops)} images: {_last_line(error)}") from None
        probs: Probs = self._request.get_output_tensor(0).data.copy()
        return probs


def _check_form(model: Any, card: Card, path: Path) -> None:
    """Raise ModelError unless the model takes uint8 (n, S, S, 3) and gives one row an image, as the card says."""
    side, n_labels = card.input.size, len(card.labels)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"{path} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; a classifier has one of each"
        )
    source, answer = model.input(0), model.output(0)
    shown = f"{source.element_type.get_type_name()} {source.partial_shape} to {answer.partial_shape}"
    sides = [dim.get_length() if dim.is_static else None for dim in source.partial_shape]
    columns = (
        answer.partial_shape[1] if answer.partial_shape.rank.is_static and len(answer.partial_shape) == 2 else None
    )
    named = INPUT in source.get_names() and OUTPUT in answer.get_names()
    right = source.element_type.get_type_name() == "u8" and sides[1:] == [side, side, 3]
    if not (named and right and columns is not None and columns.is_static and columns.get_length() == n_labels):
        raise ModelError(
            f"{path}: the card says uint8 (n, {side}, {side}, 3) to (n, {n_labels}), the model says {shown}"
        )


def _last_line(error: BaseException) -> str:
    """What went wrong; the lines before it say where in the library."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
