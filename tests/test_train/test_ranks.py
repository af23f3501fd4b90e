"""Several processes train as one: nothing lost, nothing twice, the same weights everywhere.

On the CPU by gloo; GPUs are not needed.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.errors import ConfigError, MissingDependencyError, ModelError, TrainingError
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.runs import create_run
from deepfer_yolo.train.decoded_split import DecodedSplit
from deepfer_yolo.train.device import check_device, check_shares
from deepfer_yolo.train.loader import EpochSampler, ValLoader
from deepfer_yolo.train.ranks import STOP, launch
from deepfer_yolo.train.run import absolute, resume
from deepfer_yolo.yolo import load_checkpoint, trained_hashes

GLOO = (str(Path(__file__).parent / "gloo_worker.py"),)


def prepared(config: TrainConfig, root: Path) -> Path:
    return create_run("train", "ranks", absolute(config), root).resolve()


def test_two_processes_train_as_one(tiny_config: TrainConfig, tmp_path: Path) -> None:
    folder = prepared(tiny_config.model_copy(update={"epochs": 1, "batch": 36}), tmp_path)
    launch(folder, 2, 1, lambda: False, GLOO)
    left = [json.loads((folder / f"rank{rank}-0.json").read_text()) for rank in (0, 1)]
    assert [part["ddp"] for part in left] == ["DistributedDataParallel"] * 2
    # 140 images in batches of 18 + 18: four steps each, every image once.
    assert [part["batches"] for part in left] == [4, 4]
    assert [len(part["drawn"]) for part in left] == [70, 70]
    assert sorted(left[0]["drawn"] + left[1]["drawn"]) == list(range(140))
    assert left[0]["weights"] == left[1]["weights"]
    # Val: one stretch each, gathered in the order of the files, nothing twice.
    assert [part["val"] for part in left] == [[0, 28], [28, 56]]
    dataset = open_dataset(Path(str(tiny_config.data)))
    assert json.loads((folder / "val-0.json").read_text()) == [
        dataset.labels.index(row.label) for row in dataset.rows("val")
    ]
    metrics = json.loads((folder / "metrics.json").read_text())
    header, row = (line.split(",") for line in (folder / "results.csv").read_text().splitlines())
    assert metrics["val"]["n"] == 56
    assert metrics["val"]["top1"] == pytest.approx(
        float(row[header.index("metrics/accuracy_top1")]), abs=0.02
    )  # float16 may turn one of 56
    found = trained_hashes(load_checkpoint(folder / "weights" / "best.pt"))
    assert found is not None
    assert len(found) == 140
    assert (folder / "weights" / "best.json").is_file()


@pytest.mark.slow
def test_two_processes_are_stopped_together_and_go_on(tiny_config: TrainConfig, tmp_path: Path) -> None:
    change = {"epochs": 20, "batch": 36, "freeze": 2, "freeze_share": 0.5, "val_from": 0.2}
    folder = prepared(tiny_config.model_copy(update=change), tmp_path)
    launch(folder, 2, 1, (folder / "results.csv").exists, GLOO)
    assert not (folder / "metrics.json").exists()
    assert list((folder / "weights").glob("state-*.pt"))
    assert not (folder / STOP).exists()
    launch(folder, 2, 1, lambda: False, GLOO)
    assert [row.split(",")[0] for row in (folder / "results.csv").read_text().splitlines()[1:]] == [
        str(number) for number in range(1, 21)
    ]
    for epoch in (0, 9, 19):  # frozen layers too learn the same everywhere once they learn
        assert len({json.loads((folder / f"rank{rank}-{epoch}.json").read_text())["weights"] for rank in (0, 1)}) == 1
    with pytest.raises(TrainingError, match="has finished"):
        resume(folder, show=lambda _: None)


@pytest.mark.slow
def test_an_error_of_a_process_arrives_as_itself(tiny_config: TrainConfig, tmp_path: Path) -> None:
    folder = prepared(tiny_config.model_copy(update={"batch": 36, "model": "absent.yaml"}), tmp_path)
    with pytest.raises(ModelError, match="no such model file"):
        launch(folder, 2, 1, lambda: False, GLOO)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_shards_are_complete_and_equal_in_steps(world: int) -> None:
    for n in (140, 141, 7):
        parts = [EpochSampler(n, 8, seed=3, rank=rank, world=world).batches() for rank in range(world)]
        assert len({len(part) for part in parts}) == 1
        assert sorted(int(index) for part in parts for batch in part for index in batch) == list(range(n))
        faces = DecodedSplit(torch.zeros(n, 1, 2, 2, dtype=torch.uint8), torch.arange(n))
        loaders = [ValLoader(faces, 8, torch.device("cpu"), rank=rank, world=world) for rank in range(world)]
        batches = [list(loader) for loader in loaders]
        assert [len(part) for part in batches] == [len(loader) for loader in loaders]
        assert [int(label) for part in batches for batch in part for label in batch["cls"]] == list(range(n))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"device": "0,1", "batch": 35}, "batch of 35"),
        ({"device": "0,1,2", "batch": 3}, "batch of 3"),
        ({"device": "0,1", "batch": 36, "time": 1.0}, "time:"),
    ],
)
def test_recipes_that_cannot_be_dealt_are_refused(
    change: dict[str, object], words: str, tiny_config: TrainConfig
) -> None:
    with pytest.raises(ConfigError, match=words):
        check_shares(tiny_config.model_copy(update=change))


@pytest.mark.parametrize(
    ("device", "error"),
    [("0,0", ConfigError), ("0,", ConfigError), ("0,x", ConfigError), ("97,98", MissingDependencyError)],
)
def test_devices_that_are_not_there(device: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_device(TrainConfig(device=device))
