"""Cards for models that have none."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from deepfer_yolo.config import CardConfig
from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import ConfigError, ModelError
from deepfer_yolo.export.cards import add_metrics, card_checkpoint, card_onnx
from deepfer_yolo.files import sha256_of
from deepfer_yolo.painted import paint_golden
from deepfer_yolo.runtime.card import read_sidecar
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.golden import check_golden
from deepfer_yolo.yolo import TorchClassifier, load_checkpoint

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.fixture
def bare_checkpoint(checkpoint: Path, tmp_path: Path) -> Path:
    """A stock checkpoint with no card."""
    return Path(shutil.copy(checkpoint, tmp_path / "stock.pt"))


@pytest.mark.parametrize("cut", [KeyboardInterrupt, SystemExit, ModelError("it gives no answer")])
def test_a_card_that_is_not_finished_leaves_the_old_one(
    cut: BaseException | type[BaseException], bare_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = card_checkpoint(bare_checkpoint, CardConfig())
    before = path.read_bytes()

    def stop(*_: object) -> None:
        assert path.read_bytes() == before, "a kill here, too, leaves the old one"
        raise cut

    monkeypatch.setattr("deepfer_yolo.export.cards.make_golden", stop)
    with pytest.raises(BaseException):  # noqa: B017, PT011  (each of the three)
        card_checkpoint(bare_checkpoint, CardConfig(size_px=32), overwrite=True)
    assert path.read_bytes() == before


@pytest.fixture(scope="module")
def foreign(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Graphs with float planes in, as others export them: one that ends in a softmax, one in logits, one with its batch
    fixed inside.
    """
    network = load_checkpoint(checkpoint)
    folder = tmp_path_factory.mktemp("foreign")

    class Head(torch.nn.Module):
        def __init__(self, part: int, fixed: bool = False) -> None:
            super().__init__()
            self.network, self.part, self.fixed = network, part, fixed

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.network(images)[self.part]
            return answer.reshape(1, 7) if self.fixed else answer

    made = {}
    for name, head, n in (("probs", Head(0), 2), ("logits", Head(1), 2), ("fixed", Head(0, True), 1)):
        made[name] = folder / f"{name}.onnx"
        axes = {"images": {0: "batch"}, "output0": {0: "batch"}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                head.eval(),
                (torch.zeros(n, 3, 32, 32),),
                made[name],
                input_names=["images"],
                output_names=["output0"],
                dynamic_axes=axes,
                opset_version=17,
                dynamo=False,
            )
    return made


def test_a_stock_checkpoint_says_its_labels_and_size(bare_checkpoint: Path) -> None:
    path, card = card_checkpoint(bare_checkpoint, CardConfig(colour="grey", native_px=48, name="mine"))
    assert path == bare_checkpoint.with_suffix(".json")
    assert card == read_sidecar(bare_checkpoint)
    assert (card.name, card.labels, card.input.size, card.input.colour, card.input.native_px) == (
        "mine",
        EMOTIONS,
        32,
        "grey",
        48,
    )
    assert card.file_sha256 == sha256_of(bare_checkpoint)
    assert check_golden(TorchClassifier(bare_checkpoint)).passed
    with pytest.raises(ModelError, match="the file exists"):
        card_checkpoint(bare_checkpoint, CardConfig())


@pytest.mark.parametrize(("imgsz", "size"), [(48, 64), (64, 64), (33, 64), (224, 224)])
def test_the_size_is_what_ultralytics_really_trained_at(imgsz: int, size: int, bare_checkpoint: Path) -> None:
    content = torch.load(bare_checkpoint, weights_only=False)
    content["model"].args = {"imgsz": imgsz}
    torch.save(content, bare_checkpoint)
    assert card_checkpoint(bare_checkpoint, CardConfig())[1].input.size == size


