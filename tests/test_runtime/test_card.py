"""What a model file says of itself is guarded: a changed byte of graph, card or hashes is refused, in every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from deepfer_yolo.cli.app import app
from deepfer_yolo.errors import ModelError
from deepfer_yolo.runtime.card import (
    DIGEST_KEY,
    HASHES_KEY,
    METADATA_KEY,
    pack_hashes,
    parse_card,
    read_sidecar,
    write_sidecar,
)
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import SHIPPED, card_beside, renew_digest
from deepfer_yolo.runtime.onnx_graph import graph_sha256, open_graph
from deepfer_yolo.runtime.protobuf import parse

SMALL = SHIPPED / "deepfer-xs.onnx"
"""The smallest shipped file: every part is there, and a test reads it often."""
NAMES = sorted(path.stem for path in SHIPPED.glob("*.onnx"))
runner = CliRunner()


def said(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def say(model: onnx.ModelProto, key: str, value: str | None) -> None:
    """Replace, or with None remove, what the metadata say under `key`."""
    kept = {**said(model), key: value}
    del model.metadata_props[:]
    for name, text in kept.items():
        if text is not None:
            model.metadata_props.add(key=name, value=text)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def edited(change: Callable[[dict[str, Any]], None]) -> Callable[[onnx.ModelProto], None]:
    """A change of the card's JSON inside the metadata."""

    def apply(model: onnx.ModelProto) -> None:
        card = json.loads(said(model)[METADATA_KEY])
        change(card)
        say(model, METADATA_KEY, json.dumps(card, ensure_ascii=False))

    return apply


def other_weights(model: onnx.ModelProto) -> None:
    """Weights that are others, with the graph's hash made to fit."""
    tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]
    edited(lambda card: card.update(graph_sha256=graph_sha256(parse("Model", model.SerializeToString()))))(model)


CHANGES: dict[str, Callable[[onnx.ModelProto], None]] = {
    "weights and their hash": other_weights,
    "operators' version": lambda model: setattr(model.opset_import[0], "version", model.opset_import[0].version + 1),
    "a label": edited(lambda card: card["labels"].__setitem__(0, "anger")),
    "two labels exchanged": edited(lambda card: card["labels"].insert(0, card["labels"].pop())),
    "a metric": edited(lambda card: card["metrics"]["parity"].update(agreement=1.0)),
    "no metrics": edited(lambda card: card.pop("metrics")),
    "no graph_sha256": edited(lambda card: card.pop("graph_sha256")),
    "a licence": edited(lambda card: card.update(license="public domain")),
    "a golden answer": edited(lambda card: card["golden"]["probs"][0].__setitem__(0, 0.5)),
    "hashes emptied": lambda model: say(model, HASHES_KEY, ""),
    "hashes removed": lambda model: say(model, HASHES_KEY, None),
    "a hash less": lambda model: say(model, HASHES_KEY, pack_hashes(np.arange(9, dtype=np.uint64))),
    "digest removed": lambda model: say(model, DIGEST_KEY, None),
    "digest of zeros": lambda model: say(model, DIGEST_KEY, "0" * 64),
}


@pytest.mark.parametrize("name", CHANGES)
def test_no_part_of_a_shipped_file_can_be_changed_unseen(name: str, tmp_path: Path) -> None:
    model = onnx.load(str(SMALL))
    CHANGES[name](model)
    reason = "lost the digest" if name == "digest removed" else "not what its digest covers"
    with pytest.raises(ModelError, match=reason) as caught:
        Classifier(saved(model, tmp_path))
    assert "--renew" in str(caught.value.hint)


