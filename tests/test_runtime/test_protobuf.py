"""The reader of ONNX's wire format against onnx's own: what both take is the same thing, and nothing else is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from deepfer_yolo.errors import ModelError
from deepfer_yolo.runtime.onnx_graph import MAX_DIMS, read_graph
from deepfer_yolo.runtime.protobuf import MAX_DEPTH, MAX_PARTS, SCHEMA, Message, made, parse

PROTOS = {
    "Model": onnx.ModelProto,
    "Entry": onnx.StringStringEntryProto,
    "Training": onnx.TrainingInfoProto,
    "Function": onnx.FunctionProto,
    "Graph": onnx.GraphProto,
    "Node": onnx.NodeProto,
    "Attribute": onnx.AttributeProto,
    "Tensor": onnx.TensorProto,
    "Sparse": onnx.SparseTensorProto,
    "Value": onnx.ValueInfoProto,
    "Type": onnx.TypeProto,
    "TensorType": onnx.TypeProto.Tensor,
    "Shape": onnx.TensorShapeProto,
    "Dim": onnx.TensorShapeProto.Dimension,
}


def small_model() -> onnx.ModelProto:
    """All that the reader knows: nested graphs, a function, sparse tensors, constants, packed and plain numbers."""
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=helper.make_tensor("t", TensorProto.INT8, [2], [-3, 5]))],
        "inner",
        [],
        [helper.make_tensor_value_info("c", TensorProto.INT8, [2])],
    )
    nodes = [
        helper.make_node("If", ["image"], ["y"], then_branch=inner, else_branch=inner),
        helper.make_node("Relu", ["y"], ["probs"], name="é", domain="ai.onnx"),
    ]
    sparse = onnx.SparseTensorProto(dims=[9])
    sparse.values.CopyFrom(helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0]))
    sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [1], [4]))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 8, 8, 3])
    probs = helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["n", 7])
    graph = helper.make_graph(
        nodes, "g", [image], [probs], [helper.make_tensor("w", TensorProto.FLOAT, [1, 2], [1, 2])]
    )
    graph.sparse_initializer.append(sparse)
    function = helper.make_function("ai.onnx", "f", ["a"], ["b"], [helper.make_node("Abs", ["a"], ["b"])], [])
    function.attribute_proto.append(helper.make_attribute("d", helper.make_tensor("e", TensorProto.FLOAT, [1], [2.0])))
    model = helper.make_model(graph, functions=[function])
    model.metadata_props.add(key="k", value="v")
    model.training_info.add().algorithm.CopyFrom(inner)
    return model


SMALL = small_model().SerializeToString()


def seen(message: Message) -> dict[str, Any]:
    """All that can be asked of a message."""
    found: dict[str, Any] = {}
    for name, (_, type_) in SCHEMA[message.kind].items():
        if not message.has(name):
            continue
        if type_[0].isupper():
            found[name] = [seen(child) for child in message.children(name)]
        else:
            ask = {"int": message.numbers, "int32": message.numbers, "text": message.texts}.get(type_.rstrip("*"))
            found[name] = ask(name) if ask is not None else "there"
            enum = PROTOS[message.kind].DESCRIPTOR.fields_by_name[name].enum_type
            if name == "int32_data":  # of larger numbers onnx keeps the lower half
                found[name] = [(number + (1 << 31)) % (1 << 32) - (1 << 31) for number in found[name]]
            if enum is not None and found[name][0] not in enum.values_by_number:
                del found[name]  # a number that onnx does not know is no value of the field there
    return found


def seen_by_onnx(proto: Any, kind: str) -> dict[str, Any]:
    """The same by onnx's own library."""
    found: dict[str, Any] = {}
    for name, (_, type_) in SCHEMA[kind].items():
        value = getattr(proto, name)
        values = list(value) if type_[-1] == "*" else [value] if proto.HasField(name) else []
        if not values:
            continue
        if type_[0].isupper():
            found[name] = [seen_by_onnx(one, type_.rstrip("*")) for one in values]
        else:
            found[name] = "there" if type_.startswith("data") else values
    return found


@pytest.mark.parametrize("kind", SCHEMA)
def test_the_schema_is_onnxs(kind: str) -> None:
    known = PROTOS[kind].DESCRIPTOR.fields_by_name
    for name, (number, type_) in SCHEMA[kind].items():
        field = known[name]
        assert (field.number, field.is_repeated) == (number, type_[-1] == "*"), name
        if type_[0].isupper():
            assert field.message_type.full_name == PROTOS[type_.rstrip("*")].DESCRIPTOR.full_name, name
        else:
            wanted = {
                "int": ("INT32", "INT64"),
                "int32": ("INT32", "ENUM"),
                "text": ("STRING",),
                "data": ("BYTES", "MESSAGE"),
            }
            types = {getattr(field, f"TYPE_{word}") for word in wanted[type_.rstrip("*")]}
            assert field.type in types, name


def test_every_message_that_holds_operators_or_tensors_is_read() -> None:
    """A field of onnx that the schema leaves out must not lead to what is checked."""
    holds = {"Node", "Tensor"}
    while more := {k for k, f in SCHEMA.items() if {t.rstrip("*") for _, t in f.values()} & holds} - holds:
        holds |= more
    names = {PROTOS[kind].DESCRIPTOR.full_name for kind in holds}
    for kind in SCHEMA:
        for field in PROTOS[kind].DESCRIPTOR.fields:
            if field.message_type is not None and field.message_type.full_name in names:
                assert field.name in SCHEMA[kind], f"{kind}.{field.name}"


