"""Rewritten graphs: the same answers, and what was to go is gone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from deepfer_yolo.export import fp16
from deepfer_yolo.export import onnx as export_onnx
from deepfer_yolo.export.calibration import answers
from deepfer_yolo.export.graph import copied, lighten, pixel_products, shorten
from deepfer_yolo.export.onnx import OnePlaneGraph, build_graph, merged, reads_one_plane
from deepfer_yolo.painted import paint_golden
from deepfer_yolo.presets import find_preset
from deepfer_yolo.runtime.golden import FP16
from deepfer_yolo.yolo import ClassificationModel, RepConv, build_model, load_checkpoint, look_at_one_plane

CROPS = paint_golden(4, 12, 32)
GREY = np.repeat(paint_golden(5, 12, 48)[..., :1], 3, axis=3)


@pytest.fixture(scope="module")
def plain(checkpoint: Path) -> onnx.ModelProto:
    """The graph as torch writes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_onnx, "lighten", lambda model: model)
        return build_graph(load_checkpoint(checkpoint), 32)


def test_what_is_cut_is_calculated_in_parts(plain: onnx.ModelProto) -> None:
    before = Counter(node.op_type for node in plain.graph.node)
    light = lighten(copied(plain))
    after = Counter(node.op_type for node in light.graph.node)
    # C3k2 and C2PSA cut in two what one convolution gives; the attention's own cut, behind no SiLU, stays.
    assert before["Slice"] == 2
    assert before["Split"] == 2
    assert after["Slice"] == 0
    assert after["Split"] == 1
    assert after["Conv"] == before["Conv"] + 2
    assert after["Div"] == before["Div"] == 1
    onnx.checker.check_model(light, full_check=True)
    np.testing.assert_allclose(answers(light, CROPS), answers(plain, CROPS), atol=2e-6)


def test_a_cut_that_others_see_stays(plain: onnx.ModelProto) -> None:
    seen = copied(plain)
    cut = next(node for node in seen.graph.node if node.op_type == "Slice")
    seen.graph.node.append(helper.make_node("Identity", [cut.input[0]], ["watched"], "watched"))
    seen.graph.output.append(helper.make_tensor_value_info("watched", TensorProto.FLOAT, None))
    assert Counter(node.op_type for node in lighten(seen).graph.node)["Slice"] == 2


def test_short_names_change_nothing_but_the_size(plain: onnx.ModelProto) -> None:
    before = plain.SerializeToString()
    short = shorten(plain)
    assert plain.SerializeToString() == before
    assert [value.name for value in (*short.graph.input, *short.graph.output)] == ["image", "probs"]
    assert short.ByteSize() < plain.ByteSize() - 3000
    onnx.checker.check_model(short, full_check=True)
    np.testing.assert_array_equal(answers(short, CROPS), answers(plain, CROPS))


def stored(model: onnx.ModelProto) -> Counter[int]:
    sizes: Counter[int] = Counter()
    for tensor in model.graph.initializer:
        sizes[tensor.data_type] += numpy_helper.to_array(tensor).size
    return sizes


def test_every_fp16_rung_is_smaller_and_close(plain: onnx.ModelProto, tmp_path: Path) -> None:
    light = lighten(copied(plain))
    expected = answers(light, CROPS)
    rungs = list(fp16.ladder(light, arithmetic=True))
    assert [rung.arithmetic for rung in rungs] == ["fp16", "fp16", "fp32"]
    assert [rung.name for rung in fp16.ladder(light)] == [rungs[-1].name]
    assert len({rung.name for rung in rungs}) == 3
    means = []
    for rung in rungs:
        name = rung.name
        rung.write(tmp_path / "half.onnx")
        model = onnx.load(str(tmp_path / "half.onnx"))
        onnx.checker.check_model(model)
        found = stored(model)
        assert found[TensorProto.FLOAT16] > 0.8 * sum(found.values()), name
        casts = {
            node.output[0]
            for node in model.graph.node
            if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT16
        }
        assert not [node.name for node in model.graph.node if node.op_type == "Cast" and node.input[0] in casts], name
        diff = np.abs(answers(model, CROPS) - expected)
        assert 0 < diff.max() < 5e-3, name
        means.append(diff.mean())
        # What processors with fp16 arithmetic make of it: weights that are merely stored answer there as they do here.
        there = np.abs(fp16.emulated(model, CROPS) - answers(model, CROPS)).max()
        assert there < (1e-4 if rung.arithmetic == "fp32" else FP16["fp16"]), name
        assert there > 1e-4 or rung.arithmetic == "fp32", name
    assert means[-1] < means[0]


