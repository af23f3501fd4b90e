"""What a person sees while a network trains, and the same lines in the run's log.txt."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from deepfer_yolo.train.measure import MACRO_F1, TOP1

HEADER = f"{'epoch':>9} {'loss':>7} {'val loss':>8} {'top-1':>6} {'macro-F1':>8} {'img/s':>6} {'time left':>9}"


class Log:
    """Appends lines to `log.txt` and shows them through `show`."""

    def __init__(self, path: Path, show: Callable[[str], None]) -> None:
        self.path, self.show = path, show

    def __call__(self, line: str) -> None:
        """Show and append one line."""
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

    def attach(self, trainer: Any) -> None:
        """Listen to Ultralytics' callbacks."""
        trainer.add_callback("on_train_start", lambda _: self.log(HEADER))
        trainer.add_callback("on_train_epoch_start", self._begin)
        trainer.add_callback("on_train_batch_end", self._batch)
        trainer.add_callback("on_train_epoch_end", self._trained)
        trainer.add_callback("on_fit_epoch_end", self._end)

    def _begin(self, trainer: Any) -> None:
        self._began = time.perf_counter()
        self._first = trainer.batches_done

    def _batch(self, trainer: Any) -> None:
        now = time.perf_counter()
        if self.live and now - self._shown > 0.2:
            self._shown = now
            done, total = trainer.batches_done, len(trainer.train_loader)
            loss = float(trainer.tloss["loss"])
            speed = (done - self._first) * trainer.batch_size / (now - self._began)
            sys.stderr.write(
                f"\r{trainer.epoch + 1:>5}/{trainer.epochs:<3} {loss:7.3f}  batch {done}/{total}  {speed:.0f} img/s\033[K"
            )
            sys.stderr.flush()

    def _trained(self, trainer: Any) -> None:
        share = (trainer.batches_done - self._first) / len(trainer.train_loader)
        self.images_per_s.append(share * len(trainer.job.train) / (time.perf_counter() - self._began))

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
        mark = " *" if trainer.fitness == trainer.best_fitness else ""
        self.log(
            f"{trainer.epoch + 1:>5}/{trainer.epochs:<3} {float(trainer.tloss['loss']):7.4f} {metrics['val/loss']:8.4f} {metrics[TOP1]:6.1%}"
            f" {metrics[MACRO_F1]:8.1%} {self.images_per_s[-1]:6.0f} {clock(left_s):>9}{mark}"
        )


def clock(seconds: float) -> str:
    """A duration such as ``1:02:03`` or ``02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


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
        """130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signum

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self._restore()
        # Straight to the terminal: a handler may interrupt a print, and printing is not re-entrant.
        os.write(2, b"stopping at the next batch, saving first; once more stops at once\n")

    def _restore(self) -> None:
        for signum, before in self._before.items():
            signal.signal(signum, before)