def test_no_bit_of_a_shipped_file_can_be_changed_unseen(tmp_path: Path) -> None:
    content, path = SMALL.read_bytes(), tmp_path / "model.onnx"
    key = {name: content.index(name.encode()) for name in ('"labels"', '"metrics"', HASHES_KEY, DIGEST_KEY)}
    random = np.random.default_rng(0)
    places = [*(place + 30 for place in key.values()), *random.integers(0, len(content), 120).tolist()]
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 7)]) + content[place + 1 :])
        with pytest.raises(ModelError):
            open_graph(path)


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_files_have_a_digest(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert Classifier(name).card.schema_version == 2
    assert card_beside(SHIPPED / f"{name}.pt") is not None
    assert "digest" in json.loads((SHIPPED / f"{name}.json").read_text(encoding="utf-8"))
    assert capsys.readouterr().err == ""


def test_what_others_write_into_the_metadata_is_not_ours(tmp_path: Path) -> None:
    model = onnx.load(str(SMALL))
    model.metadata_props.add(key="note", value="hello")
    assert Classifier(saved(model, tmp_path)).card.name == "deepfer-xs"
    model.metadata_props.add(key=HASHES_KEY, value="")
    with pytest.raises(ModelError, match=r"metadata 'deepfer.trained_hashes' stands twice"):
        Classifier(saved(model, tmp_path))


def older(model: onnx.ModelProto) -> onnx.ModelProto:
    """The file as 0.1.0 wrote it."""
    edited(lambda card: card.update(schema_version=1))(model)
    say(model, DIGEST_KEY, None)
    return model


def test_a_file_of_before_there_were_digests_opens_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = older(onnx.load(str(SMALL)))
    path = saved(model, tmp_path)
    crops = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), np.uint8)
    assert np.array_equal(Classifier(path).predict(crops), Classifier(SMALL).predict(crops))
    assert "before cards had a digest" in capsys.readouterr().err
    say(model, DIGEST_KEY, "0" * 64)
    with pytest.raises(ModelError, match="not what its digest covers"):
        Classifier(saved(model, tmp_path))


def test_renew_keeps_the_card_and_writes_its_digest(tmp_path: Path) -> None:
    path = saved(older(onnx.load(str(SMALL))), tmp_path)
    done = runner.invoke(app, ["card", str(path), "--renew", "--json"])
    assert done.exit_code == 0
    assert path.read_bytes() == SMALL.read_bytes()
    edited_model = onnx.load(str(SMALL))
    edited(lambda card: card.update(name="mine"))(edited_model)
    path = saved(edited_model, tmp_path)
    with pytest.raises(ModelError):
        Classifier(path)
    renew_digest(path)
    assert Classifier(path).card.name == "mine"
    both = runner.invoke(app, ["card", str(path), "--renew", "--colour", "grey"])
    assert isinstance(both.exception, Exception)
    assert "--renew keeps the card" in str(both.exception)
    swapped = onnx.load(str(SMALL))
    swapped.graph.initializer[0].name += "x"
    with pytest.raises(ModelError, match="not the one its card describes"):
        renew_digest(saved(swapped, tmp_path))


@pytest.fixture
def checkpoint_copy(tmp_path: Path) -> Path:
    for suffix in (".pt", ".json"):
        copyfile(SHIPPED / f"deepfer-xs{suffix}", tmp_path / f"xs{suffix}")
    return tmp_path / "xs.pt"


def test_every_key_of_a_sidecar_is_guarded(checkpoint_copy: Path) -> None:
    path = checkpoint_copy.with_suffix(".json")
    content = json.loads(path.read_text(encoding="utf-8"))
    for key in content:
        path.write_text(json.dumps({name: value for name, value in content.items() if name != key}), encoding="utf-8")
        with pytest.raises(ModelError):
            read_sidecar(checkpoint_copy)
    path.write_text(json.dumps(content | {"temperature": content["temperature"] + 1e-9}), encoding="utf-8")
    with pytest.raises(ModelError, match="not what its digest covers"):
        read_sidecar(checkpoint_copy)
    # Blanks, line ends and the order of the keys say nothing.
    path.write_bytes(json.dumps(dict(reversed(content.items())), indent=4).replace("\n", "\r\n").encode())
    assert read_sidecar(checkpoint_copy).name == "deepfer-xs"


def test_a_checkpoint_that_was_exchanged_is_no_start_for_training(checkpoint_copy: Path) -> None:
    assert card_beside(checkpoint_copy) is not None
    checkpoint_copy.write_bytes(checkpoint_copy.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="not the file its card describes"):
        card_beside(checkpoint_copy)
    checkpoint_copy.with_suffix(".json").unlink()
    assert card_beside(checkpoint_copy) is None


