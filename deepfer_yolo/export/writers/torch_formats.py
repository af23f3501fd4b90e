"""Formats that are made from the network itself: TorchScript, ncnn through pnnx, and LiteRT."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch  # noqa: TID253 - this package is one of the few that know torch

from deepfer_yolo.errors import ModelError, explained_imports
from deepfer_yolo.export.candidates import Candidate, Request
from deepfer_yolo.export.onnx import ProbabilityGraph
from deepfer_yolo.yolo import load_checkpoint

if TYPE_CHECKING:
    import onnx


def torchscript(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    """The traced graph of the ONNX export, in torch's own file: the same uint8 images in, probabilities out."""
    yield Candidate("fp32", "fp32", lambda path: _write_torchscript(request, path))


def ncnn(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    """Ncnn's param and bin, weights in fp32 or fp16."""
    precision = request.config.precision
    yield Candidate(precision, precision, lambda path: _write_ncnn(request, path))


def litert(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    """LiteRT's flat file: the same graph as ONNX has, one image a call unless the configuration fixes more."""
    yield Candidate("fp32", "fp32", lambda path: _write_litert(request, path))


class PlanesGraph(torch.nn.Module):
    """Float planes (1, 3, S, S) in 0..1 to probabilities: our graph where the run-time knows no uint8."""

    def __init__(self, network: torch.nn.Module, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Probabilities (1, C)."""
        logits: torch.Tensor = self.network(planes)[1]
        return torch.softmax(logits / self.temperature, dim=1)


def _write_torchscript(request: Request, path: Path) -> None:
    size = request.card.input.size
    module = ProbabilityGraph(load_checkpoint(request.checkpoint), request.card.temperature).eval()
    _trace(module, torch.zeros((2, size, size, 3), dtype=torch.uint8), path)


def _write_ncnn(request: Request, path: Path) -> None:
    with explained_imports():
        import pnnx
    size = request.card.input.size
    module = PlanesGraph(load_checkpoint(request.checkpoint), request.card.temperature).eval()
    example = torch.zeros((1, 3, size, size))
    traced = request.scratch / "traced.pt"
    _trace(module, example, traced)
    with _silent():
        pnnx.convert(
            str(traced),
            (example,),
            ncnnparam=str(path),
            ncnnbin=str(path.with_suffix(".bin")),
            fp16=request.config.precision == "fp16",
        )
    if not path.is_file():
        raise ModelError(f"{request.checkpoint}: pnnx wrote no ncnn model", "use another format")


def _write_litert(request: Request, path: Path) -> None:
    with _silent():
        with explained_imports():
            import litert_torch
        size = request.card.input.size
        module = ProbabilityGraph(load_checkpoint(request.checkpoint), request.card.temperature).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            litert_torch.convert(
                module, (torch.zeros((request.config.batch or 1, size, size, 3), dtype=torch.uint8),)
            ).export(str(path))


def _trace(module: torch.nn.Module, example: torch.Tensor, path: Path) -> None:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # torch announces the successor of TorchScript
        torch.jit.trace(module, example, check_trace=False).save(str(path))  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what native code and its wrapper print on stdout and stderr, which belongs to results."""
    saved = [os.dup(1), os.dup(2)]
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            yield
    finally:
        for number, copy in enumerate(saved, start=1):
            os.dup2(copy, number)
            os.close(copy)
        os.close(sink)
