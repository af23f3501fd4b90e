"""The model files that come with the package: they prove themselves here, say where they come from, and are what every
command uses.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from deepfer_yolo import Classifier
from deepfer_yolo.cli.app import app
from deepfer_yolo.cli.options import open_classifier
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import ModelError
from deepfer_yolo.painted import paint_faces
from deepfer_yolo.runtime.card import read_sidecar
from deepfer_yolo.runtime.golden import check_golden
from deepfer_yolo.runtime.model_file import SHIPPED, by_name, locate

NAMES = ["deepfer-n", "deepfer-cnn", "deepfer-live", "deepfer-xs"]
JUDGED = {"deepfer-live": 3372, "deepfer-xs": 3372}
"""Images of PublicTest that judge a model: all, or those whose votes have a clear winner."""
INT8 = "deepfer-xs"
"""What ships in int8, the file for speed."""
MAX_BYTES = 7_000_000


@pytest.mark.parametrize("name", NAMES)
def test_the_golden_answers_hold_and_the_card_says_where_it_comes_from(name: str) -> None:
    path = SHIPPED / f"{name}.onnx"
    assert path.stat().st_size <= MAX_BYTES
    classifier = Classifier(name)
    assert classifier.path == path
    assert check_golden(classifier).passed
    card = classifier.card
    assert card.name == name
    assert card.labels == EMOTIONS
    assert (card.input.size, card.input.colour, card.input.native_px) == (48 if name == INT8 else 64, "grey", 48)
    assert card.trained_on is not None
    assert str(card.trained_on.fingerprint).startswith("be4cb1269fd8308b")
    if name == INT8:
        assert (card.metrics["parity"]["n"], card.precision) == (3589, "int8")
        assert card.metrics["parity"]["agreement"] > 0.98
        card = read_sidecar(
            SHIPPED / f"{name}.pt"
        )  # what a lossy file loses is not what its checkpoint was measured to be
    assert card.precision == "fp32"
    measured = card.metrics["val"]
    assert (measured["dataset"], measured["split"], measured["n"]) == ("FER2013", "val", JUDGED.get(name, 3589))
    assert measured.get("judged_by", "label") == ("votes" if name in JUDGED else "label")
    assert np.trace(measured["confusion"]) == round(measured["top1"] * np.sum(measured["confusion"]))
    assert np.sum(measured["confusion"]) == measured["n"]
    assert all(low < measured[key] < high for key, (low, high) in measured["intervals"].items())


@pytest.mark.parametrize("name", NAMES)
def test_the_checkpoint_is_stock_and_answers_like_the_exported_file(name: str) -> None:
    from ultralytics import YOLO

    from deepfer_yolo.yolo import TorchClassifier

    stock = YOLO(str(SHIPPED / f"{name}.pt"))
    assert tuple(stock.names[i] for i in range(len(EMOTIONS))) == EMOTIONS
    assert sum(p.numel() for p in stock.model.parameters()) <= 2_000_000
    faces = list(paint_faces(5, 21)[0])
    exported, trained = Classifier(name).predict_images(faces), TorchClassifier(f"{name}.pt").predict_images(faces)
    assert np.abs(exported - trained).max() < (0.15 if name == INT8 else 1e-4)


def test_a_name_means_a_shipped_file_unless_one_of_that_name_lies_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert by_name(Path("deepfer-n"), ".pt") == by_name(Path("deepfer-n.pt"), ".pt") == SHIPPED / "deepfer-n.pt"
    for other in ("elsewhere/deepfer-n", "deepfer-m", "deepfer-n.engine"):
        assert by_name(Path(other), ".pt") == Path(other)
    (tmp_path / "deepfer-n").write_text("mine")
    assert locate(Path("deepfer-n")) == Path("deepfer-n")
    with pytest.raises(ModelError, match="no such model file: deepfer-m"):
        Classifier("deepfer-m")


def test_predict_needs_no_model_option(tmp_path: Path) -> None:
    face = paint_faces(3, 1)[0][0]
    Image.fromarray(face).save(tmp_path / "face.png")
    found = CliRunner().invoke(app, ["predict", str(tmp_path / "face.png"), "--json"])
    assert found.exit_code == 0
    assert list(json.loads(found.stdout)["probs"].values()) == pytest.approx(
        Classifier("deepfer-n").predict_images([face])[0].tolist(), abs=1e-5
    )


def test_models_lists_them(tmp_path: Path) -> None:
    rows = json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)
    assert {f"{name}{suffix}" for name in NAMES for suffix in (".onnx", ".pt")} <= {
        row["name"] for row in rows if row["kind"] == "shipped"
    }


def test_faces_from_frames_are_labelled_by_the_model_that_learned_what_a_camera_sees() -> None:
    assert open_classifier(None).card.name == "deepfer-n"
    assert open_classifier(None, from_frames=True).card.name == "deepfer-live"
