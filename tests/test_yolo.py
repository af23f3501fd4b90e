"""Each fact of Ultralytics that this program relies on, so that an upgrade that changes one fails here and not in a
run.
"""

from __future__ import annotations

import ast
import inspect
import os
import pickle
import re
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
from deepfer_yolo.train.measure import FaceMetrics, FaceValidator
from deepfer_yolo.train.trainer import FaceTrainer


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
    ours = FaceMetrics("top1")
    ours.top1, ours.top5, ours.macro_f1 = 0.5, 1.0, 0.3
    assert ours.fitness == 0.5
    ours.chosen = "macro_f1"
    assert ours.fitness == 0.3


OVERRIDDEN = {
    FaceTrainer: {
        "_do_train", "_handle_nan_recovery", "_setup_ddp", "_setup_scheduler", "build_optimizer", "check_resume",
        "final_eval",
        "get_dataloader", "get_dataset", "get_validator", "preprocess_batch", "read_results_csv", "resume_training",
        "save_model", "setup_model", "validate",
    },
    FaceValidator: {"finalize_metrics", "preprocess", "print_results"},
    FaceMetrics: {"fitness", "keys", "process", "results_dict"},
}  # fmt: skip


@pytest.mark.parametrize("ours", OVERRIDDEN, ids=lambda kind: str(kind.__name__))
def test_what_we_override_is_named_here_and_is_still_there_with_the_same_parameters(ours: type) -> None:
    stock = ours.__mro__[1]
    mine = {name for name in vars(ours) if name in dir(stock) and not name.startswith("__")}
    assert mine == OVERRIDDEN[ours]
    for name in mine - {"build_optimizer"}:  # passes on whatever it is given
        methods = [inspect.getattr_static(kind, name) for kind in (stock, ours)]
        if isinstance(methods[0], property):
            assert isinstance(methods[1], property)
        else:
            assert len({tuple(inspect.signature(method).parameters) for method in methods}) == 1, name


PRIVATE = {
    "_do_train": "            else:\n                self._do_train()\n",  # not for a run that is over
    "_setup_ddp": "        if self.world_size > 1:\n            self._setup_ddp()\n        self._setup_train()",
    "_setup_train": "        self._setup_train()\n\n        nb = len(self.train_loader)",
    "_setup_scheduler": "self._setup_scheduler()\n                self.scheduler.last_epoch = self.epoch",
    "_handle_nan_recovery": "            if self._handle_nan_recovery(epoch):\n",
    "_oom_retries": "self.start_epoch or self._oom_retries >= 3 or RANK != -1:\n                        raise",
    "_mlflow_active": "        trainer._mlflow_active = True\n",
}
"""Private names that we lean on, and the place of Ultralytics where each does what we expect."""


def test_every_private_name_that_we_lean_on_is_named_here_and_still_does_what_we_expect() -> None:
    from ultralytics.engine.trainer import BaseTrainer
    from ultralytics.utils.callbacks import mlflow

    source = inspect.getsource(BaseTrainer) + inspect.getsource(mlflow)
    for name, place in PRIVATE.items():
        assert place in source, name
    own, used = set(), set()
    for path in [*(Path(yolo.__file__).parent / "train").glob("*.py"), Path(yolo.__file__)]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)} - PRIVATE.keys()
        attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        own |= {node.attr for node in attributes if isinstance(node.ctx, ast.Store)} - PRIVATE.keys()
        used |= {node.attr for node in attributes if re.match("_[^_]", node.attr)}
    used |= {name for name in OVERRIDDEN[FaceTrainer] if name.startswith("_")}
    others = {"_is_avx512_bf16_supported", "_is_amx_tile_supported", "_trial_id", "_storage"}  # torch's and Optuna's
    assert used - own - others == PRIVATE.keys()
    assert callable(torch.cpu._is_avx512_bf16_supported)
    assert callable(torch.cpu._is_amx_tile_supported)