def test_a_key_that_stands_twice_and_values_of_another_type_are_refused() -> None:
    card = json.dumps(json.loads(said(onnx.load(str(SMALL)))[METADATA_KEY]))
    assert parse_card(card, "x").name == "deepfer-xs"
    for old, new, reason in (
        ('"name": "deepfer-xs"', '"name": "a", "name": "deepfer-xs"', "the key 'name' stands twice"),
        ('"size": 48', '"size": 24, "size": 48', "the key 'size' stands twice"),
        ('"size": 48', '"size": "48"', r"input\.size: .*integer"),
        ('"size": 48', '"size": 48.0', r"input\.size: .*integer"),
        ('"size": 48', '"size": true', r"input\.size: .*integer"),
        ('"schema_version": 2', '"schema_version": true', "schema_version"),
        ('"schema_version": 2', '"schema_version": 3', "schema_version"),
        ('"temperature": ', '"temperature": NaN, "x": ', r"temperature: .*finite"),
        ('"temperature": ', '"temperature": "1", "x": ', r"temperature: .*number"),
        ('"metrics": {', '"metrics": [], "x": {', "metrics"),
        ('"golden": {', '"golden": [], "x": {', "golden"),
        ('"n": 8', '"n": 7', r"golden\.n = 7 rows"),
        ('"metrics": {', '"metrics": {"x": ' + "[" * 100_000 + "]" * 100_000 + ", ", "nested too deep"),
    ):
        assert old in card
        with pytest.raises(ModelError, match=reason):
            parse_card(card.replace(old, new, 1), "x")


@pytest.mark.parametrize("broken", [False, True])
def test_the_hint_for_a_card_beside_its_model_gives_a_command_that_works(tmp_path: Path, broken: bool) -> None:
    model = tmp_path / "mine.pt"
    model.write_bytes((SHIPPED / "deepfer-xs.pt").read_bytes())
    card = (SHIPPED / "deepfer-xs.json").read_text(encoding="utf-8")
    model.with_suffix(".json").write_text("{" if broken else card.replace('"deepfer-xs"', '"mine"'))
    with pytest.raises(ModelError) as caught:
        card_beside(model)
    command = str(caught.value.hint).split("deepfer ")[1].split()
    assert command == ["card", str(model), "--overwrite" if broken else "--renew"]
    assert runner.invoke(app, command).exit_code == 0
    known = card_beside(model)
    assert known is not None
    assert known.name == "mine"


def test_a_card_written_over_keeps_what_it_knew_and_gains_golden_answers(tmp_path: Path) -> None:
    model = tmp_path / "mine.pt"
    for suffix in (".pt", ".json"):
        model.with_suffix(suffix).write_bytes((SHIPPED / f"deepfer-xs{suffix}").read_bytes())
    before = card_beside(model)
    assert before is not None
    assert before.golden is None
    refused = runner.invoke(app, ["verify", str(model)])
    assert isinstance(refused.exception, ModelError)
    command = str(refused.exception.hint).split("deepfer ")[1].split()
    assert runner.invoke(app, command).exit_code == 0
    after = card_beside(model)
    assert after is not None
    gained = {"golden", "trained_hashes"}
    assert after.model_dump(exclude=gained) == before.model_dump(exclude=gained)
    assert runner.invoke(app, ["verify", str(model)]).exit_code == 0


def test_a_card_of_other_weights_is_written_anew(tmp_path: Path) -> None:
    model = tmp_path / "mine.pt"
    model.write_bytes((SHIPPED / "deepfer-xs.pt").read_bytes())
    model.with_suffix(".json").write_bytes((SHIPPED / "deepfer-n.json").read_bytes())
    with pytest.raises(ModelError, match="not the file its card describes") as caught:
        card_beside(model)
    command = str(caught.value.hint).split("deepfer ")[1].split()
    assert runner.invoke(app, command).exit_code == 0
    after = card_beside(model)
    assert after is not None
    assert (after.name, after.metrics) == ("mine", {})


def test_a_card_of_other_labels_is_written_anew(tmp_path: Path) -> None:
    model = tmp_path / "mine.pt"
    model.write_bytes((SHIPPED / "deepfer-xs.pt").read_bytes())
    card = read_sidecar(SHIPPED / "deepfer-xs.pt")
    write_sidecar(card.model_copy(update={"labels": card.labels[::-1]}), model)
    refused = runner.invoke(app, ["verify", str(model)])
    assert "are not the checkpoint's" in str(refused.exception)
    assert isinstance(refused.exception, ModelError)
    command = str(refused.exception.hint).split("deepfer ")[1].split()
    assert runner.invoke(app, command).exit_code == 0
    assert read_sidecar(model).labels == card.labels
    assert runner.invoke(app, ["verify", str(model)]).exit_code == 0
