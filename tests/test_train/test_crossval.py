"""Cross-validation: every image tested once, nobody on both sides, and a run that can be stopped and continued."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deepfer_yolo.data.dataset import Dataset, load_images, open_dataset, read_description, read_manifest, register
from deepfer_yolo.data.duplicates import thumbnails
from deepfer_yolo.data.splits import groups_of
from deepfer_yolo.errors import ConfigError, LeakError, TrainingError
from deepfer_yolo.evaluate.predictions import mirrored
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.train.crossval import CrossValidation
from deepfer_yolo.train.measure import Score
from deepfer_yolo.train.plan import plan
from deepfer_yolo.train.run import Stopped, resume, train
from deepfer_yolo.train.splits import deal, open_for_training
from deepfer_yolo.yolo import TorchClassifier


def quiet(_: str) -> None:
    """Show nothing."""


def content_of(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture(scope="module")
def laboratory(painted_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The painted faces as 224 images of 16 people."""
    target = tmp_path_factory.mktemp("laboratory") / "data"
    shutil.copytree(painted_dataset, target)
    rows = read_manifest(target)
    register(
        [replace(row, subject=f"S{number % 16:03}") for number, row in enumerate(rows)],
        read_description(target),
        target,
    )
    return target


@pytest.fixture(scope="module")
def recipe(tiny_config: TrainConfig, laboratory: Path) -> TrainConfig:
    return tiny_config.model_copy(update={"data": str(laboratory), "epochs": 1, "folds": 3, "group_by": "subject"})