def test_labels_that_are_not_the_checkpoints_are_refused(bare_checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="are not the checkpoint's angry"):
        card_checkpoint(bare_checkpoint, CardConfig(labels=("a", "b")))
    assert not bare_checkpoint.with_suffix(".json").exists()


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (("angry", "disgust", "fear", "happy", "neutral", "surprise", "sad"), True),
        (("disgusted", *EMOTIONS[1:]), True),
        (("happy", *EMOTIONS[1:]), True),
        (("a", "a", "b", "c", "d", "e", "f"), True),
        (("Wut", "Ekel", "Angst", "Freude", "ruhig", "Trauer", "Staunen"), False),
        (("Anger", *EMOTIONS[1:]), False),
    ],
)
def test_a_checkpoints_labels_may_get_other_names_but_never_another_place(
    given: tuple[str, ...], wrong: bool, bare_checkpoint: Path
) -> None:
    card_checkpoint(bare_checkpoint, CardConfig(colour="grey", native_px=48))
    before, crops = TorchClassifier(bare_checkpoint), paint_golden(4, 5, 32)
    if wrong:
        with pytest.raises(ConfigError, match="place by place"):
            card_checkpoint(bare_checkpoint, CardConfig(labels=given), overwrite=True)
        assert TorchClassifier(bare_checkpoint).labels == EMOTIONS
        return
    card_checkpoint(bare_checkpoint, CardConfig(labels=given), overwrite=True)
    after = TorchClassifier(bare_checkpoint)
    assert after.labels == given
    np.testing.assert_array_equal(after.predict(crops), before.predict(crops))
    assert after.card.model_copy(update={"labels": EMOTIONS}) == before.card, "all else of the card stays"
    assert check_golden(after).passed


def test_canonical_names_for_a_stock_checkpoint(bare_checkpoint: Path) -> None:
    content = torch.load(bare_checkpoint, weights_only=False)
    content["model"].names = dict(enumerate(("Anger", "Disgust", "Fear", "Happiness", "Neutral", "Sad", "Surprised")))
    torch.save(content, bare_checkpoint)
    assert card_checkpoint(bare_checkpoint, CardConfig())[1].labels[0] == "Anger"
    card_checkpoint(bare_checkpoint, CardConfig(labels=("canonical",)), overwrite=True)
    assert TorchClassifier(bare_checkpoint).labels == EMOTIONS


def test_the_labels_of_an_onnx_file_with_a_card_may_get_other_names(exported: Path, tmp_path: Path) -> None:
    given = ("Wut", *EMOTIONS[1:])
    card_onnx(exported, tmp_path / "named.onnx", CardConfig(labels=given))
    before, after = Classifier(exported), Classifier(tmp_path / "named.onnx")
    assert after.labels == given
    assert after.card.model_copy(update={"labels": EMOTIONS}) == before.card, "all else of the card stays"
    crops = paint_golden(4, 5, 32)
    np.testing.assert_array_equal(after.predict(crops), before.predict(crops))
    with pytest.raises(ConfigError, match="place by place"):
        card_onnx(exported, tmp_path / "wrong.onnx", CardConfig(labels=(*EMOTIONS[1:], "angry")))
    with pytest.raises(ModelError, match="has a card already"):
        card_onnx(exported, tmp_path / "new.onnx", CardConfig(labels=given, native_px=32))


@pytest.mark.parametrize("name", ["probs", "logits"])
def test_a_float_graph_is_wrapped(name: str, foreign: dict[str, Path], checkpoint: Path, tmp_path: Path) -> None:
    before = sha256_of(foreign[name])
    answers = "logits" if name == "logits" else None
    card_onnx(foreign[name], tmp_path / "wrapped.onnx", CardConfig(labels=EMOTIONS, answers=answers, **PLAIN))
    assert sha256_of(foreign[name]) == before
    wrapped = Classifier(tmp_path / "wrapped.onnx")
    crops = paint_golden(4, 5, 32)
    np.testing.assert_allclose(wrapped.predict(crops), TorchClassifier(checkpoint).predict(crops), atol=1e-4)
    assert check_golden(wrapped).passed
    onnx.checker.check_model(onnx.load(str(tmp_path / "wrapped.onnx")), full_check=True)