def test_it_reads_what_onnx_reads() -> None:
    model = parse("Model", SMALL)
    assert seen(model) == seen_by_onnx(onnx.ModelProto.FromString(SMALL), "Model")
    assert model.content is SMALL
    assert bytes(model.child("graph").content) == onnx.ModelProto.FromString(SMALL).graph.SerializeToString()


def test_what_is_replaced_is_as_onnx_writes_it() -> None:
    model, proto = parse("Model", SMALL), onnx.ModelProto.FromString(SMALL)
    graph = model.child("graph")
    tensor = made("Tensor", dims=[1, 2], data_type=[2], name=["new"], raw_data=[b"\x01\x02"])
    changed = model.replaced("graph", [graph.replaced("initializer", [tensor, *graph.children("initializer")])])
    proto.graph.initializer.insert(0, onnx.TensorProto(dims=[1, 2], data_type=2, name="new", raw_data=b"\x01\x02"))
    assert bytes(changed.content) == proto.SerializeToString()
    proto.ClearField("graph")
    assert bytes(changed.without("graph").content) == proto.SerializeToString()
    entry = made("Entry", key=["ä"], value=["x" * 300])
    del proto.metadata_props[:]
    proto.metadata_props.add(key="ä", value="x" * 300)
    assert bytes(changed.without("graph").replaced("metadata_props", [entry]).content) == proto.SerializeToString()


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8))
def test_numbers_of_64_bits(numbers: list[int]) -> None:
    content = made("Tensor", dims=numbers).content
    assert list(onnx.TensorProto.FromString(bytes(content)).dims) == numbers
    assert parse("Tensor", bytes(content)).numbers("dims") == numbers
    halves = [number >> 32 for number in numbers]
    assert parse("Tensor", onnx.TensorProto(int32_data=halves).SerializeToString()).numbers("int32_data") == halves


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """The small model with a few bytes changed, put in, taken out or moved."""
    content = bytearray(SMALL)
    for _ in range(draw(st.integers(1, 4))):
        at, n = draw(st.integers(0, len(content) - 1)), draw(st.integers(0, 12))
        piece = draw(st.one_of(st.binary(max_size=6), st.sampled_from([SMALL[at : at + n], content[at : at + n]])))
        content[at : at + draw(st.integers(0, 6))] = piece
    return bytes(content)


def check(content: bytes) -> None:
    """What both take is the same to both: what onnx refuses, a run-time will refuse."""
    try:
        model, theirs = parse("Model", content), onnx.ModelProto.FromString(content)
    except (ValueError, DecodeError):
        return
    assert seen(model) == seen_by_onnx(theirs, "Model")
    again = Message("Model", model._parts).content  # every field written anew
    assert seen(parse("Model", bytes(again))) == seen(model)


@settings(max_examples=300, deadline=None)
@given(changed())
def test_a_changed_file_is_refused_or_read_as_onnx_reads_it(content: bytes) -> None:
    check(content)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read_as_onnx_reads_them(content: bytes) -> None:
    check(content)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(changed())
def test_many_changed_files(content: bytes) -> None:
    check(content)


def sized(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    size, head = len(content), bytearray()
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *head, size]) + content


def graph_of(node: bytes) -> bytes:
    return sized(7, sized(1, node))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (graph_of(b"") * 2, "Model.graph stands twice"),
        (graph_of(sized(7, b"") + sized(7, b"evil.ops")), "Node.domain stands twice"),
        (b"\x38\x01", "Model.graph is not of its type"),
        (b"\x0b\x0c", "unknown wire type 3"),
        (b"\x00\x01", "number 0"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "does not end"),
        (b"\x08\x80", "does not end"),
        (b"\x3a\xff\xff\xff\xff\x0f", "claims 4,294,967,295 bytes of 0"),
        (b"\x09\x01", "claims 8 bytes of 1"),
        (graph_of(sized(4, b"\xff")), "invalid start byte"),
        (sized(7, sized(5, b"\x70\x81\x80\x80\x80\x10")), "data_location is 4294967297, which 32 bits do not hold"),
    ],
)
def test_what_two_readers_could_take_for_different_things_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse("Model", content)


def nested() -> bytes:
    content = b""
    for _ in range(MAX_DEPTH // 2):
        content = sized(1, sized(5, sized(6, content)))  # a node, its attribute, its graph
    return sized(7, content)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (nested, "more than 100 deep"),
        (lambda: b"\x08\x01" * (MAX_PARTS + 1), "more than 1,000,000 parts"),
        (lambda: sized(7, sized(1, b"") * (MAX_PARTS + 1)), "more than 1,000,000 parts"),
    ],
)
def test_what_is_too_deep_or_has_too_many_parts_is_refused(make: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse("Model", make())


@pytest.mark.parametrize("dims", [sized(1, b"\x01" * 10_000_000), b"\x08\x01" * (MAX_DIMS + 1)])
def test_a_tensor_with_too_many_sides_is_refused(dims: bytes, tmp_path) -> None:  # type: ignore[no-untyped-def]
    node, output = sized(1, sized(4, b"Relu")), sized(12, b"")
    path = tmp_path / "model.onnx"
    path.write_bytes(sized(7, node + sized(5, dims) + output))
    with pytest.raises(ModelError, match=r"Tensor\.dims has more than 64 numbers"):
        read_graph(path)


def test_int8_numbers_are_read_wherever_they_are_stored() -> None:
    from deepfer_yolo.runtime.onnx_graph import stored_ints

    for tensor in (
        helper.make_tensor("t", TensorProto.INT8, [3], [-128, 0, 127]),
        numpy_helper.from_array(numpy_helper.to_array(helper.make_tensor("t", TensorProto.INT8, [3], [-128, 0, 127]))),
    ):
        assert stored_ints(parse("Tensor", tensor.SerializeToString())).tolist() == [-128, 0, 127]
