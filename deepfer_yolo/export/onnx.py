"""From a checkpoint to our ONNX graph: uint8 pictures in, probabilities out, the network and everything around it
inside.
"""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch  # noqa: TID253 - this package is one of the few that know torch

from deepfer_yolo import __version__
from deepfer_yolo.export.rewrite import lighten
from deepfer_yolo.runtime.onnx_graph import INPUT, OUTPUT

if TYPE_CHECKING:
    import onnx


class ProbabilityGraph(torch.nn.Module):
    """A YOLO classifier with its cast, transpose, scale, temperature and softmax: uint8 (n, S, S, 3) to float32 (n, C)."""

    def __init__(self, network: torch.nn.Module, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Probabilities; the network answers with (probabilities, logits) in evaluation mode."""
        # The cast comes first: TensorRT takes uint8 at its border and nowhere else.
        planes = image.to(torch.float32).permute(0, 3, 1, 2) / 255
        logits: torch.Tensor = self.network(planes)[1]
        if self.temperature != 1.0:
            logits = logits / self.temperature
        return torch.softmax(logits, dim=1)


def build_graph(
    network: torch.nn.Module, size: int, *, temperature: float = 1.0, opset: int = 17, batch: int | None = None
) -> onnx.ModelProto:
    """The ONNX model of `network`, slimmed and lightened; `batch` None makes the number of pictures dynamic.

    It carries no card yet.
    """
    import onnx
    import onnxslim

    wrapped = ProbabilityGraph(network, temperature).eval()
    example = torch.zeros((batch or 2, size, size, 3), dtype=torch.uint8)
    dynamic = {INPUT: {0: "n"}, OUTPUT: {0: "n"}} if batch is None else None
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the TorchScript exporter announces its successor, which needs onnxscript
        file = Path(folder) / "graph.onnx"
        torch.onnx.export(
            wrapped,
            (example,),
            file,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes=dynamic,
            opset_version=opset,
            dynamo=False,
        )
        model = onnx.load(file)
    logging.getLogger("onnxslim").setLevel(logging.ERROR)
    return strip(lighten(onnxslim.slim(model)))


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` without source paths, notes and intermediate shapes, which would make its bytes differ by machine."""
    model.producer_name, model.producer_version, model.doc_string = "deepfer", __version__, ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    model.graph.doc_string = ""
    model.graph.name = "deepfer"
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write the model as one file, no data beside it."""
    path.write_bytes(model.SerializeToString())


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' log lines and warnings: what matters of them is measured afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        # The calibrators print their progress to stdout, which belongs to results.
        with warnings.catch_warnings(), np.errstate(all="ignore"), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