SET_BY_THE_LOOP = {
    "args", "batch_size", "best", "best_fitness", "callbacks", "csv", "device", "ema", "epoch", "epochs", "fitness",
    "freeze_layer_names",
    "last", "lf", "loss", "metrics", "model", "optimizer", "save_dir", "scheduler", "start_epoch", "stop", "stopper",
    "test_loader", "tloss", "train_loader", "train_time_start", "wdir", "world_size",
}  # fmt: skip


def test_what_we_read_of_the_trainer_is_still_set_by_it() -> None:
    from ultralytics.engine.trainer import BaseTrainer

    stock = inspect.getsource(BaseTrainer)
    assert {name for name in SET_BY_THE_LOOP if not re.search(rf"self\.{name}\b[^=\n]* = ", stock)} == set()
    ours = set(re.findall(r"self\.(\w+)", inspect.getsource(FaceTrainer)))
    known = SET_BY_THE_LOOP | PRIVATE.keys() | set(vars(FaceTrainer))
    own = {"batches_done", "plateau", "resume", "run", "should_stop", "soft_loss", "spent_s", "stopping"}
    assert ours - known - own == {"add_callback"}


def test_the_loop_still_does_what_our_hooks_expect() -> None:
    from ultralytics.engine.trainer import BaseTrainer
    from ultralytics.utils.torch_utils import EarlyStopping, ModelEMA

    source = inspect.getsource(BaseTrainer)
    for event in ("pretrain_routine_end", "train_start", "train_epoch_start", "train_batch_end", "train_epoch_end",
                  "fit_epoch_end"):  # fmt: skip
        assert f'run_callbacks("on_{event}")' in source
    assert "self.model(batch)" in source  # our loss is an attribute of the network, reached through forward(dict)
    assert "self.ema = ModelEMA(self.model)" in source
    assert source.index("self.ema = ModelEMA") < source.index('self.run_callbacks("on_pretrain_routine_end")')
    assert 'x["initial_lr"] * self.lf(epoch)' in source  # the warm-up asks for the plateau's share too
    assert "mean_epoch_time = (t - self.train_time_start) / (epoch - self.start_epoch + 1)" in source
    # save_model writes both checkpoints to the names that we lend it.
    assert "self.last.write_bytes(serialized_ckpt)" in source
    assert "if self.best_fitness == self.fitness:\n            self.best.write_bytes(serialized_ckpt)" in source
    assert "self.loss *= self.world_size" in source  # which _loss divides by
    average = ModelEMA(torch.nn.Linear(1, 1))
    average.decay = lambda updates: 0.25 * updates
    average.ema.weight.data.fill_(1.0)
    other = torch.nn.Linear(1, 1)
    other.weight.data.fill_(0.0)
    average.update(other)
    assert (average.updates, float(average.ema.weight)) == (1, 0.25)
    assert {"best_fitness", "best_epoch"} <= vars(EarlyStopping()).keys()


def test_the_functions_that_we_call_still_take_what_we_give_them() -> None:
    from ultralytics.utils.callbacks import tensorboard

    assert {"f", "s", "updates"} <= inspect.signature(yolo.strip_optimizer).parameters.keys()
    assert "safe_only" in inspect.signature(yolo.torch_safe_load).parameters
    assert "_callbacks" in inspect.signature(yolo.ClassificationTrainer.__init__).parameters
    assert list(inspect.signature(yolo.ClassificationValidator.__init__).parameters)[1:] == [
        "dataloader", "save_dir", "args", "_callbacks",
    ]  # fmt: skip
    assert "WRITER = SummaryWriter(str(trainer.save_dir))" in inspect.getsource(tensorboard)
    assert "self.metrics.process(self.targets, self.pred)" in inspect.getsource(yolo.ClassificationValidator.get_stats)


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
config = TrainConfig(data=sys.argv[1], model=sys.argv[2], epochs=1, imgsz=32, batch=70, threads=1)
train(config, root=Path(sys.argv[3]), show=lambda _: None)
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
