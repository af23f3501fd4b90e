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
from deepfer_yolo.export.writers.free_batch import TRACED_N, free_batch
from deepfer_yolo.yolo import load_checkpoint

if TYPE_CHECKING:
    import onnx


def torchscript(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    """The traced graph of the ONNX export, in torch's own file: the same uint8 images in, probabilities out."""
    yield Candidate("fp32", "fp32", lambda path: _trace(_network(request, ProbabilityGraph), _images(request, 2), path))


def ncnn(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    """Ncnn's param and bin, weights in fp32 or fp16."""
    precision, size = request.config.precision, request.card.input.size

    def write(path: Path) -> None:
        with explained_imports():
            import pnnx
        planes, traced = torch.zeros((1, 3, size, size)), request.scratch / "traced.pt"
        _trace(_network(request, PlanesGraph), planes, traced)
        files = {"ncnnparam": str(path), "ncnnbin": str(path.with_suffix(".bin"))}
        with _silent():
            pnnx.convert(str(traced), (planes,), **files, fp16=precision == "fp16")
        if not path.is_file():
            raise ModelError(f"{request.checkpoint}: pnnx wrote no ncnn model", "use another format")

    yield Candidate(precision, precision, write, "fp16" if precision == "fp16" else None)


def litert(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    """LiteRT's flat file: the same graph as ONNX has, any number of images a call unless the configuration fixes it."""

    def write(path: Path) -> None:
        with _silent(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with explained_imports():
                import litert_torch
            fixed_n = request.config.batch
            images = _images(request, fixed_n or TRACED_N)
            litert_torch.convert(_network(request, ProbabilityGraph), (images,)).export(str(path))
            if fixed_n is None:
                free_batch(path)

    yield Candidate("fp32", "fp32", write)


class PlanesGraph(ProbabilityGraph):
    """Float planes (1, 3, S, S) in 0..1 to probabilities: our graph where the run-time knows no uint8."""

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Probabilities (1, C)."""
        return self.probabilities(planes)


def _network(request: Request, kind: type[ProbabilityGraph]) -> ProbabilityGraph:
    return kind(load_checkpoint(request.checkpoint), request.card.temperature).eval()


def _images(request: Request, n: int) -> torch.Tensor:
    return torch.zeros((n, request.card.input.size, request.card.input.size, 3), dtype=torch.uint8)


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
