"""Files from strangers: each is refused with its reason before a session is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from deepfer_yolo.errors import ModelError
from deepfer_yolo.runtime.card import DIGEST_KEY, METADATA_KEY, parse_card
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.onnx_graph import MAX_BYTES, graph_sha256, metadata, read_graph, with_card, with_metadata
from deepfer_yolo.runtime.protobuf import parse

Change = Callable[[onnx.ModelProto], None]


def changed(source: Path, target: Path, change: Change) -> Path:
    model = onnx.load(str(source))
    change(model)
    target.write_bytes(model.SerializeToString())
    return target


def replace_card(model: onnx.ModelProto, **values: object) -> None:
    card = parse_card(next(e.value for e in model.metadata_props if e.key == METADATA_KEY), "test")
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=card.model_copy(update=values).to_json())


def test_a_file_cut_anywhere_is_a_clear_error(linear_model: Path, tmp_path: Path) -> None:
    content = linear_model.read_bytes()
    for sixteenth in range(16):
        part = tmp_path / f"{sixteenth}.onnx"
        part.write_bytes(content[: len(content) * sixteenth // 16])
        with pytest.raises(ModelError, match=r"not a readable ONNX file|not an ONNX model|no model card"):
            Classifier(part)


@pytest.mark.parametrize("content", [b"", b"hello, I am no model", b"\x89PNG\r\n\x1a\n" * 50, b"{}"])
def test_other_files_are_no_models(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="ONNX"):
        Classifier(path)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ModelError, match="larger than"):
        Classifier(path)


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        Classifier(tmp_path / "none.onnx")
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="suffix"):
        Classifier(tmp_path / "model.bin")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ModelError, match="no such model file"):
        Classifier(tmp_path / "folder.onnx")


def external_tensor(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "evil.ops"


def nested_operator(model: onnx.ModelProto) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    body = helper.make_graph([helper.make_node("Run", [], ["x"], domain="evil.ops")], "body", [], [value])
    model.graph.node.append(helper.make_node("If", ["image"], ["unused"], then_branch=body, else_branch=body))


def nested_external_tensor(model: onnx.ModelProto) -> None:
    tensor = helper.make_tensor("secret", TensorProto.FLOAT, [1], [0.0])
    tensor.external_data.add(key="location", value="../../secret")
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=tensor))


def huge_claim(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**31, 2**31]


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("command", TensorProto.STRING, [1]))


def float_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def broken_graph(model: onnx.ModelProto) -> None:
    model.graph.node[2].op_type = "Conv"
    card = parse_card(next(e.value for e in model.metadata_props if e.key == METADATA_KEY), "test")
    written = with_card(parse("Model", model.SerializeToString()), card)[0]
    model.ParseFromString(bytes(written.content))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (external_tensor, "lies outside the file"),
        (nested_external_tensor, "lies outside the file"),
        (custom_operator, "evil.ops::Flatten is not part of ONNX"),
        (nested_operator, "evil.ops::Run is not part of ONNX"),
        (huge_claim, "claims the shape"),
        (second_input, "not in this program's form"),
        (float_input, "not in this program's form"),
        (lambda model: model.ClearField("metadata_props"), "has no model card"),
        (lambda model: replace_card(model, labels=("a", "b", "c")), r"3 labels, the graph's output is \(n, 7\)"),
        (lambda model: replace_card(model, graph_sha256="0" * 64), "not the one its card describes"),
        (broken_graph, "onnxruntime refuses the graph"),
    ],
)
def test_what_is_wrong_is_said(change: Change, reason: str, linear_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=reason):
        Classifier(changed(linear_model, tmp_path / "model.onnx", change))


def test_the_cards_size_must_be_the_graphs(linear_model: Path, tmp_path: Path) -> None:
    spec = Classifier(linear_model).card.input.model_copy(update={"size": 64})
    path = changed(linear_model, tmp_path / "model.onnx", lambda model: replace_card(model, input=spec))
    with pytest.raises(
        ModelError, match=r"the card says the input is \(n, 64, 64, 3\), the graph says \(n, 24, 24, 3\)"
    ):
        Classifier(path)


def test_weights_changed_after_the_export_are_noticed(exported: Path, tmp_path: Path) -> None:
    def nudge(model: onnx.ModelProto) -> None:
        tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
        values = np.frombuffer(tensor.raw_data, np.float32).copy()
        values[0] += 1
        tensor.raw_data = values.tobytes()

    with pytest.raises(ModelError, match="not the one its card describes"):
        Classifier(changed(exported, tmp_path / "model.onnx", nudge))


def test_the_graphs_hash_ignores_the_metadata(exported: Path) -> None:
    model = read_graph(exported)
    before = graph_sha256(model)
    noted, card = with_card(with_metadata(model, {"note": "hello"}), Classifier(exported).card)
    assert graph_sha256(noted) == before == card.graph_sha256
    assert [key for key, _ in metadata(noted)] == ["note", METADATA_KEY, DIGEST_KEY]
