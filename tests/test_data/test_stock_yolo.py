"""What `deepfer doctor DATASET` foresees, held against what stock Ultralytics really does with the same tree."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PillowImage
from typer.testing import CliRunner

from deepfer_yolo import yolo  # before ultralytics: it keeps it from the network
from deepfer_yolo.cli.app import app
from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.stock_yolo import READ, StockView, stock_view
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.painted import paint_faces

FACES, NAMES = paint_faces(11, 70)

Tree = Mapping[str, Sequence[str]]


def paint(root: Path, tree: Tree, suffix: str = ".png", n: int = 2) -> Path:
    """`n` images of another face in each class folder of each split."""
    for number, (split, names) in enumerate(tree.items()):
        for i, name in enumerate(names):
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(n):
                PillowImage.fromarray(FACES[(7 * number + 3 * i + k) % len(FACES)]).save(folder / f"{k}{suffix}", "PNG")
    return root


def stock_split(root: Path, folder: str, names: dict[int, str] | None) -> list[tuple[str, int]]:
    """What the real data set class has of one split: the path inside it and the class of each image."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import ClassificationDataset

    made = ClassificationDataset(root / folder, get_cfg(), augment=False, prefix="val", names=names)
    return sorted((Path(sample[0]).relative_to(root / folder).as_posix(), sample[1]) for sample in made.samples)


def stock_names(root: Path) -> dict[str, Any]:
    """What the real check of a data set says: class names, the folders of its splits."""
    from ultralytics.data.utils import check_cls_dataset

    found: dict[str, Any] = check_cls_dataset(root, split="val")
    return found


def foreseen(split_folder: Path, indices: Mapping[str, int | None]) -> list[tuple[str, int]]:
    files = sorted(path for path in split_folder.glob("*/**/*") if path.suffix[1:].lower() in READ)
    rows = [
        (path.relative_to(split_folder).as_posix(), indices[path.relative_to(split_folder).parts[0]]) for path in files
    ]
    return [(name, index) for name, index in rows if index is not None]


def kinds(view: StockView) -> set[str]:
    return {finding.kind for finding in view.findings}


SEVEN = list(EMOTIONS)
NUMBERS = [str(i) for i in range(1, 12)]
TREES: dict[str, tuple[Tree, set[str]]] = {
    "as deepfer writes it": ({"train": SEVEN, "val": SEVEN, "test": SEVEN}, set()),
    "capitals in the same order": ({"train": [x.title() for x in SEVEN], "val": [x.title() for x in SEVEN]}, set()),
    "capitals without the first": (
        {"train": SEVEN, "val": [x.title() for x in SEVEN[1:]]},
        {"val-by-order", "scored-by-order"},
    ),
    "FER2013's numbers": ({"train": NUMBERS[:7], "val": NUMBERS[:7]}, {"number-names", "scored-by-order"}),
    "numbers beyond nine": ({"train": NUMBERS, "val": NUMBERS}, {"text-order", "scored-by-order"}),
    "synonyms": (
        {"train": SEVEN, "val": ["anger", "disgust", "fear", "happiness", "neutral", "sad", "surprise"]},
        {"val-skipped", "val-misses", "spelling-skipped"},
    ),
    "a label in val alone": ({"train": SEVEN[:6], "val": SEVEN}, {"val-skipped"}),
    "a label in train alone": ({"train": SEVEN, "val": SEVEN[:6]}, {"val-misses"}),
    "one expression twice": ({"train": [*SEVEN, "Happiness"], "val": SEVEN}, {"two-classes", "val-misses"}),
    "what notebooks leave": ({"train": [".ipynb_checkpoints", *SEVEN], "val": SEVEN}, {"hidden-class", "val-misses"}),
    "valid and validation": ({"train": SEVEN, "validation": SEVEN, "valid": SEVEN}, {"several-val"}),
    "no val but a test": ({"train": SEVEN, "test": SEVEN}, {"val-is-test"}),
    "other labels": ({"train": ["cat", "dog"], "val": ["cat", "dog"]}, set()),
}


@pytest.mark.parametrize("name", TREES)
def test_what_is_foreseen_is_what_stock_ultralytics_does(name: str, tmp_path: Path) -> None:
    tree, expected = TREES[name]
    root = paint(tmp_path / "tree", tree)
    view = stock_view(root, EMOTIONS, named=False)
    assert kinds(view) == expected, view.findings
    real = stock_names(root)
    assert real["names"] == dict(enumerate(view.names))
    assert view.train is not None
    assert view.val is not None
    assert Path(real["val"]).name == view.val.folder
    learned = {label: i for i, label in enumerate(view.names)}
    assert stock_split(root, "train", real["names"]) == foreseen(root / "train", learned)
    in_training = foreseen(root / view.val.folder, view.val_indices)
    assert stock_split(root, view.val.folder, real["names"]) == in_training
    if view.model_indices:
        in_val = foreseen(root / view.val.folder, view.model_indices)
        assert stock_split(root, view.val.folder, dict(enumerate(EMOTIONS))) == in_val


def test_the_messages_name_what_counts_as_what(tmp_path: Path) -> None:
    root = paint(tmp_path / "tree", {"train": ["1", "10", "2"], "val": ["Anger", "Fear", "Joy", "sad"]})
    said = {finding.kind: (finding.count, finding.message) for finding in stock_view(root, EMOTIONS).findings}
    assert said["text-order"] == (2, "folders that are numbers sort as text: 1 is class 0, 10 is class 1")
    assert said["val-by-order"][1].endswith("the order decides: Anger as 1, Fear as 10, Joy as 2")
    assert said["spelling-skipped"] == (
        6,
        "`yolo val` of the model skips other spellings: Anger (angry), Fear (fear), Joy (happy)",
    )


