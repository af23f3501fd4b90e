"""One export from checkpoint to proven file, and what is left when it fails: nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from deepfer_yolo.config import ExportConfig
from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.errors import ModelError, ParityError
from deepfer_yolo.export import export
from deepfer_yolo.files import sha256_of
from deepfer_yolo.painted import paint_golden
from deepfer_yolo.runtime.card import read_sidecar, write_sidecar
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.yolo import TorchClassifier


@pytest.fixture
def own_checkpoint(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copy(checkpoint, tmp_path / "best.pt")
    shutil.copy(checkpoint.with_suffix(".json"), tmp_path / "best.json")
    return tmp_path / "best.pt"


def test_the_graph_has_the_documented_form(exported: Path) -> None:
    model = onnx.load(str(exported))
    onnx.checker.check_model(model, full_check=True)
    shown = [
        (v.name, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim])
        for v in (*model.graph.input, *model.graph.output)
    ]
    assert shown == [("image", ["n", 32, 32, 3]), ("probs", ["n", 7])]
    assert not any("/" in node.doc_string for node in model.graph.node)
    assert not any(node.op_type == "Resize" for node in model.graph.node)


def test_the_card_says_what_was_proven(exported: Path, checkpoint: Path) -> None:
    card = Classifier(exported).card
    old = read_sidecar(checkpoint)
    assert (card.labels, card.input, card.crop) == (old.labels, old.input, old.crop)
    assert card.golden is not None
    assert card.graph_sha256 is not None
    assert card.metrics["parity"]["checkpoint_sha256"] == sha256_of(checkpoint)
    assert card.metrics["parity"]["n"] == 140
    assert card.metrics["parity"]["max_diff"] <= 1e-4
    assert {"deepfer-yolo", "torch", "ultralytics", "onnx"} <= set(card.producer)


def test_it_answers_like_the_checkpoint_on_real_files(checkpoint: Path, painted_dataset: Path, tmp_path: Path) -> None:
    found = export.export_model(checkpoint, ExportConfig(pictures=28), out=tmp_path / "best.onnx", data=painted_dataset)
    assert found.parity.passed
    assert found.parity.n == 28
    assert found.parity.pictures == f"28 of 56 images of {open_dataset(painted_dataset).name}, split val"
    crops = paint_golden(9, 20, 32)
    reference = TorchClassifier(checkpoint).predict(crops)
    # The answers differ between images, so that equality means something.
    assert reference.std(0).max() > 0.05
    np.testing.assert_allclose(Classifier(found.path).predict(crops), reference, atol=1e-4)


def test_temperature_is_inside_the_graph(own_checkpoint: Path) -> None:
    card = read_sidecar(own_checkpoint)
    write_sidecar(card.model_copy(update={"temperature": 2.5}), own_checkpoint)
    found = export.export_model(own_checkpoint, ExportConfig(pictures=140))
    crops = paint_golden(9, 6, 32)
    write_sidecar(card, own_checkpoint)
    logits = np.log(TorchClassifier(own_checkpoint).predict(crops)) / 2.5
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(Classifier(found.path).predict(crops), expected, atol=1e-4)


def test_batch_and_opset_are_options(checkpoint: Path, tmp_path: Path) -> None:
    found = export.export_model(checkpoint, ExportConfig(pictures=140, batch=3, opset=18), out=tmp_path / "fixed.onnx")
    model = onnx.load(str(found.path))
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3
    assert model.opset_import[0].version == 18
    crops = paint_golden(9, 4, 32)
    np.testing.assert_allclose(
        Classifier(found.path).predict(crops), TorchClassifier(checkpoint).predict(crops), atol=1e-4
    )


def test_failed_parity_leaves_nothing_and_deletes_nothing(
    own_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = own_checkpoint.with_suffix(".onnx")
    target.write_bytes(b"the old file")
    before = sorted(own_checkpoint.parent.iterdir())
    real = export.build_graph

    def wrong(*arguments: object, **named: object) -> onnx.ModelProto:
        model = real(*arguments, **named)  # type: ignore[arg-type]
        tensor = next(t for t in model.graph.initializer if list(t.dims) == [7])
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(
                onnx.numpy_helper.to_array(tensor) + np.float32([0.02, 0, 0, 0, 0, 0, 0]), tensor.name
            )
        )
        return model

    monkeypatch.setattr(export, "build_graph", wrong)
    with pytest.raises(
        ParityError, match=r"best\.onnx does not answer like .*best\.pt on 140 painted faces.*max \|Δp\|"
    ) as raised:
        export.export_model(own_checkpoint, ExportConfig(pictures=140), overwrite=True)
    assert raised.value.exit_code == 3
    assert target.read_bytes() == b"the old file"
    assert sorted(own_checkpoint.parent.iterdir()) == before


def test_nothing_is_overwritten_unasked(own_checkpoint: Path) -> None:
    own_checkpoint.with_suffix(".onnx").write_bytes(b"precious")
    with pytest.raises(ModelError, match="the file exists"):
        export.export_model(own_checkpoint, ExportConfig(pictures=140))
    assert own_checkpoint.with_suffix(".onnx").read_bytes() == b"precious"
    with pytest.raises(ModelError, match=r"must be named \.onnx"):
        export.export_model(own_checkpoint, ExportConfig(), out=own_checkpoint.with_name("model.bin"))
    (own_checkpoint.parent / "folder.onnx").mkdir()
    with pytest.raises(ModelError, match="an ONNX model is a file"):
        export.export_model(own_checkpoint, ExportConfig(), out=own_checkpoint.with_name("folder.onnx"), overwrite=True)
    with pytest.raises(ModelError, match=r"starts from a checkpoint \(\.pt\), not from .*best\.onnx"):
        export.export_model(
            own_checkpoint.with_suffix(".onnx"), ExportConfig(), out=own_checkpoint.with_name("other.onnx")
        )


def test_a_checkpoint_without_a_card_is_refused(own_checkpoint: Path) -> None:
    own_checkpoint.with_suffix(".json").unlink()
    with pytest.raises(ModelError, match="no model card") as raised:
        export.export_model(own_checkpoint, ExportConfig(pictures=140))
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("deepfer card ")
