"""ONNX: our graph of a checkpoint, uint8 images in and probabilities out, and what is tried of it."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 - this package is one of the few that know torch

from deepfer_yolo.export import fp16, int8
from deepfer_yolo.export.candidates import Candidate, Request, of_graph
from deepfer_yolo.export.graph import lighten, pixel_products, strip
from deepfer_yolo.runtime.onnx_graph import INPUT, OUTPUT
from deepfer_yolo.yolo import RepConv, first_convolution

if TYPE_CHECKING:
    import onnx


class ProbabilityGraph(torch.nn.Module):
    """A YOLO classifier with cast, transpose, scale, temperature and softmax: uint8 (n, S, S, 3) to float32 (n, C)."""

    def __init__(self, network: torch.nn.Module, temperature: float) -> None:
        super().__init__()
        self.network = merged(network)
        self.temperature = temperature

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Probabilities (n, C)."""
        # The cast comes first: TensorRT takes uint8 at its border and nowhere else.
        return self.probabilities(image.to(torch.float32).permute(0, 3, 1, 2) / 255)

    def probabilities(self, planes: torch.Tensor) -> torch.Tensor:
        """The network's answer to float planes; it gives (probabilities, logits) in evaluation mode."""
        logits: torch.Tensor = self.network(planes)[1]
        if self.temperature != 1.0:
            logits = logits / self.temperature
        return torch.softmax(logits, dim=1)


class OnePlaneGraph(ProbabilityGraph):
    """The same for a network that looks at the middle plane alone: it reads every third byte of a row where it lies,
    and the first convolution takes these steps and the scale on itself.

    To cut the plane out costs a twelfth of the smallest network's time, to cast, transpose and scale three not less.
    """

    def __init__(self, network: torch.nn.Module, temperature: float) -> None:
        super().__init__(network, temperature)
        layer = first_convolution(self.network)
        down, across = layer.stride
        above, beside = (int(side) for side in layer.padding)
        layer.weight = torch.nn.Parameter(layer.weight[:, 1:2] / 255)
        layer.in_channels, layer.dilation = 1, (1, 3)
        layer.stride, layer.padding = (down, 3 * across), (above, 3 * beside - 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Probabilities (n, C)."""
        side = image.shape[1]
        return self.probabilities(image.to(torch.float32).view(-1, 1, side, 3 * side))


def merged(network: torch.nn.Module) -> torch.nn.Module:
    """A copy of `network` whose re-parameterised convolutions are one convolution each, and whose head does not pool a
    single pixel.
    """
    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, RepConv):
            layer.fuse_convs()
            layer.forward = layer.forward_fuse
    layers: Any = getattr(network, "model", None)
    if (
        isinstance(layers, torch.nn.Sequential)
        and isinstance(layers[-2], torch.nn.AdaptiveAvgPool2d)
        and layers[-2].output_size == 1
    ):
        layers[-1].pool = torch.nn.Identity()
    return network


def reads_one_plane(network: torch.nn.Module) -> bool:
    """Whether `network` can be exported as an `OnePlaneGraph`: its first layer ignores red and blue."""
    layer = first_convolution(network)
    return (
        (layer.in_channels, layer.groups, layer.dilation) == (3, 1, (1, 1))
        and not isinstance(layer.padding, str)
        and layer.padding[1] > 0
        and layer.padding_mode == "zeros"
        and not bool(layer.weight[:, ::2].any())
    )


def build_graph(
    network: torch.nn.Module, size: int, *, temperature: float = 1.0, opset: int = 17, batch: int | None = None
) -> onnx.ModelProto:
    """The ONNX model of `network`, slimmed and lightened; `batch` None makes the number of images dynamic.

    It carries no card yet.
    """
    import onnx
    import onnxslim

    kind = OnePlaneGraph if reads_one_plane(network) else ProbabilityGraph
    wrapped = kind(network, temperature).eval()
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


def candidates(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    """The graph in the wanted precision; int8 that fails parity is followed by fp16."""
    precision = request.config.precision
    if precision == "fp32":
        yield of_graph("fp32", "fp32", lambda: pixel_products(graph))
        return
    if precision == "int8":
        yield from int8.ladder(graph, request)
    yield from fp16.ladder(graph, arithmetic=request.config.fp16_arithmetic)
