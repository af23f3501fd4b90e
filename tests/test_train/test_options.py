"""Options of a run that need a run to be seen: teacher, votes, quarantine, model yamls, dry run, images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepfer_yolo.data.dataset import fingerprint, read_manifest, write_manifest
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import ConfigError, DatasetError
from deepfer_yolo.presets import configs_dir
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.train.plan import plan
from deepfer_yolo.train.results import TrainResult
from deepfer_yolo.train.run import train
from deepfer_yolo.train.splits import open_for_training, read_splits
from deepfer_yolo.train.start import open_teachers, starting_model


def run(config: TrainConfig, root: Path, **changes: object) -> None:
    result = train(config.model_copy(update={"epochs": 1, **changes}), name="r", show=lambda _: None, root=root)
    assert isinstance(result, TrainResult)


def test_a_teacher_changes_what_is_learned_and_is_itself_left_alone(
    tiny_config: TrainConfig, finished_run: Path, tmp_path: Path
) -> None:
    best = finished_run / "weights" / "best.pt"
    before = best.read_bytes()
    alone, taught = tmp_path / "alone", tmp_path / "taught"
    run(tiny_config, alone)
    run(tiny_config, taught, teacher=(str(best),), teacher_share=1.0)
    losses = [
        (root / "train" / "r" / "results.csv").read_text().splitlines()[1].split(",")[2] for root in (alone, taught)
    ]
    assert losses[0] != losses[1]
    assert best.read_bytes() == before


def test_a_teacher_of_other_labels_is_refused(tiny_config: TrainConfig, finished_run: Path) -> None:
    config = tiny_config.model_copy(update={"teacher": (str(finished_run / "weights" / "best.pt"),)})
    with pytest.raises(ConfigError, match="the teacher"):
        open_teachers(config, ("a", "b"))


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
    from dataclasses import replace

    with pytest.raises(DatasetError, match="has no votes"):
        read_splits(open_for_training(tiny_config), tiny_config.model_copy(update={"votes": True}))
    voted = tmp_path / "voted"
    shutil.copytree(painted_dataset, voted)
    rows = read_manifest(voted)
    first = next(index for index, row in enumerate(rows) if row.split == "train")
    rows[first] = replace(rows[first], votes="happy:6 sad:2 contempt:2")
    write_manifest(rows, voted)
    config = tiny_config.model_copy(update={"data": str(voted), "votes": True})
    faces, _, _ = read_splits(open_for_training(config), config)
    assert faces.soft is not None
    assert faces.soft[0].tolist() == [0, 0, 0, 0.75, 0, 0.25, 0]
    assert torch.equal(faces.soft[1].argmax(), faces.labels[1])
    assert torch.allclose(faces.soft.sum(1), torch.ones(140))


def test_evidence_reads_votes_in_the_data_sets_own_words(
    tiny_config: TrainConfig, painted_dataset: Path, tmp_path: Path
) -> None:
    from dataclasses import replace

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
    write_manifest(rows, voted)
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


@pytest.mark.parametrize("path", sorted((configs_dir() / "models").glob("*.yaml")), ids=lambda path: path.stem)
def test_our_model_yamls_are_built_by_bare_name_and_stay_small(path: Path) -> None:
    model = starting_model(TrainConfig(model=path.stem), EMOTIONS, lambda _: None)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 2_000_000
    for size in (32, 64):
        assert model.eval()(torch.zeros(1, 3, size, size))[0].shape == (1, 7)


def test_a_dry_run_tells_and_writes_nothing(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = plan(tiny_config.model_copy(update={"start_imgsz": 32}))
    json.dumps(found.to_json())
    assert (found.train, found.val) == (140, 56)
    # 16 filters of 3x3x3 over 16x16 positions, 32 of 3x3x16 over 8x8, 64 of 3x3x32 over 4x4, 1280 of 64 over 4x4, 7 of
    # 1280: two each
    wanted = 2 * (16 * 27 * 256 + 32 * 144 * 64 + 64 * 288 * 16 + 1280 * 64 * 16 + 7 * 1280)
    assert found.gflops * 1e9 == pytest.approx(wanted)
    assert found.estimated_s > 0
    assert not list(tmp_path.iterdir())


def test_a_run_leaves_curves_and_a_sheet_of_augmented_faces(finished_run: Path) -> None:
    with Image.open(finished_run / "augmented.png") as image:
        sheet = np.asarray(image)
    assert sheet.shape == (6 * 32 * 2, 10 * 32 * 2, 3)
    assert sheet.std() > 20
    with Image.open(finished_run / "curves.png") as image:
        assert image.size[0] > 300
