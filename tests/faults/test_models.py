"""Model files, cards and checkpoints that are broken, changed or hostile."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from deepfer_yolo.runtime.card import DIGEST_KEY, HASHES_KEY, METADATA_KEY, Card, InputSpec, write_sidecar
from deepfer_yolo.runtime.model_file import SHIPPED

kind = pytest.mark.fault


def see_onnx(fault: Any, path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    """Change an ONNX file, and ask it."""
    model = onnx.load(str(path))
    change(model)
    path.write_bytes(model.SerializeToString())
    fault.see("predict", "faces", "-m", path.name)


def say(model: onnx.ModelProto, key: str, value: str | None) -> None:
    """Replace, or with None remove, what the metadata say under `key`."""
    said = {entry.key: entry.value for entry in model.metadata_props} | {key: value}
    del model.metadata_props[:]
    for name, text in said.items():
        if text is not None:
            model.metadata_props.add(key=name, value=text)


def in_card(model: onnx.ModelProto, old: str, new: str) -> None:
    text = next(entry.value for entry in model.metadata_props if entry.key == METADATA_KEY)
    assert old in text
    say(model, METADATA_KEY, text.replace(old, new, 1))


@pytest.fixture
def shipped(face: Path, tmp_path: Path) -> Path:
    """`shipped.onnx` in the folder: a model that knows what it has learned."""
    return Path(shutil.copy(SHIPPED / "deepfer-xs.onnx", tmp_path / "shipped.onnx"))


@kind("ONNX: cut off", "the first half of a model file", "refused")
def test_half_a_model(fault: Any, model: Path, face: Path) -> None:
    model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    fault.see("predict", "faces", "-m", model.name)


@kind("ONNX: weights changed", "one bit of a weight", "refused by the digest")
def test_weights(fault: Any, model: Path, face: Path) -> None:
    def change(graph: onnx.ModelProto) -> None:
        values = graph.graph.initializer[0]
        values.raw_data = bytes([values.raw_data[0] ^ 1]) + values.raw_data[1:]

    see_onnx(fault, model, change)


@kind("ONNX: operators' version changed", "`opset_import` is one higher", "refused by the digest")
def test_opset(fault: Any, model: Path, face: Path) -> None:
    see_onnx(fault, model, lambda m: setattr(m.opset_import[0], "version", 18))


@kind("ONNX: label changed", "a label of the card has another name", "refused by the digest")
def test_label(fault: Any, model: Path, face: Path) -> None:
    see_onnx(fault, model, lambda m: in_card(m, '"happy"', '"glad"'))


@kind("ONNX: hashes emptied", "the list of learned images is empty", "refused by the digest")
def test_hashes(fault: Any, shipped: Path) -> None:
    see_onnx(fault, shipped, lambda m: say(m, HASHES_KEY, ""))


@kind("ONNX: digest removed", "the card's digest is gone", "refused")
def test_no_digest(fault: Any, model: Path, face: Path) -> None:
    see_onnx(fault, model, lambda m: say(m, DIGEST_KEY, None))


@kind("ONNX: external data", "a tensor that says it lies in `/etc/passwd`", "refused, never opened")
def test_external(fault: Any, model: Path, face: Path) -> None:
    def change(graph: onnx.ModelProto) -> None:
        graph.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
        graph.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")

    see_onnx(fault, model, change)


@kind("ONNX: foreign operator", "an operator that needs a library beside the file", "refused by its name")
def test_operator(fault: Any, model: Path, face: Path) -> None:
    see_onnx(fault, model, lambda m: setattr(m.graph.node[1], "domain", "other.ops"))


@kind("ONNX: no card", "a model without metadata", "refused with the command that writes a card")
def test_no_card(fault: Any, model: Path, face: Path) -> None:
    see_onnx(fault, model, lambda m: m.ClearField("metadata_props"))


@kind("ONNX: two cards", "the card's metadata key twice", "refused")
def test_two_cards(fault: Any, model: Path, face: Path) -> None:
    see_onnx(fault, model, lambda m: m.metadata_props.add(key=METADATA_KEY, value="{}"))


@kind("ONNX: a folder", "a folder called `model.onnx`", "refused")
def test_folder(fault: Any, face: Path) -> None:
    (fault.folder / "model.onnx").mkdir()
    fault.see("predict", "faces", "-m", "model.onnx")


def see_card(fault: Any, old: str, new: str) -> None:
    """Change the card beside a checkpoint, and read it."""
    for suffix in (".pt", ".json"):
        shutil.copy(SHIPPED / f"deepfer-xs{suffix}", fault.folder / f"mine{suffix}")
    path = fault.folder / "mine.json"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    fault.see("verify", "mine.pt")


@kind("card: value changed", "the temperature in the card beside a checkpoint", "refused by the digest")
def test_card_value(fault: Any) -> None:
    see_card(fault, '"temperature": ', '"temperature": 1')


@kind("card: key twice", "`name` stands twice", "refused by the key")
def test_card_key_twice(fault: Any) -> None:
    see_card(fault, '"name": ', '"name": "other", "name": ')


@kind("card: wrong type", "`size` is a text", "refused by the key")
def test_card_type(fault: Any) -> None:
    see_card(fault, '"size": ', '"size": "48", "was": ')


@kind("card: nested 3,000 times", "brackets in brackets", "refused")
def test_card_nested(fault: Any) -> None:
    see_card(fault, '"metrics": {', '"metrics": {"x": ' + "[" * 3000 + "]" * 3000 + ", ")


@kind("card: short golden row", "a golden answer with a number too few", "refused by the key")
def test_golden_row(fault: Any, face: Path, model: Path) -> None:
    golden = {"seed": 0, "n": 1, "inputs_sha256": "0", "probs": [[0.5, 0.5]]}
    see_onnx(fault, model, lambda m: in_card(m, '"golden": null', f'"golden": {json.dumps(golden)}'))


@kind("card: of another file", "the card of another checkpoint", "refused by the hash of the file")
def test_card_of_another(fault: Any) -> None:
    shutil.copy(SHIPPED / "deepfer-xs.json", fault.folder / "mine.json")
    (fault.folder / "mine.pt").write_bytes((SHIPPED / "deepfer-xs.pt").read_bytes()[:-1])
    fault.see("verify", "mine.pt")


def see_checkpoint(fault: Any, content: bytes | None = None) -> None:
    """Export a checkpoint that has a card."""
    write_sidecar(Card(name="mine", labels=("happy", "sad"), input=InputSpec(size=48)), fault.folder / "mine.pt")
    if content is not None:
        (fault.folder / "mine.pt").write_bytes(content)
    fault.see("export", "mine.pt", "--out", "mine.onnx", says="is not a checkpoint that can be loaded safely")


@kind("checkpoint: cut off", "the first half of a checkpoint", "refused")
def test_half_a_checkpoint(fault: Any) -> None:
    content = (SHIPPED / "deepfer-xs.pt").read_bytes()
    see_checkpoint(fault, content[: len(content) // 2])


@kind("checkpoint: foreign class", "a pickle that names a class of no library that is known", "refused, never made")
def test_foreign_class(fault: Any) -> None:
    with zipfile.ZipFile(fault.folder / "mine.pt", "w") as archive:
        archive.writestr("mine/data.pkl", b"\x80\x02cmy_package.core\nModel\nq\x00)\x81q\x01.")
        archive.writestr("mine/version", b"3\n")
    see_checkpoint(fault)


@kind("checkpoint: no checkpoint", "a text called `mine.pt`", "refused")
def test_no_checkpoint(fault: Any) -> None:
    see_checkpoint(fault, b"hello\n")