@pytest.fixture(scope="module")
def validated(recipe: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> CrossValidation:
    done = train(recipe, name="cv", show=quiet, root=tmp_path_factory.mktemp("runs"))
    assert isinstance(done, CrossValidation)
    return done


def fold(recipe: TrainConfig, number: int) -> Dataset:
    return open_for_training(recipe.model_copy(update={"fold": number}))


def test_every_image_is_tested_once_and_nobody_is_on_two_sides(recipe: TrainConfig) -> None:
    tested = []
    for number in range(1, 4):
        dataset = fold(recipe, number)
        people = {split: {row.subject for row in dataset.rows(split)} for split in ("train", "val", "test")}
        assert not people["train"] & people["val"]
        assert not people["train"] & people["test"]
        assert not people["val"] & people["test"]
        assert len(dataset.rows("train")) + len(dataset.rows("val")) + len(dataset.rows("test")) == 224
        assert all(dataset.counts("train").values())
        tested += [row.path for row in dataset.rows("test")]
        assert {row.path for row in dataset.rows("val")} == {
            row.path for row in fold(recipe, number % 3 + 1).rows("test")
        }
    assert sorted(tested) == sorted(row.path for row in open_dataset(Path(str(recipe.data))).all_rows)


def grouped(root: Path, group_by: str) -> NDArray[np.int64]:
    dataset = open_dataset(root)
    return groups_of(dataset.all_rows, group_by, lambda: thumbnails(dataset, dataset.all_rows))


def test_copies_stay_together_where_there_are_no_subjects(laboratory: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(laboratory, root)
    rows = read_manifest(root)
    for place in (200, 220):
        shutil.copy(root / rows[3].path, root / rows[place].path)
        rows[place] = replace(rows[place], sha256=rows[3].sha256)
    register([replace(row, subject="") for row in rows], read_description(root), root)
    groups = grouped(root, "auto")
    assert groups[3] == groups[200] == groups[220]
    assert len(set(groups.tolist())) > 150
    with pytest.raises(ConfigError, match=r"224 of 224 images have no subject"):
        grouped(root, "subject")
    register(
        [replace(row, subject="A" if number < 50 else "") for number, row in enumerate(rows)],
        read_description(root),
        root,
    )
    mixed = grouped(root, "auto")
    assert len(set(mixed[:50].tolist())) == 1
    assert mixed[200] == mixed[220] == mixed[3] != mixed[210]


def test_mean_and_spread_are_those_of_the_folds(validated: CrossValidation, laboratory: Path) -> None:
    metrics = json.loads((validated.folder / "metrics.json").read_text())
    tests = [
        json.loads((validated.folder / f"fold-{number}" / "metrics.json").read_text())["test"] for number in range(1, 4)
    ]
    top1 = [test["top1"] for test in tests]
    assert metrics["over_folds"]["top1"] == {
        "mean": pytest.approx(np.mean(top1)),
        "sd": pytest.approx(np.std(top1, ddof=1)),
        "folds": top1,
    }
    assert metrics["n"] == sum(test["n"] for test in tests) == 224
    assert metrics["top1"] == pytest.approx(sum(test["top1"] * test["n"] for test in tests) / 224)
    assert "3 folds by subject" in validated.lines()[-2]
    # A fold's figure is what its own checkpoint gives on the people that it has not seen.
    with (validated.folder / "folds.csv").open() as file:
        mine = {row["path"] for row in csv.DictReader(file) if row["fold"] == "2"}
    dataset = open_dataset(laboratory)
    rows = [row for row in dataset.all_rows if row.path in mine]
    classifier = TorchClassifier(validated.folder / "fold-2" / "weights" / "best.pt")
    right = classifier.predict_images(list(load_images(dataset, rows))).argmax(1) == [
        dataset.labels.index(row.label) for row in rows
    ]
    assert (len(rows), float(right.mean())) == (tests[1]["n"], pytest.approx(tests[1]["top1"]))


def test_each_image_is_answered_by_the_fold_that_has_not_seen_it(validated: CrossValidation, laboratory: Path) -> None:
    dataset = open_dataset(laboratory)
    with (validated.folder / "predictions.csv").open() as file:
        said = list(csv.DictReader(file))
    with (validated.folder / "folds.csv").open() as file:
        fold_of = {row["path"]: row["fold"] for row in csv.DictReader(file)}
    assert [row["path"] for row in said] == [row.path for row in dataset.all_rows]
    assert list(said[0]) == ["path", *dataset.labels]
    for number in "123":
        mine = [place for place, row in enumerate(dataset.all_rows) if fold_of[row.path] == number]
        classifier = TorchClassifier(validated.folder / f"fold-{number}" / "weights" / "best.pt")
        images = list(load_images(dataset, [dataset.all_rows[place] for place in mine]))
        probs = (classifier.predict_images(images) + classifier.predict_images([mirrored(one) for one in images])) / 2
        written = [[float(said[place][label]) for label in dataset.labels] for place in mine]
        assert np.abs(probs - np.array(written)).max() < 2e-3  # the classifier runs in another batch and memory layout


def test_a_stopped_cross_validation_goes_on_where_it_was_and_ends_alike(
    recipe: TrainConfig, validated: CrossValidation, laboratory: Path, tmp_path: Path
) -> None:
    before = content_of(laboratory)

    def stop_in_the_second_fold() -> bool:
        return (tmp_path / "train" / "cv" / "fold-2").is_dir()

    stopped = train(recipe, name="cv", show=quiet, should_stop=stop_in_the_second_fold, root=tmp_path)
    assert isinstance(stopped, Stopped)
    assert stopped.folder == tmp_path / "train" / "cv"
    assert (stopped.folder / "fold-1" / "metrics.json").is_file()
    assert not (stopped.folder / "fold-2" / "metrics.json").is_file()
    first = content_of(stopped.folder / "fold-1")
    (stopped.folder / "fold-3").mkdir()  # a kill between the folder and its recipe
    lines: list[str] = []
    done = resume(stopped.folder, show=lines.append)
    assert isinstance(done, CrossValidation)
    assert "fold 1 of 3" not in lines
    assert lines[0] == "fold 2 of 3"
    assert "resuming" in lines[1]
    assert content_of(stopped.folder / "fold-1") == first
    assert done.metrics() == validated.metrics()
    assert content_of(laboratory) == before
    with pytest.raises(TrainingError, match="has finished"):
        resume(stopped.folder, show=quiet)


def test_data_that_have_changed_are_refused(
    recipe: TrainConfig, validated: CrossValidation, laboratory: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(laboratory, data)
    folder = tmp_path / "cv"
    shutil.copytree(validated.folder, folder)
    (folder / "metrics.json").unlink()
    rows = read_manifest(data)
    register(rows[1:], read_description(data), data)
    config = (folder / "config.yaml").read_text().replace(str(laboratory), str(data))
    (folder / "config.yaml").write_text(config)
    with pytest.raises(TrainingError, match="has changed since the cross-validation began"):
        resume(folder, show=quiet)


def test_a_start_that_has_learned_the_images_is_refused_in_every_fold(
    recipe: TrainConfig, finished_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(LeakError, match="has learned"):
        train(recipe.model_copy(update={"model": str(finished_run / "weights" / "best.pt")}), show=quiet, root=tmp_path)
    assert not list((tmp_path / "train").iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"folds": 17}, "16 groups of images cannot be divided into 17 folds"),
        ({"folds": 4, "fold": 5}, "no fold 5 of 4"),
        ({"fold": 1, "folds": None}, "no fold 1 of 0"),
    ],
)
def test_folds_that_cannot_be_are_clear_errors_and_leave_nothing(
    change: dict[str, int], words: str, recipe: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        train(recipe.model_copy(update=change), root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_seed_deals_the_folds(recipe: TrainConfig) -> None:
    dataset = open_dataset(Path(str(recipe.data)))
    assert deal(dataset, recipe) == deal(dataset, recipe) != deal(dataset, recipe.model_copy(update={"seed": 1}))


def test_a_dry_run_counts_all_folds(recipe: TrainConfig) -> None:
    found = plan(recipe)
    assert found.runs == 3
    assert found.train + found.val < 224


def test_pooled_figures_by_hand() -> None:
    tests = (Score(3, 1.0, 1.0, ((2, 0), (0, 1))), Score(2, 0.5, 1 / 3, ((1, 0), (1, 0))))
    found = CrossValidation(Path(), tests, "none", 0)
    assert (found.pooled.n, found.pooled.top1) == (5, 0.8)
    assert found.pooled.macro_f1 == pytest.approx((6 / 7 + 2 / 3) / 2)
    assert found.top1.sd == pytest.approx(0.5 / 2**0.5)