@pytest.fixture(scope="module", params=["cnn-rep-xs", "cnn-rep-dense-xs"])
def rep(request: pytest.FixtureRequest) -> ClassificationModel:
    """A smallest network, with statistics of its own inputs and no two channels alike, as a trained one has."""
    torch.manual_seed(3)
    model = build_model(str(find_preset("models", request.param)), 7).train()
    look_at_one_plane(model)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, 0, 0.2)
            layer.momentum = None  # statistics are the mean over all that was seen: one batch is enough
    torch.nn.init.normal_(model.model[-1].linear.weight, 0, 0.1)
    model(torch.from_numpy(GREY).permute(0, 3, 1, 2) / 255)
    model.names = dict(enumerate("abcdefg"))
    return model.eval()


def test_merged_branches_answer_as_the_branches_do(rep: ClassificationModel) -> None:
    planes = torch.from_numpy(GREY).permute(0, 3, 1, 2) / 255
    n_branched = sum(isinstance(layer, RepConv) for layer in rep.modules())
    with torch.inference_mode():
        one = merged(rep)
        before, after = rep(planes)[0], one(planes)[0]
    assert n_branched >= 3
    assert float(before.std(0).min()) > 0.02
    np.testing.assert_allclose(after, before, atol=1e-5)
    assert all(hasattr(layer, "conv1") for layer in rep.modules() if isinstance(layer, RepConv))
    assert not any(hasattr(layer, "conv1") for layer in one.modules() if isinstance(layer, RepConv))


def test_the_exported_graph_is_convolutions_and_relus(rep: ClassificationModel) -> None:
    found = Counter(node.op_type for node in build_graph(rep, 48).graph.node)
    n_layers = sum(isinstance(layer, torch.nn.Conv2d) for layer in merged(rep).modules())
    assert found["Conv"] == found["Relu"] == n_layers
    assert set(found) - {"Conv", "Relu"} == {"Cast", "Reshape", "GlobalAveragePool", "Flatten", "Gemm", "Softmax"}
    assert found["GlobalAveragePool"] == 1


def test_the_head_of_a_pooled_pixel_is_a_matrix_product(rep: ClassificationModel, plain: onnx.ModelProto) -> None:
    before = build_graph(rep, 48)
    after = pixel_products(before)
    onnx.checker.check_model(after, full_check=True)
    counts = [Counter(node.op_type for node in model.graph.node) for model in (before, after)]
    assert [count["Gemm"] for count in counts] == [1, 2]
    assert counts[1]["Conv"] == counts[0]["Conv"] - 1
    np.testing.assert_allclose(answers(after, GREY), answers(before, GREY), atol=1e-6)
    assert pixel_products(plain) == plain  # no convolution follows its pooling


def test_one_plane_is_read_with_the_answers_of_the_checkpoint(rep: ClassificationModel) -> None:
    colour = paint_golden(6, 12, 48)
    found = answers(build_graph(rep, 48), colour)
    with torch.inference_mode():
        expected = torch.softmax(rep(torch.from_numpy(colour).permute(0, 3, 1, 2) / 255)[1], 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found, answers(build_graph(rep, 48), colour[..., 1:2].repeat(3, 3)), atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "side"), [(3, 1, 1, 9), (3, 2, 1, 8), (5, 2, 2, 11), (4, 3, 1, 10)]
)
def test_one_plane_holds_for_every_kernel(kernel: int, stride: int, padding: int, side: int) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, kernel, stride, padding)
    assert not reads_one_plane(layer)
    torch.nn.init.zeros_(layer.weight[:, ::2])
    image = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)
    assert reads_one_plane(layer)
    graph = OnePlaneGraph(layer, 1.0)
    with torch.inference_mode():
        found = graph.network(image.float().view(-1, 1, side, 3 * side))
        expected = layer(image.float().permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_other_first_layers_keep_all_planes() -> None:
    for layer in (
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.Conv2d(3, 3, 3, padding=1, groups=3),
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.Conv2d(3, 4, 3, padding="same"),
        torch.nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
    ):
        torch.nn.init.zeros_(layer.weight)
        assert not reads_one_plane(layer)