def test_mean_and_std_go_into_the_graph(foreign: dict[str, Path], checkpoint: Path, tmp_path: Path) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    card_onnx(foreign["probs"], tmp_path / "wrapped.onnx", CardConfig(labels=EMOTIONS, mean=mean, std=std))
    crops = paint_golden(4, 5, 32)
    planes = (
        torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255 - torch.tensor(mean).view(1, 3, 1, 1)
    ) / torch.tensor(std).view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = load_checkpoint(checkpoint)(planes)[0].numpy()
    np.testing.assert_allclose(Classifier(tmp_path / "wrapped.onnx").predict(crops), expected, atol=1e-4)


def test_ultralytics_metadata_is_enough(foreign: dict[str, Path], checkpoint: Path, tmp_path: Path) -> None:
    model = onnx.load(str(foreign["probs"]))
    for key, value in {"author": "Ultralytics", "task": "classify", "names": str(dict(enumerate(EMOTIONS)))}.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, str(tmp_path / "stock.onnx"))
    card = card_onnx(tmp_path / "stock.onnx", tmp_path / "out.onnx", CardConfig())
    assert (card.labels, card.input.size) == (EMOTIONS, 32)


@pytest.mark.parametrize(
    ("name", "facts", "reason"),
    [
        ("probs", CardConfig(**PLAIN), "does not say its labels"),
        ("probs", CardConfig(labels=EMOTIONS), "how its input is scaled"),
        ("logits", CardConfig(labels=EMOTIONS, **PLAIN), "does not end in a softmax"),
        ("logits", CardConfig(labels=EMOTIONS, answers="probs", **PLAIN), "does not answer with probabilities"),
        ("probs", CardConfig(labels=EMOTIONS[:5], **PLAIN), "7 numbers per image, but there are 5 labels"),
        ("probs", CardConfig(labels=EMOTIONS, size_px=64, **PLAIN), "not images of 64×64"),
        ("fixed", CardConfig(labels=EMOTIONS, **PLAIN), "batch"),
    ],
)
def test_nothing_is_guessed(
    name: str, facts: CardConfig, reason: str, foreign: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises((ModelError, ConfigError), match=reason):
        card_onnx(foreign[name], tmp_path / "out.onnx", facts)
    assert list(tmp_path.iterdir()) == []


def test_our_own_form_needs_no_wrapping(linear_model: Path, tmp_path: Path) -> None:
    model = onnx.load(str(linear_model))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "bare.onnx"))
    with pytest.raises(ModelError, match="no model card"):
        Classifier(tmp_path / "bare.onnx")
    card = card_onnx(tmp_path / "bare.onnx", tmp_path / "out.onnx", CardConfig(labels=EMOTIONS, colour="grey"))
    assert card.input.size == 24
    crops = paint_golden(4, 5, 24)
    np.testing.assert_array_equal(
        Classifier(tmp_path / "out.onnx").predict(crops), Classifier(linear_model).predict(crops)
    )
    with pytest.raises(ModelError, match="has a card already"):
        card_onnx(tmp_path / "out.onnx", tmp_path / "again.onnx", CardConfig(labels=EMOTIONS, colour="grey"))


def test_metrics_of_a_data_set(linear_model: Path, painted_dataset: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(linear_model, tmp_path / "model.onnx"))
    card, lines = add_metrics(path, Classifier(path), painted_dataset, "val")
    assert not lines
    assert card.metrics["n"] == 56
    assert card.metrics["dataset"] == open_dataset(painted_dataset).name
    assert 0.2 < card.metrics["top1"] < 1
    assert all(low < card.metrics[name] < high for name, (low, high) in card.metrics["intervals"].items())
    assert np.trace(card.metrics["confusion"]) / 56 == pytest.approx(card.metrics["top1"])
    assert Classifier(path).card.metrics == card.metrics
