"""Each fact of Ultralytics that this program relies on, so that an upgrade that changes one fails here and not in a
run.
"""

from __future__ import annotations

import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from deepfer_yolo import yolo
from deepfer_yolo.errors import ConfigError, ModelError
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.runtime.preprocess import to_input


def test_bare_names_are_the_packaged_architectures() -> None:
    known = yolo.packaged_models()
    assert {"yolo11n-cls", "yolo26n-cls", "yolov8n-cls", "yolo11x-cls"} <= set(known)
    assert all(path.is_file() for path, _ in known.values())
    assert sum(p.numel() for p in yolo.build_model("yolo26n-cls", 7).parameters()) == 1_540_071


def test_pillow_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(UnidentifiedImageError):
        Image.open(tmp_path / "text.jpg")


def test_the_head_gives_logits_in_training_and_probabilities_with_logits_in_evaluation() -> None:
    model = yolo.build_model("yolo26n-cls", 7)
    images = torch.rand(2, 3, 32, 32)
    assert model.train()(images).shape == (2, 7)
    probs, logits = model.eval()(images)
    assert torch.allclose(probs, logits.softmax(1), atol=1e-6)


def test_the_classification_loss_is_plain_cross_entropy_by_name() -> None:
    model = yolo.build_model("yolov8n-cls", 3).train()
    batch = {"img": torch.rand(4, 3, 32, 32), "cls": torch.tensor([0, 1, 2, 1])}
    loss, items = model(batch)
    assert list(items) == ["loss"]
    assert loss.ndim == 0


def test_stock_fitness_mixes_in_top5_and_ours_does_not() -> None:
    stock = yolo.ClassifyMetrics()
    stock.top1, stock.top5 = 0.5, 1.0
    assert stock.fitness == 0.75
    from deepfer_yolo.train.measure import FaceMetrics

    ours = FaceMetrics("top1")
    ours.top1, ours.top5, ours.macro_f1 = 0.5, 1.0, 0.3
    assert ours.fitness == 0.5
    ours.chosen = "macro_f1"
    assert ours.fitness == 0.3


@pytest.mark.parametrize(
    "hook",
    ["check_resume", "get_dataset", "setup_model", "get_dataloader", "preprocess_batch", "get_validator", "save_model", "final_eval",
     "resume_training", "_handle_nan_recovery"],
)  # fmt: skip
def test_the_trainer_still_has_the_hooks_that_we_override(hook: str) -> None:
    from deepfer_yolo.train.trainer import FaceTrainer

    stock = getattr(yolo.ClassificationTrainer, hook)
    assert list(inspect.signature(stock).parameters) == list(inspect.signature(getattr(FaceTrainer, hook)).parameters)


def test_the_loop_still_calls_what_we_listen_to() -> None:
    from ultralytics.engine import trainer

    source = inspect.getsource(trainer.BaseTrainer)
    for event in (
        "on_pretrain_routine_end",
        "on_train_start",
        "on_train_epoch_start",
        "on_train_batch_end",
        "on_train_epoch_end",
        "on_fit_epoch_end",
    ):
        assert f'run_callbacks("{event}")' in source
    assert "self.model(batch)" in source  # our loss is an attribute of the network, reached through forward(dict)
    assert "self.ema = ModelEMA(self.model)" in source


def test_classes_are_the_folders_in_alphabetical_order(painted_dataset: Path) -> None:
    from ultralytics.data.utils import check_cls_dataset

    from deepfer_yolo.data.dataset import open_dataset

    names = check_cls_dataset(str(painted_dataset))["names"]
    assert tuple(names[index] for index in range(len(names))) == open_dataset(painted_dataset).labels


@pytest.mark.parametrize(("height", "width"), [(48, 48), (100, 70), (33, 90)])
def test_our_resize_is_bit_exact_with_the_stock_transform(height: int, width: int) -> None:
    from PIL import Image
    from ultralytics.data.augment import classify_transforms

    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stock = classify_transforms(64)(Image.fromarray(image))
    assert np.array_equal((stock * 255).round().byte().permute(1, 2, 0).numpy(), to_input(image, InputSpec(size=64)))


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": _Payload()}, tmp_path / "evil.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(_Payload()))
    (tmp_path / "text.pt").write_text("not a checkpoint")
    for name in ("evil.pt", "raw.pt", "text.pt"):
        with pytest.raises(ModelError):
            yolo.load_checkpoint(tmp_path / name)
    assert not (tmp_path / "pwned").exists()


def test_an_unknown_name_is_an_error_and_never_a_download() -> None:
    with pytest.raises(ConfigError, match="did you mean 'yolo26n-cls'"):
        yolo.build_model("yolo26n-clas", 7)


NO_NETWORK = """
import socket, sys
def refuse(*words, **named):
    print('NETWORK', words, flush=True)
    raise OSError('no network in this test')
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.train.run import train
from pathlib import Path
train(TrainConfig(data=sys.argv[1], model=sys.argv[2], epochs=1, imgsz=32, batch=70, threads=1), root=Path(sys.argv[3]), show=lambda _: None)
print('DONE', flush=True)
"""


def test_a_whole_training_never_touches_the_network(painted_dataset: Path, tmp_path: Path) -> None:
    spec = tmp_path / "tiny-cls.yaml"
    spec.write_text("nc: 7\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2]]\nhead:\n  - [-1, 1, Classify, [nc]]\n")
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, str(painted_dataset), str(spec), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.stdout.split() == ["DONE"], done.stdout + done.stderr


@pytest.mark.parametrize("module", ["deepfer_yolo.yolo", "deepfer_yolo.train.run", "deepfer_yolo.train.loader"])
def test_waiting_threads_are_told_to_sleep_before_torch_loads(module: str) -> None:
    code = (
        "import builtins, os, sys; load = builtins.__import__; seen = []\n"
        "def watch(name, *words, **named):\n"
        "    if name.split('.')[0] == 'torch' and not seen: seen.append(os.environ.get('OMP_WAIT_POLICY'))\n"
        "    return load(name, *words, **named)\n"
        f"builtins.__import__ = watch; import {module}; print(seen)"
    )
    clean = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean)
    assert done.stdout.strip() == "['PASSIVE']"
