"""From a data set folder to the splits of a run: images left out, and targets that votes make."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepfer_yolo.data.dataset import fingerprint, read_description, read_manifest, register
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.train.splits import open_for_training, read_splits


def test_the_quarantine_thins_train_and_never_val(
    tiny_config: TrainConfig, painted_dataset: Path, tmp_path: Path
) -> None:
    rows = read_manifest(painted_dataset)
    listed = [next(row.path for row in rows if row.split == split) for split in ("train", "val")]
    path = tmp_path / "quarantine.csv"
    path.write_text("picture,finding,why\n" + "".join(f"{name},blank,x\n" for name in listed))
    dataset = open_for_training(tiny_config.model_copy(update={"exclude": str(path)}))
    assert listed[0] not in {row.path for row in dataset.rows("train")}
    assert len(dataset.rows("train")) == 139
    assert len(dataset.rows("val")) == 56
    assert dataset.fingerprint == fingerprint([row for row in rows if row.path != listed[0]])
    path.write_text("picture,finding,why\nanother/image.png,blank,x\n")
    with pytest.raises(DatasetError, match="not in this data set"):
        open_for_training(tiny_config.model_copy(update={"exclude": str(path)}))


def test_votes_become_shares_and_their_absence_is_an_error(
    tiny_config: TrainConfig, painted_dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="has no votes"):
        read_splits(open_for_training(tiny_config), tiny_config.model_copy(update={"votes": True}))
    voted = tmp_path / "voted"
    shutil.copytree(painted_dataset, voted)
    rows = read_manifest(voted)
    first = next(index for index, row in enumerate(rows) if row.split == "train")
    rows[first] = replace(rows[first], votes="happy:6 sad:2 contempt:2")
    register(rows, read_description(voted), voted)
    config = tiny_config.model_copy(update={"data": str(voted), "votes": True})
    faces, _, _ = read_splits(open_for_training(config), config)
    assert faces.soft is not None
    assert faces.soft[0].tolist() == [0, 0, 0, 0.75, 0, 0.25, 0]
    assert torch.equal(faces.soft[1].argmax(), faces.labels[1])
    assert torch.allclose(faces.soft.sum(1), torch.ones(140))


def test_evidence_reads_votes_in_the_data_sets_own_words(
    tiny_config: TrainConfig, painted_dataset: Path, tmp_path: Path
) -> None:
    config = tiny_config.model_copy(update={"vote_evidence": 0.5})
    with pytest.raises(DatasetError, match="has no votes"):
        read_splits(open_for_training(config), config)
    voted = tmp_path / "voted"
    shutil.copytree(painted_dataset, voted)
    # Whoever voted "sad" here saw what the data set calls angry; the first image's own label is an outlier among
    # those votes.
    rows = read_manifest(voted)
    train_rows = [index for index, row in enumerate(rows) if row.split == "train"]
    outlier = next(index for index in train_rows if rows[index].label == "happy")
    for index in train_rows:
        if rows[index].label == "angry" or index == outlier:
            rows[index] = replace(rows[index], votes="sad:9 unknown:1")
        elif rows[index].label == "sad":
            rows[index] = replace(rows[index], votes="contempt:10")
    register(rows, read_description(voted), voted)
    config = config.model_copy(update={"data": str(voted)})
    dataset = open_for_training(config)
    faces, _, _ = read_splits(dataset, config)
    assert faces.soft is not None
    assert torch.allclose(faces.soft.sum(1), torch.ones(140), atol=1e-5)
    place = [row.path for row in dataset.rows("train")].index(rows[outlier].path)
    happy, angry, sad = (dataset.labels.index(label) for label in ("happy", "angry", "sad"))
    target = faces.soft[place]
    assert 0.5 < float(target[happy]) < 0.6  # half by its label, a little by the evidence
    assert 0.4 < float(target[angry]) < 0.5
    assert float(target[sad]) < 0.05
    unseen = faces.labels == dataset.labels.index("surprise")  # nobody voted on these: their label alone counts
    assert torch.equal(faces.soft[unseen][:, dataset.labels.index("surprise")], torch.ones(int(unseen.sum())))


def test_val_is_judged_by_the_clear_winner_of_its_votes(
    tiny_config: TrainConfig, painted_dataset: Path, tmp_path: Path
) -> None:
    config = tiny_config.model_copy(update={"judge": "votes"})
    with pytest.raises(DatasetError, match="clear winner"):
        read_splits(open_for_training(config), config)
    voted = tmp_path / "voted"
    shutil.copytree(painted_dataset, voted)
    rows = read_manifest(voted)
    held_out = [index for index, row in enumerate(rows) if row.split == "val"]
    given = ("sad:6 happy:4", "sad:5 happy:5", "contempt:9", "happy:1")
    for index, votes in zip(held_out, given, strict=False):
        rows[index] = replace(rows[index], votes=votes)
    register(rows, read_description(voted), voted)
    config = config.model_copy(update={"data": str(voted)})
    dataset = open_for_training(config)
    _, val, _ = read_splits(dataset, config)
    assert [dataset.labels[index] for index in val.labels.tolist()] == ["sad", "happy"]
