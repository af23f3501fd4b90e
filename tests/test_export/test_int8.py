"""Rounding to 8 bits: weights whose errors cancel, ranges that know what follows, blocks back in floating point."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from deepfer_yolo.export.calibration import Observed, answers, observe, prepare
from deepfer_yolo.export.graph import blocks_of_activations
from deepfer_yolo.export.int8 import Quantiser, Rung, divergence, in_float, noise
from deepfer_yolo.export.onnx import build_graph
from deepfer_yolo.export.rounding import best_range, full_range, round_weights, silu, steps_of
from deepfer_yolo.painted import paint_faces
from deepfer_yolo.presets import find_preset
from deepfer_yolo.yolo import build_model, look_at_one_plane


@pytest.fixture(scope="module")
def observed(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Observed:
    faces = np.repeat(paint_faces(8, 96, 32)[0][..., None], 3, axis=3)
    return observe(prepare(onnx.load(exported), tmp_path_factory.mktemp("prepared")), faces)


@pytest.fixture(scope="module")
def quantiser(observed: Observed, tmp_path_factory: pytest.TempPathFactory) -> Quantiser:
    return Quantiser(observed, tmp_path_factory.mktemp("int8"))


def test_errors_of_correlated_inputs_cancel() -> None:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(4000, 3)) @ random.normal(size=(3, 90)) + 0.1 * random.normal(size=(4000, 90))
    weights = random.normal(size=(5, 90)).astype(np.float32)
    steps = steps_of(weights, 7)
    nearest = np.round(weights / steps[:, None]) * steps[:, None]
    found = round_weights(weights, steps, (inputs.T @ inputs / len(inputs))[None], 7)

    def loss(rounded: np.ndarray) -> float:
        return float(np.square(inputs @ (rounded - weights).T).mean())

    assert loss(found) < 0.1 * loss(nearest)
    levels = found / steps[:, None]
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    assert np.abs(levels).max() <= 7.001


def test_uncorrelated_inputs_are_rounded_to_nearest_and_groups_stay_apart() -> None:
    weights = np.array([[[0.26, -1.0]], [[0.6, 2.0]]], np.float32)
    steps = steps_of(weights, 4)
    np.testing.assert_allclose(steps, [0.25, 0.5])
    np.testing.assert_allclose(
        round_weights(weights, steps, np.stack([np.eye(2)] * 2), 4), [[[0.25, -1.0]], [[0.5, 2.0]]]
    )
    assert steps_of(np.zeros((1, 2), np.float32), 4).tolist() == [1.0]


def test_no_steps_are_spent_where_a_silu_is_flat() -> None:
    values = np.concatenate([np.random.default_rng(1).normal(0, 2, 5000), [-90.0, 9.0]]).astype(np.float32)
    assert full_range(values) == (-90.0, 9.0)
    low, high = best_range(values, before_silu=True)
    assert -9 < low < -1
    assert high > 6
    # Without the SiLU the value far below counts.
    assert best_range(values, before_silu=False)[0] < -13
    assert full_range(np.array([2.0, 3.0], np.float32)) == (0.0, 3.0)
    np.testing.assert_allclose(silu(np.array([-800.0, 0.0, 800.0], np.float32)), [0.0, 0.0, 800.0], atol=1e-9)
    assert best_range(np.zeros(4, np.float32), before_silu=False) == (0.0, 0.0)


def test_every_activation_has_its_block(observed: Observed) -> None:
    found = blocks_of_activations(observed.graph)
    assert found["image"] == "/network/model.0"
    assert {found[name] for name in found if "model.4/" in name and name in observed.values} == {"/network/model.4"}


def test_the_noise_of_blocks_adds_up_and_leaves_with_them(observed: Observed, quantiser: Quantiser) -> None:
    whole = quantiser.make(Rung("all"))
    names = blocks_of_activations(observed.graph)
    found = noise(whole, names, observed.crops, observed.probs)
    total = divergence(observed.probs, answers(whole, observed.crops))
    rest = divergence(observed.probs, answers(in_float(whole, names, lambda block: True), observed.crops))
    assert rest < 0.5 * total
    assert 0.4 * total < sum(value - rest for value in found.values()) < 2.5 * total
    worst = max(found, key=lambda block: found[block])
    better = quantiser.make(Rung("all but one", n_float=1))
    assert divergence(observed.probs, answers(better, observed.crops)) < total
    assert not [
        node for node in better.graph.node if node.op_type == "QuantizeLinear" and names.get(node.input[0]) == worst
    ]


def test_a_block_in_floating_point_keeps_weights_of_8_bits(observed: Observed, quantiser: Quantiser) -> None:
    model = quantiser.make(Rung("all float", n_float=99))
    onnx.checker.check_model(model, full_check=True)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    quantised = [node.input[0] for node in model.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    assert set(quantised) <= set(stored)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        product = makers[node.input[1]]
        levels = stored[makers[product.input[0]].input[0]]
        assert (product.op_type, levels.data_type) == ("Mul", TensorProto.INT8)
        assert np.abs(onnx.numpy_helper.to_array(levels).astype(int)).max() == 127
    assert float(np.abs(answers(model, observed.crops) - observed.probs).max()) < 0.05


def test_symmetric_graphs_have_no_zero_points(observed: Observed, tmp_path: Path) -> None:
    model = Quantiser(observed, tmp_path, symmetric=True).make(Rung("symmetric"))
    zeros = {
        node.input[2]
        for node in model.graph.node
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and len(node.input) > 2
    }
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert zeros
    assert all(not stored[name].any() for name in zeros)
    assert not [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.UINT8]


def test_a_relu_is_rounded_once_and_a_single_plane_is_read_in_floating_point(tmp_path: Path) -> None:
    torch.manual_seed(5)
    network = build_model(str(find_preset("models", "cnn-rep-xs")), 7).eval()
    look_at_one_plane(network)
    faces = np.repeat(paint_faces(8, 32, 48)[0][..., None], 3, axis=3)
    observed = observe(prepare(build_graph(network, 48), tmp_path), faces)
    quantiser = Quantiser(observed, tmp_path)
    model = quantiser.make(Rung("whole"))
    onnx.checker.check_model(model, full_check=True)
    makers = {name: node for node in model.graph.node for name in node.output}
    users = {name: node for node in model.graph.node for name in node.input}
    first, *others, last = [node for node in model.graph.node if node.op_type == "Conv"]
    assert makers[first.input[0]].op_type == "Reshape"
    assert makers[first.input[1]].op_type == "Mul"
    assert users[first.output[0]].op_type == "Relu"
    for node in others:
        assert makers[node.input[0]].op_type == makers[node.input[1]].op_type == "DequantizeLinear"
        assert [users[node.output[0]].op_type, users[users[node.output[0]].output[0]].op_type] == [
            "Relu",
            "QuantizeLinear",
        ]
    assert users[last.output[0]].op_type == "QuantizeLinear"  # nothing behind it is rounded, and it is to stay in int8
    # A block in floating point keeps its ReLU, and its neighbours stay in int8.
    names = blocks_of_activations(observed.graph)
    partly = in_float(model, names, lambda block: block == "/network/model.6")
    assert Counter(node.op_type for node in partly.graph.node)["Relu"] == len(others) + 2
    n_float = [sum(node.op_type == "Mul" for node in graph.graph.node) for graph in (model, partly)]
    assert n_float[0] < n_float[1] <= n_float[0] + 4
    assert float(np.abs(answers(model, faces) - observed.probs).max()) < 0.1
