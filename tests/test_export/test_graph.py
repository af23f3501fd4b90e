"""Rewritten graphs: the same answers, and what was to go is gone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deepfer_yolo.export import fp16
from deepfer_yolo.export import onnx as export_onnx
from deepfer_yolo.export.calibration import answers
from deepfer_yolo.export.graph import copied, lighten, shorten
from deepfer_yolo.export.onnx import build_graph
from deepfer_yolo.painted import paint_golden
from deepfer_yolo.yolo import load_checkpoint

CROPS = paint_golden(4, 12, 32)


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
    rungs = list(fp16.ladder(light))
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
    assert means[-1] < means[0]