def test_without_train_the_real_thing_splits_by_itself(tmp_path: Path) -> None:
    root = paint(tmp_path / "tree", {"Train": SEVEN, "Test": SEVEN})
    (finding,) = stock_view(root, EMOTIONS).findings
    assert (finding.kind, finding.message.split("; ")[1]) == ("no-train", "its classes: Test, Train")
    real = stock_names(root)
    assert sorted(real["names"].values()) == ["Test", "Train"]
    assert (tmp_path / "tree_split" / "train" / "Train").is_dir()


def test_without_val_and_test_training_stops(tmp_path: Path) -> None:
    root = paint(tmp_path / "tree", {"train": ["happy", "sad"], "Val": ["happy", "sad"]})
    (finding,) = stock_view(root, EMOTIONS).findings
    assert finding.kind == "no-val"
    assert "(Val)" in finding.message
    spec = tmp_path / "tiny-cls.yaml"
    spec.write_text("nc: 2\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2]]\nhead:\n  - [-1, 1, Classify, [nc]]\n")
    settings = {"model": str(spec), "data": str(root), "epochs": 1, "imgsz": 32, "workers": 0, "plots": False}
    trainer = yolo.ClassificationTrainer(overrides=settings | {"project": str(tmp_path), "device": "cpu", "amp": False})
    with pytest.raises((TypeError, KeyError, AttributeError, FileNotFoundError)):
        trainer.train()


def test_images_that_are_passed_over_or_written_anew(tmp_path: Path) -> None:
    root = paint(tmp_path / "tree", {"train": ["happy", "sad"], "val": ["happy", "sad"]})
    shutil.copy(root / "train" / "happy" / "0.png", root / "train" / "stray.png")
    shutil.copy(root / "train" / "happy" / "0.png", root / "train" / "happy" / "more.ppm")
    deep = root / "val" / "sad" / "more"
    deep.mkdir()
    shutil.copy(root / "val" / "sad" / "0.png", deep / "UPPER.PNG")
    cut = root / "val" / "happy" / "cut.jpg"
    PillowImage.fromarray(FACES[0]).save(cut)
    whole = root / "val" / "happy" / "whole.jpg"
    shutil.copy(cut, whole)
    cut.write_bytes(cut.read_bytes() + b"\0\0")
    before = {path: path.read_bytes() for path in (cut, whole)}
    view = stock_view(root, EMOTIONS)
    counts = {(one.kind, one.count) for one in view.findings}
    assert counts == {("strays", 1), ("suffix", 1), ("rewritten", 1)}
    assert view.val is not None
    assert view.val.images == {"happy": 4, "sad": 3}
    assert stock_split(root, "train", None) == foreseen(root / "train", {"happy": 0, "sad": 1}) == [
        (f"{label}/{k}.png", i) for i, label in enumerate(("happy", "sad")) for k in range(2)
    ]  # fmt: skip
    assert stock_split(root, "val", None) == foreseen(root / "val", {"happy": 0, "sad": 1})
    assert cut.read_bytes() != before[cut], "stock Ultralytics wrote it anew"
    assert whole.read_bytes() == before[whole]


def test_its_endings_are_those_that_are_written_down_here() -> None:
    from ultralytics.data.utils import IMG_FORMATS

    assert set(IMG_FORMATS) == READ


def test_a_class_without_images_is_a_class(tmp_path: Path) -> None:
    root = paint(tmp_path / "tree", {"train": ["happy", "sad"], "val": ["happy", "sad"]})
    (root / "train" / "fear").mkdir()
    view = stock_view(root, EMOTIONS)
    assert kinds(view) == {"empty-class", "val-misses"}
    assert stock_names(root)["names"] == {0: "fear", 1: "happy", 2: "sad"} == dict(enumerate(view.names))


def test_converted_such_a_tree_is_read_as_meant(tmp_path: Path) -> None:
    root = paint(
        tmp_path / "tree", {"Training": ["Anger", "Joy", "Sadness"], "Valid": ["Joy", "Anger", "Sadness"]}, n=9
    )
    assert kinds(stock_view(root, EMOTIONS)) == {"no-train"}
    convert(root, tmp_path / "made", ConvertConfig())
    view = stock_view(tmp_path / "made", EMOTIONS)
    assert view.findings == ()
    assert view.names == ("angry", "happy", "sad")


def test_the_command_prints_and_exits_by_it(tmp_path: Path) -> None:
    runner = CliRunner()
    good = paint(tmp_path / "good", {"train": SEVEN, "val": SEVEN})
    bad = paint(tmp_path / "bad", {"train": NUMBERS, "val": NUMBERS})
    done = runner.invoke(app, ["doctor", str(good)])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "nothing goes otherwise than the folders say")
    done = runner.invoke(app, ["doctor", str(bad)])
    assert done.exit_code == 3
    assert "10 is class 1" in " ".join(done.stdout.split())
    assert f"hint: deepfer convert {bad} DEST" in done.stderr
    done = runner.invoke(app, ["doctor", str(bad), "--json"])
    assert done.exit_code == 3
    assert {one["kind"] for one in json.loads(done.stdout)["findings"]} == {"text-order", "scored-by-order"}
    done = runner.invoke(app, ["doctor", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "not a folder" in str(done.exception)


def test_a_model_of_other_labels_is_asked_where_it_is_named(tmp_path: Path) -> None:
    root = paint(tmp_path / "tree", {"train": ["cat", "dog"], "val": ["cat", "dog"]})
    assert kinds(stock_view(root, EMOTIONS, named=False)) == set()
    assert kinds(stock_view(root, EMOTIONS)) == {"scored-by-order"}
