"""ONNX Runtime, which runs every exported ONNX file on the processor or through CUDA."""

from __future__ import annotations

from pathlib import Path

from deepfer_yolo.errors import MissingDependencyError, ModelError
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.backends.protocol import first_line, in_batches
from deepfer_yolo.runtime.onnx_graph import INPUT, OUTPUT, io_shapes, open_graph

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Our short names for onnxruntime's execution providers."""
_OUTPUTS = [OUTPUT]


class OnnxBackend:
    """An exported ONNX graph in onnxruntime. An absent provider is an error, never a silent fallback."""

    def __init__(self, path: Path, *, provider: str = "cpu", threads: int = 1, spin: bool = False) -> None:
        import onnxruntime as ort

        if PROVIDERS[provider] not in ort.get_available_providers():
            raise MissingDependencyError(
                f"onnxruntime here has no provider '{provider}'", "deepfer doctor shows which there are"
            )
        model, self.card = open_graph(path)
        self.provider = provider
        self.threads = threads
        self._path = path
        self._fixed_n = io_shapes(model, path)[0][0]
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Threads that wait for the next batch sleep: spinning ones take a third of the two cores from the threads that
        # decode it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # What was checked is an ONNX file; the same bytes may be one of onnxruntime's own format, too.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            self._session = ort.InferenceSession(bytes(model.content), options, providers=[PROVIDERS[provider]])
        except Exception as error:  # onnxruntime's exception types share no base class of their own
            raise ModelError(
                f"{path}: onnxruntime refuses the graph: {first_line(error)}", "export it again with: deepfer export"
            ) from None
        self._session.disable_fallback()
        used = self._session.get_providers()[0]
        if used != PROVIDERS[provider]:
            raise MissingDependencyError(
                f"onnxruntime could not start '{provider}' and would have used {used}",
                "deepfer doctor shows what is there",
            )

    def run(self, crops: Crops) -> Probs:
        """See `Backend.run`."""
        if self._fixed_n is not None and len(crops) != self._fixed_n:
            return in_batches(self.run, crops, self._fixed_n)
        try:
            probs: Probs = self._session.run(_OUTPUTS, {INPUT: crops})[0]
        except Exception as error:
            raise ModelError(f"{self._path}: onnxruntime failed on {len(crops)} images: {first_line(error)}") from None
        return probs
