"""A run from data to measured checkpoint: what it writes, what it refuses, and that it can be stopped and continued
exactly.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from deepfer_yolo.data.dataset import (
    fingerprint,
    load_images,
    open_dataset,
    read_description,
    read_manifest,
    register,
)
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import ConfigError, DatasetError, MissingDependencyError, ModelError, TrainingError
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.runtime.model_file import checked_sidecar
from deepfer_yolo.train.results import TrainResult
from deepfer_yolo.train.run import Stopped, absolute, lock, recipe_of, resume, train
from deepfer_yolo.train.trainer import FaceTrainer
from deepfer_yolo.yolo import TorchClassifier, load_checkpoint, read_checkpoint


def quiet(_: str) -> None:
    """Show nothing."""


def results(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "results.csv").read_text().splitlines()))


def without_split(dataset: Path, target: Path, split: str) -> Path:
    shutil.copytree(dataset, target)
    register([row for row in read_manifest(target) if row.split != split], read_description(target), target)
    return target


def weights_hash(checkpoint: Path) -> str:
    state = load_checkpoint(checkpoint).state_dict()
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()


def test_a_run_folder_holds_all_that_was_promised(finished_run: Path, tiny_config: TrainConfig) -> None:
    present = {str(path.relative_to(finished_run)) for path in finished_run.rglob("*") if path.is_file()}
    assert {"config.yaml", "env.json", "metrics.json", "log.txt", "args.yaml", "results.csv"} <= present
    assert {f"weights/{name}" for name in ("best.pt", "best.json", "last.pt", "last.json")} <= present
    assert not [path for path in present if "state-" in path or "part" in path]
    assert TrainConfig.model_validate(yaml.safe_load((finished_run / "config.yaml").read_text())) == tiny_config
    rows = results(finished_run)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {"train/loss", "val/loss", "metrics/accuracy_top1", "metrics/macro_f1"} <= set(rows[0])


def test_a_checkpoint_can_be_passed_on_without_the_paths_of_the_machine(
    finished_run: Path, tiny_config: TrainConfig
) -> None:
    import zipfile

    for name in ("best.pt", "last.pt"):
        with zipfile.ZipFile(finished_run / "weights" / name) as archive:
            pickle = next(archive.read(member) for member in archive.namelist() if member.endswith("data.pkl"))
        assert b"painted" in pickle  # the data set's name
        for path in (str(tiny_config.data), str(tiny_config.model), str(finished_run), str(Path.cwd())):
            assert path.encode() not in pickle, path


def test_the_last_epoch_has_a_card_of_its_own(finished_run: Path) -> None:
    figures = {name: checked_sidecar(finished_run / "weights" / f"{name}.pt") for name in ("best", "last")}
    last = float(results(finished_run)[-1]["metrics/accuracy_top1"])
    assert figures["last"].metrics["val"]["top1"] == pytest.approx(last, abs=0.02)
    assert figures["last"].input == figures["best"].input
    assert figures["last"].file_sha256 != figures["best"].file_sha256


def test_best_is_the_epoch_with_the_best_top1_and_metrics_are_its_own(finished_run: Path) -> None:
    metrics = json.loads((finished_run / "metrics.json").read_text())
    rows = results(finished_run)
    top1 = [float(row["metrics/accuracy_top1"]) for row in rows]
    assert metrics["best_epoch"] == 1 + int(np.argmax(top1))
    assert metrics["val"]["n"] == 56
    assert metrics["val"]["top1"] == pytest.approx(max(top1), abs=0.02)  # float16 may turn one image of 56


def test_the_card_says_what_the_images_are_and_the_classifier_agrees_with_the_metrics(
    finished_run: Path, painted_dataset: Path
) -> None:
    classifier = TorchClassifier(finished_run / "weights" / "best.pt")
    dataset = open_dataset(painted_dataset)
    card = classifier.card
    assert card.labels == EMOTIONS
    assert (card.input.size, card.input.colour, card.input.native_px) == (32, "grey", 48)
    assert card.trained_on is not None
    assert (card.trained_on.name, card.trained_on.fingerprint) == (dataset.name, dataset.fingerprint)
    rows = dataset.rows("val")
    predicted = classifier.predict_images(list(load_images(dataset, rows))).argmax(1)
    top1 = float(np.mean([EMOTIONS[index] == row.label for index, row in zip(predicted, rows, strict=True)]))
    assert top1 == json.loads((finished_run / "metrics.json").read_text())["val"]["top1"]
    said = card.metrics["val"]
    assert (said["dataset"], said["split"], said["n"], said["top1"]) == (dataset.name, "val", len(rows), top1)
    assert np.trace(said["confusion"]) / np.sum(said["confusion"]) == pytest.approx(top1)
    assert np.sum(said["confusion"], axis=1).tolist() == [sum(row.label == label for row in rows) for label in EMOTIONS]
    for name, (low, high) in said["intervals"].items():
        assert low - 1e-9 <= said[name] <= high + 1e-9
    assert np.ptp(said["intervals"]["nll"]) > 0
    assert card.temperature == pytest.approx(
        json.loads((finished_run / "metrics.json").read_text())["calibration"]["temperature"]
    )


def test_plain_ultralytics_loads_best_pt_without_this_package(finished_run: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.modules['deepfer_yolo'] = None\n"
        "os.environ.update(YOLO_OFFLINE='1', YOLO_VERBOSE='false')\n"
        "from ultralytics import YOLO\nimport numpy as np\n"
        f"model = YOLO({str(finished_run / 'weights' / 'best.pt')!r})\n"
        "probs = model.predict(np.zeros((48, 48, 3), np.uint8), imgsz=32, verbose=False, save=False)[0].probs\n"
        "print(model.task, len(probs.data), ','.join(model.names.values()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False
    )
    assert done.stdout.split() == ["classify", "7", ",".join(EMOTIONS)], done.stderr


def test_same_seed_same_weights_and_a_stopped_run_continues_to_the_very_same(
    tiny_config: TrainConfig, finished_run: Path, tmp_path: Path
) -> None:  # fmt: skip
    asked = 0

    def stop_in_the_second_epoch() -> bool:
        nonlocal asked
        asked += 1
        return asked == 6  # four batches an epoch: the second batch of epoch 2

    stopped = train(tiny_config, name="stopped", show=quiet, should_stop=stop_in_the_second_epoch, root=tmp_path)
    assert isinstance(stopped, Stopped)
    assert not (stopped.folder / "metrics.json").exists()
    lines: list[str] = []
    result = resume(stopped.folder, show=lines.append)
    assert isinstance(result, TrainResult)
    assert "epoch 2, batch 3" in lines[0]
    assert weights_hash(result.checkpoint) == weights_hash(finished_run / "weights" / "best.pt")
    rows = [row["epoch"] for row in results(stopped.folder)]
    assert rows == ["1", "2", "3"]
    with pytest.raises(TrainingError, match="has finished"):
        resume(stopped.folder, show=quiet)


def test_training_leaves_polars_alone_which_answers_ctrl_c_with_an_exception_of_its_own(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "polars", None)  # importing it raises
    result = train(tiny_config.model_copy(update={"epochs": 1}), name="r", show=quiet, root=tmp_path)
    assert isinstance(result, TrainResult)
    saved = read_checkpoint(result.folder / "weights" / "last.pt")["train_results"]
    assert [float(row["val/loss"]) for row in results(result.folder)] == saved["val/loss"]
    assert saved["epoch"] == [1]


def test_a_run_killed_before_it_was_measured_is_measured_and_trained_no_further(
    tiny_config: TrainConfig, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("deepfer_yolo.train.run.finish", die)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_config, name="r", show=quiet, root=tmp_path)
    lines: list[str] = []
    result = resume(tmp_path / "train" / "r", show=lines.append)
    assert isinstance(result, TrainResult)
    assert "from its last epoch, to measure it" in lines[0]
    assert [row["epoch"] for row in results(result.folder)] == ["1", "2", "3"]
    for name in ("best.pt", "last.pt"):
        assert weights_hash(result.folder / "weights" / name) == weights_hash(finished_run / "weights" / name)
    before, after = (json.loads((folder / "metrics.json").read_text()) for folder in (finished_run, result.folder))
    assert {key: after[key] for key in ("val", "best_epoch", "epochs")} == {
        key: before[key] for key in ("val", "best_epoch", "epochs")
    }


@pytest.mark.parametrize(
    "message",
    ["CUDA out of memory. Tried to allocate 2 GiB", "[enforce fail] DefaultCPUAllocator: can't allocate memory"],
)
def test_out_of_memory_is_an_error_and_never_silently_a_smaller_batch(
    message: str, tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    calls = 0
    original = FaceTrainer._loss

    def fail_once(self: FaceTrainer, batch: dict[str, torch.Tensor], preds: object = None) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise torch.OutOfMemoryError(message) if "CUDA" in message else RuntimeError(message)
        return original(self, batch, preds)

    monkeypatch.setattr(FaceTrainer, "_loss", fail_once)
    with pytest.raises(TrainingError, match="out of memory with batch 35") as error:
        train(tiny_config, name="r", show=quiet, root=tmp_path)
    assert error.value.hint == "use --batch 17"
    monkeypatch.undo()
    assert isinstance(resume(tmp_path / "train" / "r", show=quiet), TrainResult)


def test_a_full_disk_is_an_error_that_keeps_the_last_checkpoint(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import deepfer_yolo.train.training_run as run_module

    written = 0
    original = run_module.write_atomic

    def fill(path: Path, content: bytes) -> None:
        nonlocal written
        written += 1
        if written == 2:
            raise OSError(28, "No space left on device", str(path))
        original(path, content)

    monkeypatch.setattr(run_module, "write_atomic", fill)
    with pytest.raises(TrainingError, match="the disk is full") as error:
        train(tiny_config, name="r", show=quiet, root=tmp_path)
    assert f"deepfer train --resume {tmp_path / 'train' / 'r'}" in str(error.value.hint)
    lines: list[str] = []
    assert isinstance(resume(tmp_path / "train" / "r", show=lines.append), TrainResult)
    assert "epoch 2, batch 1" in lines[0]


def test_resume_passes_over_a_broken_state(tiny_config: TrainConfig, tmp_path: Path) -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 10

    stopped = train(tiny_config, name="stopped", show=quiet, should_stop=stop, root=tmp_path)
    states = sorted((stopped.folder / "weights").glob("state-*.pt"))
    assert [path.name[:19] for path in states] == ["state-00002-0000000", "state-00002-0000002"]
    content = bytearray(states[-1].read_bytes())
    content[len(content) // 2] ^= 1
    states[-1].write_bytes(content)
    lines: list[str] = []
    resume(stopped.folder, show=lines.append)
    assert "epoch 3, batch 1" in lines[0]


def test_a_run_without_the_listed_images_resumes_with_the_fingerprint_of_the_rest(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 6

    rows = open_dataset(Path(str(tiny_config.data))).all_rows
    listed = [row.path for row in rows if row.split == "train"][:2]
    quarantine = tmp_path / "quarantine.csv"
    quarantine.write_text(f"picture\n{listed[0]}\n")
    stopped = train(
        tiny_config.model_copy(update={"exclude": str(quarantine)}),
        name="r",
        show=quiet,
        should_stop=stop,
        root=tmp_path,
    )
    quarantine.write_text(f"picture\n{listed[0]}\n{listed[1]}\n")
    with pytest.raises(TrainingError, match="has changed since the run began"):
        resume(stopped.folder, show=quiet)
    quarantine.write_text(f"picture\n{listed[0]}\n")
    result = resume(stopped.folder, show=quiet)
    assert isinstance(result, TrainResult)
    card = TorchClassifier(result.checkpoint).card
    assert card.trained_on is not None
    assert card.trained_on.fingerprint == fingerprint([row for row in rows if row.path != listed[0]])


def test_two_processes_cannot_share_a_run_folder(tiny_config: TrainConfig, finished_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(finished_run / "config.yaml", folder / "config.yaml")
    with lock(folder), pytest.raises(TrainingError, match="another process"):
        resume(folder, show=quiet)


def test_a_loss_that_is_not_a_number_stops_the_run_with_the_last_good_checkpoint_intact(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    calls = 0

    def poison() -> bool:
        nonlocal calls
        calls += 1
        if calls == 5:
            for parameter in network.parameters():
                parameter.data.fill_(float("nan"))
        return False

    import deepfer_yolo.train.training_run as run_module

    original = run_module.starting_model
    try:

        def keep(*words: object) -> torch.nn.Module:
            nonlocal network
            network = original(*words)  # type: ignore[arg-type]
            return network

        network = torch.nn.Identity()
        run_module.starting_model = keep  # type: ignore[assignment]
        with pytest.raises(TrainingError, match=r"not a number in epoch 2.*lr0 0.05"):
            train(tiny_config, name="nan", show=quiet, should_stop=poison, root=tmp_path)
    finally:
        run_module.starting_model = original
    last = load_checkpoint(tmp_path / "train" / "nan" / "weights" / "last.pt")
    assert all(bool(value.isfinite().all()) for value in last.state_dict().values())


def test_no_val_split_is_refused_before_anything_is_written(
    tiny_config: TrainConfig, painted_dataset: Path, tmp_path: Path
) -> None:
    data = without_split(painted_dataset, tmp_path / "data", "val")
    with pytest.raises(TrainingError, match="no val split"):
        train(tiny_config.model_copy(update={"data": str(data)}), root=tmp_path)
    assert not (tmp_path / "train").exists()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": "yolo11n-clss"}, ConfigError, "did you mean 'yolo11n-cls'"),
        ({"model": "yolo99x"}, ConfigError, "unknown model 'yolo99x'"),
        ({"model": "absent.pt"}, ModelError, "no such checkpoint"),
        ({"model": "absent.yaml"}, ModelError, "no such model file"),
        ({"pretrained": "absent.pt"}, ModelError, "no such checkpoint"),
        ({"device": "7"}, MissingDependencyError, "--device 7"),
        ({"device": "gpu"}, ConfigError, "unknown device 'gpu'"),
        ({"data": "absent"}, DatasetError, "no such data set"),
        ({"data": None}, ConfigError, "no data set"),
    ],
)
def test_bad_input_is_a_clear_error_and_writes_nothing(
    change: dict[str, str | None], error: type[Exception], words: str, tiny_config: TrainConfig, tmp_path: Path
) -> None:  # fmt: skip
    with pytest.raises(error, match=words):
        train(tiny_config.model_copy(update=change), root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_relative_paths_of_models_hold_wherever_the_run_goes_on(
    tiny_config: TrainConfig, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    (tmp_path / "here").mkdir()
    shutil.copytree(finished_run / "weights", tmp_path / "here" / "w")
    shutil.copy(finished_run / "weights" / "best.pt", tmp_path / "here" / "soup.pt")
    monkeypatch.chdir(tmp_path / "here")
    config = tiny_config.model_copy(
        update={
            "model": "w/best.pt",
            "soup": ("soup.pt",),
            "teacher": ("w/best.pt",),
            "epochs": 1,
            "allow_leak": True,
        }
    )
    stopped = train(config, name="r", show=quiet, should_stop=lambda: True, root=Path("runs"))
    assert isinstance(stopped, Stopped)
    monkeypatch.chdir(tmp_path)
    assert recipe_of(stopped.folder).soup == (str(tmp_path / "here" / "soup.pt"),)
    (tmp_path / "here" / "soup.pt").unlink()  # its part is in the state
    assert isinstance(resume(stopped.folder, show=quiet), TrainResult)
    assert absolute(config.model_copy(update={"model": "deepfer-n", "teacher": ("deepfer-n",)})).model == "deepfer-n"


def test_images_stay_in_their_files_where_the_recipe_asks_for_it(
    tiny_config: TrainConfig, finished_run: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    result = train(tiny_config.model_copy(update={"cache": "files"}), name="r", show=lines.append, root=tmp_path)
    assert isinstance(result, TrainResult)
    assert any("decoded from their files" in line for line in lines)
    assert weights_hash(result.checkpoint) == weights_hash(finished_run / "weights" / "best.pt")


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is not a run"):
        resume(tmp_path, show=quiet)


def test_a_run_leaves_curves_and_a_sheet_of_augmented_faces(finished_run: Path) -> None:
    with Image.open(finished_run / "augmented.png") as image:
        sheet = np.asarray(image)
    assert sheet.shape == (6 * 32 * 2, 10 * 32 * 2, 3)
    assert sheet.std() > 20
    with Image.open(finished_run / "curves.png") as image:
        assert image.size[0] > 300
