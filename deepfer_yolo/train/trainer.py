"""Ultralytics' training loop with a loader, a loss, a validation and checkpoints made for faces."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from pathlib import Path
from typing import Any

import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.errors import ConfigError, TrainingError
from deepfer_yolo.files import atomic_path, write_atomic
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.runtime.model_file import DEFAULT
from deepfer_yolo.train.loader import TrainLoader, ValLoader
from deepfer_yolo.train.losses import distillation, make_loss, softened
from deepfer_yolo.train.measure import FaceValidator, read_results, trim_results
from deepfer_yolo.train.schedule import (
    Plateau,
    decay_by_layer,
    ema_decay,
    freeze_first,
    frozen_at,
    is_judged,
    linear_share,
    warm_up_steps,
)
from deepfer_yolo.train.training_run import RunState, TrainingRun, corrections_of
from deepfer_yolo.yolo import (
    LOCAL_RANK,
    RANK,
    TRAINED_HASHES,
    WORLD_SIZE,
    ClassificationModel,
    ClassificationTrainer,
    ranks_on_cpu,
    strip_optimizer,
    trainer_callbacks,
)

SAME_ARGUMENTS = {
    "data", "epochs", "time", "imgsz", "batch", "device", "seed", "lr0", "lrf", "momentum", "weight_decay",
    "dropout", "patience",
}  # fmt: skip
"""Keys of the recipe that Ultralytics has by the same name."""


class Interrupted(Exception):  # noqa: N818  (not an error: the run goes on later)
    """A signal asked the run to stop, and its state has been saved."""


class FaceTrainer(ClassificationTrainer):  # type: ignore[misc]
    """`ClassificationTrainer` on decoded faces. Its EMA, schedule, optimiser and callbacks are Ultralytics' own."""

    epoch: int
    device: torch.device

    def __init__(self, run: TrainingRun, folder: Path, should_stop: Callable[[], bool] = lambda: False) -> None:
        self.run = run
        self.should_stop = should_stop
        self.stopping = False
        counts = torch.bincount(run.train.labels, minlength=len(run.dataset.labels)).clamp_min(1)
        if run.config.votes and run.train.soft is not None:
            counts = run.train.soft.sum(0).clamp_min(1)
        self.soft_loss = make_loss(run.config, counts)
        self.plateau = Plateau(run.config.plateau_epochs, run.config.plateau_factor, run.config.lrf)
        self.spent_s = 0.0
        """Seconds of training before the run was last interrupted."""
        super().__init__(
            overrides=stock_arguments(run.config, folder, resume=run.state is not None),
            _callbacks=trainer_callbacks(run.config.logger),
        )
        if WORLD_SIZE > 1:  # of all machines: Ultralytics counts the devices of this one, and none on CPUs
            self.world_size = WORLD_SIZE
        # Ultralytics asks for deterministic algorithms, and torch then also fills all memory that it takes: a pass over
        # each tensor, on a GPU a launch, and nothing gained, since memory is written before it is read.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self.add_callback("on_pretrain_routine_end", FaceTrainer._prepare)
        self.add_callback("on_train_start", FaceTrainer._begin_run)
        self.add_callback("on_train_epoch_start", FaceTrainer._begin_epoch)
        self.add_callback("on_train_batch_start", FaceTrainer._begin_batch)
        self.add_callback("on_train_batch_end", FaceTrainer._end_batch)
        self.add_callback("on_fit_epoch_end", FaceTrainer._end_epoch)

    @property
    def n_ranks(self) -> int:
        """How many processes train together."""
        return max(int(self.world_size), 1)

    @property
    def network(self) -> ClassificationModel:
        """The network itself, also where DDP is around it."""
        return getattr(self.model, "module", self.model)

    def _agree(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag as soon as one process has it, so that all leave the loop at the same place."""
        if self.n_ranks == 1:
            return flags
        shared = torch.tensor([int(flag) for flag in flags], device=self.device)
        torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
        return tuple(bool(flag) for flag in shared.tolist())

    def check_resume(self, overrides: dict[str, object]) -> None:
        """Our own state decides where a run goes on, not the rounded last.pt."""
        self.resume = self.run.state is not None

    def get_dataset(self) -> dict[str, object]:
        """The class names; the images are in the run already."""
        names = dict(enumerate(self.run.dataset.labels))
        return {"train": "train", "val": "val", "test": None, "nc": len(names), "names": names, "channels": 3}

    def setup_model(self) -> RunState | None:
        """Take the run's network, in the memory layout that CPUs and tensor cores like best, and its state."""
        self.model = self.run.model.train().to(memory_format=torch.channels_last)
        for module in self.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = self.run.config.dropout
        for parameter in self.model.parameters():
            parameter.requires_grad_(True)
        if self.run.config.freeze >= (layers := len(self.model.model)):
            raise ConfigError(f"freeze: the network has {layers} layers, and the last one has to learn", "freeze fewer")
        # The loop looks for it; the EMA then uses Ultralytics' plain cross-entropy for the val loss.
        self.model.criterion = None
        return self.run.state

    def get_dataloader(
        self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train"
    ) -> TrainLoader | ValLoader:
        """Our loaders instead of the stock ones; `dataset_path` is unused."""
        run, rank = self.run, max(RANK, 0)
        if mode == "val":
            return ValLoader(run.val, batch_size, self.device, rank=rank, world=self.n_ranks)
        recipe = run.config.model_copy(update={"batch": batch_size})
        return TrainLoader(run.train, recipe, len(run.dataset.labels), self.device, rank=rank, world=self.n_ranks)

    def preprocess_batch(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Leave the batch as the loader made it: float32, on the device."""
        return batch

    def get_validator(self) -> FaceValidator:
        """Our ordered validation."""
        return FaceValidator(self.test_loader, self.save_dir, copy(self.args), self.callbacks, self.run.config.fitness)

    def build_optimizer(self, model: torch.nn.Module, *words: Any, **options: Any) -> torch.optim.Optimizer:
        """Ultralytics' optimiser, its groups split by layer where the recipe asks for it."""
        optimizer: torch.optim.Optimizer = super().build_optimizer(model, *words, **options)
        if self.run.config.optimizer == "adamw":
            for group in optimizer.param_groups:  # one pass over the weights: 2 ms a step on the CPU where many took 6
                group["fused"] = True
        if self.run.config.lr_decay < 1:
            decay_by_layer(optimizer, self.network, self.run.config.lr_decay)
        return optimizer

    def _setup_scheduler(self) -> None:
        super()._setup_scheduler()
        if self.run.config.schedule == "plateau":
            self.lf = lambda _: self.plateau.share  # the warm-up of the loop asks it as well
            self.scheduler.lr_lambdas = [self.lf] * len(self.scheduler.lr_lambdas)

    def _prepare(self) -> None:
        # Here, after the EMA copied the network: nothing of ours may reach the copy, which becomes best.pt.
        torch.set_num_threads(self.run.config.threads)  # Ultralytics leaves one thread of two cores
        self.args.imgsz = self.run.config.imgsz  # a checkpoint must not say Ultralytics' multiple of 32
        self.network.loss = self._loss
        for teacher in self.run.teachers:
            teacher.to(self.device, memory_format=torch.channels_last).eval()
        is_over = self.run.state is not None and self.run.state.done
        if self.run.teachers and self.run.config.teacher_view == "still" and not is_over:
            self.train_loader.taught = torch.cat([self._taught(images) for images in self.train_loader.still()])
        keep_layout(self.network)
        steps, epochs = len(self.train_loader), self.run.config.ema_epochs
        self.ema.decay = lambda done: ema_decay(steps, epochs, done)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.run.bf16)

    def _loss(self, batch: dict[str, torch.Tensor], preds: Any = None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        with self._autocast():
            logits = self.network.predict(batch["img"]) if preds is None else preds
        loss = self.soft_loss(logits.float(), batch["target"])
        if self.run.teachers:
            config = self.run.config
            wanted = batch["taught"] if "taught" in batch else self._taught(batch.get("clean", batch["img"]))
            apart = distillation(logits.float(), wanted, config.teacher_temperature)
            loss = (1 - config.teacher_share) * loss + config.teacher_share * apart
        # DDP takes the mean, and Ultralytics multiplies by the number of processes.
        return loss / self.n_ranks, {"loss": loss.detach()}

    @torch.no_grad()
    def _taught(self, images: torch.Tensor) -> torch.Tensor:
        """What the teachers say of `images`, softened probabilities (b, C)."""
        with self._autocast():
            answers = [teacher(images)[1] for teacher in self.run.teachers]
        return softened(answers, self.run.config.teacher_temperature)

    def _begin_run(self) -> None:
        # What was spent before an interruption counts against the budget, and stands in the time column of results.csv.
        self.train_time_start -= self.spent_s

    def _begin_epoch(self) -> None:
        self.start_epoch = 0  # by now the loop needs it only to divide the whole time by all epochs
        self._oom_retries = 3  # else Ultralytics would silently halve the batch when memory runs out
        self.train_loader.epochs = self.epochs
        frozen = frozen_at(self.run.config, self.epoch, self.epochs)
        self.freeze_layer_names = [f"model.{layer}." for layer in range(frozen)]  # their statistics rest as well
        freeze_first(self.network, frozen)
        # Everything random of an epoch follows from its number, so a resumed run draws what an unbroken one does.
        torch.manual_seed(self.run.config.seed * 100_003 + self.epoch)
        if self.train_loader.skip and self.run.state is not None:
            torch.set_rng_state(self.run.state.torch_rng)
        self.train_loader.sampler.set_epoch(self.epoch)
        self.batches_done = self.train_loader.skip

    def _begin_batch(self) -> None:
        # Every step's rate follows from its number: Ultralytics' own warm-up counts from 0 where an epoch is resumed.
        config, per_epoch = self.run.config, len(self.train_loader)
        step, warm_up = self.epoch * per_epoch + self.batches_done, warm_up_steps(config, per_epoch, self.epochs)
        share = float(self.lf(self.epoch))  # type: ignore[no-untyped-call]
        if config.schedule == "linear":
            share = linear_share(step, warm_up, per_epoch * self.epochs, config.lrf)
        share *= min(1.0, step / warm_up) if warm_up else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share

    def _end_batch(self) -> None:
        self.batches_done += 1
        diverged, stop = self._agree(not bool(self.loss.isfinite()), self.should_stop())
        if diverged:
            raise self._diverged()
        if stop:
            if self.batches_done < len(self.train_loader):
                if RANK < 1:
                    self._save_state(self.epoch, self.batches_done)
                raise Interrupted
            self.stopping = True

    def _end_epoch(self) -> None:
        # Only the first process knows whether the run is done.
        if self.stopping and not self._agree(bool(self.stop))[0]:
            raise Interrupted

    def _diverged(self) -> TrainingError:
        lr0 = self.run.config.lr0
        return TrainingError(
            f"the loss is not a number in epoch {self.epoch + 1} (lr0 {lr0:g}); the last good checkpoint is kept",
            f"use a smaller --lr0, such as {lr0 / 3:.2g}",
        )

    def validate(self) -> tuple[dict[str, float] | None, float | None]:
        """Validate as Ultralytics does where the recipe wants this epoch judged, and let the plateau schedule know."""
        if not is_judged(self.run.config, self.epoch, self.epochs):
            return dict.fromkeys(self.metrics or (), math.nan), None  # only the first process has metrics
        metrics, fitness = super().validate()
        judged = [fitness]
        if self.n_ranks > 1:  # only the first process has it, and all must fall alike
            torch.distributed.broadcast_object_list(judged, 0)
        if judged[0] is not None:
            self.plateau.update(float(judged[0]))
        return metrics, fitness

    def read_results_csv(self) -> dict[str, list[float]]:
        """results.csv by column.

        Ultralytics reads it with polars, which answers a Ctrl-C with a KeyboardInterrupt of its own.
        """
        return read_results(self.csv)

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """An error: Ultralytics would repeat the epoch up to three times, and the same seed diverge the same way."""
        if self.fitness is not None and not math.isfinite(self.fitness):
            raise self._diverged()
        return False

    def save_model(self) -> bool:
        """Write last.pt and best.pt as Ultralytics does, but each beside its name and renamed, then the exact state."""
        try:
            with atomic_path(self.wdir / "last.pt") as part:
                self.last = self.best = part
                super().save_model()
                content = part.read_bytes()
        finally:
            self.last, self.best = self.wdir / "last.pt", self.wdir / "best.pt"
        if self.fitness is not None and self.best_fitness == self.fitness:
            write_atomic(self.best, content)
        self._save_state(self.epoch + 1, 0)
        return True

    def _save_state(self, epoch: int, batch: int) -> None:
        RunState(
            epoch=epoch,
            batch=batch,
            fingerprint=self.run.dataset.fingerprint,
            leaks=self.run.leaks,
            trained_hashes=getattr(self.ema.ema, TRAINED_HASHES, None),
            model=self.network.state_dict(),
            ema=self.ema.ema.state_dict(),
            updates=self.ema.updates,
            optimizer=self.optimizer.state_dict(),
            best_fitness=self.best_fitness,
            stopper={"best_fitness": self.stopper.best_fitness, "best_epoch": self.stopper.best_epoch},
            torch_rng=torch.get_rng_state(),
            plateau=self.plateau.__dict__,
            spent_s=time.time() - self.train_time_start,
            epochs=self.epochs,
            done=bool(self.stop),
            corrections=corrections_of(self.run.config, self.run.dataset),
        ).save(self.wdir)

    def resume_training(self, ckpt: RunState | None) -> None:
        """Go on from our own state, in full precision, at the batch where it was saved."""
        if ckpt is None:
            return
        self.network.load_state_dict(ckpt.model)
        self.ema.ema.load_state_dict(ckpt.ema)
        self.ema.updates = ckpt.updates
        self.optimizer.load_state_dict(ckpt.optimizer)
        self.best_fitness = ckpt.best_fitness
        self.stopper.__dict__.update(ckpt.stopper)
        self.plateau.__dict__.update(ckpt.plateau)
        self.spent_s = ckpt.spent_s
        if self.run.config.time is not None:
            self.epochs = self.args.epochs = ckpt.epochs
            self._setup_scheduler()
        self.start_epoch = ckpt.epoch
        self.train_loader.skip = ckpt.batch
        if RANK < 1:
            trim_results(self.csv, self.start_epoch)

    def _setup_ddp(self) -> None:
        if not torch.distributed.is_initialized():
            super()._setup_ddp()
        elif self.device.type == "cuda":  # several nodes have met already
            self.device = torch.device("cuda", int(self.args.device.split(":")[-1].split(",")[LOCAL_RANK]))
            torch.cuda.set_device(self.device)

    def _do_train(self) -> None:
        with ranks_on_cpu() if self.n_ranks > 1 and self.device.type == "cpu" else nullcontext():
            if self.run.state is not None and self.run.state.done:
                # Killed between its last checkpoint and its measurement: one more epoch would make another model.
                if self.n_ranks > 1:
                    self._setup_ddp()
                self._setup_train()
                self.epoch = self.start_epoch - 1
                self.final_eval()
            else:
                super()._do_train()

    def final_eval(self) -> None:
        """Strip both checkpoints to what is shipped, without this machine's paths; `finish` measures best.pt."""
        args = {**vars(self.args), "data": Path(self.args.data).name, "save_dir": self.save_dir.name}
        for path in (self.last, self.best):
            if RANK < 1 and path.exists():
                with atomic_path(path) as part:
                    strip_optimizer(path, s=str(part), updates={"git": None, "train_args": args})


def keep_layout(model: ClassificationModel) -> None:
    """Give the last convolution its gradient in its own memory layout: the one that pooling returns makes batch
    normalisation of 1,280 channels fifteen times slower on a CPU.
    """

    def hook(module: torch.nn.Module, inputs: object, features: torch.Tensor) -> None:
        if features.requires_grad:
            features.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: gradient.contiguous(memory_format=torch.channels_last)
            )

    model.model[-1].conv.register_forward_hook(hook)


def stock_arguments(config: TrainConfig, folder: Path, *, resume: bool) -> dict[str, object]:
    """The recipe in Ultralytics' own words; what it cannot say (mixup, smoothing, …) stays in config.yaml."""
    return {
        **config.model_dump(include=SAME_ARGUMENTS),
        "model": f"{Path(config.model or DEFAULT).stem}.yaml",
        "save_dir": str(folder),
        "exist_ok": True,
        "resume": resume,
        "nbs": config.batch,
        "workers": 0,
        "optimizer": {"sgd": "SGD", "adamw": "AdamW"}[config.optimizer],
        "cos_lr": True,
        "warmup_epochs": 0,
        "close_mosaic": 0,
        "amp": False,
        "plots": False,
        "verbose": False,
        "pretrained": False,
    }
