"""The exact state of a run that is not over, in files that a kill leaves whole."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.files import write_atomic
from deepfer_yolo.records import Json

KEPT = 2
_NAME = re.compile(r"state-(\d{5})-(\d{7})-([0-9a-f]{16})\.pt")

Weights = dict[str, torch.Tensor]
Numbers = dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class RunState:
    """All that a run needs to go on, at `batch` of `epoch`, as if it had not been interrupted; full precision."""

    epoch: int
    batch: int
    fingerprint: str
    """Of the data set that the run was begun with."""
    leaks: Json
    trained_hashes: torch.Tensor | None
    model: Weights
    ema: Weights
    updates: int
    optimizer: dict[str, object]
    best_fitness: float | None
    stopper: Numbers
    torch_rng: torch.Tensor
    plateau: Numbers
    spent_s: float
    epochs: int
    done: bool
    """Whether the last epoch is over, and only best.pt has to be measured."""

    @property
    def place(self) -> str:
        """Where the run goes on, in words."""
        return "its last epoch, to measure it" if self.done else f"epoch {self.epoch + 1}, batch {self.batch + 1}"

    def save(self, folder: Path) -> Path:
        """Write the state, delete all but the two newest in `folder`, and return its path."""
        buffer = io.BytesIO()
        torch.save({field.name: getattr(self, field.name) for field in fields(self)}, buffer)
        content = buffer.getvalue()
        path = folder / f"state-{self.epoch:05d}-{self.batch:07d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"
        write_atomic(path, content)
        for old, _ in list(_states(folder))[KEPT:]:
            old.unlink(missing_ok=True)
        return path


def newest_state(folder: Path) -> RunState | None:
    """The newest state in `folder` whose checksum holds; None where there is none."""
    for path, checksum in _states(folder):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest().startswith(checksum):
            return RunState(**torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    return None


def drop_states(folder: Path) -> None:
    """Delete all states of a run that has finished."""
    for path, _ in _states(folder):
        path.unlink(missing_ok=True)


def _states(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every state in `folder` with the beginning of its SHA-256, the newest first."""
    for path in sorted(folder.glob("state-*.pt"), reverse=True):
        if match := _NAME.fullmatch(path.name):
            yield path, match[3]
