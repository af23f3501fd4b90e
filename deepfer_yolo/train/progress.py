"""What a person sees of a run: a line an epoch, which log.txt holds as well, the first augmented images, and curves."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.files import atomic_path
from deepfer_yolo.report.plots import learning, save_png
from deepfer_yolo.train.augment import Draws
from deepfer_yolo.train.loader import TrainLoader
from deepfer_yolo.train.measure import MACRO_F1, TOP1, read_results
from deepfer_yolo.train.schedule import side_at
from deepfer_yolo.yolo import RANK

HEADER = f"{'epoch':>9} {'loss':>7} {'val loss':>8} {'top-1':>6} {'macro-F1':>8} {'img/s':>6} {'time left':>9}"
AUGMENTED, CURVES = "augmented.png", "curves.png"
ROWS, COLUMNS = 6, 10


@dataclass(frozen=True, slots=True)
class Callbacks:
    """How a run and whoever began it hear of each other."""

    show: Callable[[str], None] = print
    """Called with every line for a person."""
    should_stop: Callable[[], bool] = lambda: False
    """Asked after every batch; a run that is to stop saves first."""
    on_epoch: Callable[[int, float], None] | None = None
    """Called with the number of each epoch, from 1, and its fitness; what it raises ends the run."""


class Log:
    """Appends lines to `log.txt` and shows them through `show`; of several processes only the first one does."""

    def __init__(self, path: Path, show: Callable[[str], None]) -> None:
        self.path, self.show = path, show

    def __call__(self, line: str) -> None:
        """Show and append one line."""
        if RANK > 0:
            return
        self.show(line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")


class Progress:
    """One line an epoch, and between them, on a terminal, a line that moves with the batches."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.live = sys.stderr.isatty()
        self.epoch_s: list[float] = []
        self.images_per_s: list[float] = []
        self._began = self._shown = 0.0
        self._first = 0

    def attach(self, trainer: Any) -> None:
        """Listen to Ultralytics' callbacks."""
        trainer.add_callback("on_train_start", self._start)
        trainer.add_callback("on_train_epoch_start", self._begin)
        trainer.add_callback("on_train_batch_end", self._batch)
        trainer.add_callback("on_train_epoch_end", self._trained)
        trainer.add_callback("on_fit_epoch_end", self._end)

    def _start(self, trainer: Any) -> None:
        self.log(HEADER)
        save_augmented(trainer.train_loader, trainer.save_dir)

    def _begin(self, trainer: Any) -> None:
        self._began = time.perf_counter()
        self._first = trainer.batches_done

    def _batch(self, trainer: Any) -> None:
        now = time.perf_counter()
        if self.live and now - self._shown > 0.2:
            self._shown = now
            done, total = trainer.batches_done, len(trainer.train_loader)
            speed = (done - self._first) * trainer.batch_size / (now - self._began)
            sys.stderr.write(
                f"\r{_place(trainer)} {_loss(trainer):7.3f}  batch {done}/{total}  {speed:.0f} img/s\033[K"
            )
            sys.stderr.flush()

    def _trained(self, trainer: Any) -> None:
        share = (trainer.batches_done - self._first) / len(trainer.train_loader)
        self.images_per_s.append(share * len(trainer.run.train) / (time.perf_counter() - self._began))

    def _end(self, trainer: Any) -> None:
        self.epoch_s.append(time.perf_counter() - self._began)
        recent = sorted(self.epoch_s[-5:])
        left_s = recent[len(recent) // 2] * (trainer.epochs - trainer.epoch - 1)
        if trainer.args.time:
            left_s = trainer.args.time * 3600 - (time.time() - trainer.train_time_start)
        left_s = 0 if trainer.stop else max(0, left_s)
        metrics = trainer.metrics
        if self.live:
            sys.stderr.write("\r\033[K")
        mark, judged = "", f"{'-':>8} {'-':>6} {'-':>8}"
        if trainer.fitness is not None:
            mark = " *" if trainer.fitness == trainer.best_fitness else ""
            judged = f"{metrics['val/loss']:8.4f} {metrics[TOP1]:6.1%} {metrics[MACRO_F1]:8.1%}"
        line = f"{_place(trainer)} {_loss(trainer):7.4f} {judged} {self.images_per_s[-1]:6.0f} {clock(left_s):>9}{mark}"
        self.log(line)


def _place(trainer: Any) -> str:
    return f"{trainer.epoch + 1:>5}/{trainer.epochs:<3}"


def _loss(trainer: Any) -> float:
    return float(trainer.tloss["loss"])


def clock(seconds: float) -> str:
    """A duration such as ``1:02:03`` or ``02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


def save_augmented(loader: TrainLoader, folder: Path) -> Path:
    """A sheet of training images of the first epoch as the network will see them, enlarged twice; return its path."""
    from PIL import Image

    n = len(loader.dataset)
    index = torch.linspace(0, n - 1, min(ROWS * COLUMNS, n)).long()
    side = side_at(loader.config, 0, loader.epochs)
    images = loader.batch(index, loader.pixels_of(index), Draws(loader.config, n, 0), side)["img"]
    sheet = torch.full((ROWS * side, COLUMNS * side, 3), 255, dtype=torch.uint8)
    for place, image in enumerate(images.mul(255).round().byte().cpu().permute(0, 2, 3, 1)):
        row, column = divmod(place, COLUMNS)
        sheet[row * side : (row + 1) * side, column * side : (column + 1) * side] = image
    size = (2 * COLUMNS * side, 2 * ROWS * side)
    with atomic_path(folder / AUGMENTED) as part:
        Image.fromarray(sheet.numpy()).resize(size, Image.Resampling.NEAREST).save(part)
    return folder / AUGMENTED


def save_curves(folder: Path) -> Path:
    """Losses, top-1 and macro-F1 by epoch, from results.csv; return the plot's path."""
    column = read_results(folder / "results.csv")
    losses = {"train": column["train/loss"], "val": column["val/loss"]}
    shares = {"val top-1": column[TOP1], "val macro-F1": column[MACRO_F1]}
    save_png(learning([int(epoch) for epoch in column["epoch"]], losses, shares), folder / CURVES)
    return folder / CURVES


class StopSignal:
    """Remembers the first SIGINT or SIGTERM; a second one ends the program at once, as it would without this."""

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._remember)
        return self

    def __exit__(self, *unused: object) -> None:
        self._restore()

    def given(self) -> bool:
        """Whether a signal has come."""
        return self.signum != 0

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM, also where another of several processes had the signal."""
        return 128 + (self.signum or signal.SIGTERM)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self._restore()
        # Straight to the terminal: a handler may interrupt a print, and printing is not re-entrant.
        os.write(2, b"stopping at the next batch, saving first; once more stops at once\n")

    def _restore(self) -> None:
        for signum, before in self._before.items():
            signal.signal(signum, before)
