"""Checkpoints that a kill cannot break: written beside their final name, with a checksum in it, the two newest kept.

`weights/last.pt` and `weights/best.pt` are stock Ultralytics checkpoints, rounded to float16. What a run continues from lies next to them
as `state-<epoch>-<batch>-<sha256>.pt` in full precision: only tensors and plain values, so that it loads with `weights_only`.
"""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.files import write_atomic

KEPT = 2
_NAME = re.compile(r"state-(\d{5})-(\d{7})-([0-9a-f]{16})\.pt")


def save_state(folder: Path, state: dict[str, Any]) -> Path:
    """Write `state`, which holds `epoch` and `batch`, and delete all but the two newest; return its path."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    path = folder / f"state-{state['epoch']:05d}-{state['batch']:07d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"
    write_atomic(path, content)
    for old in _states(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def newest_state(folder: Path) -> dict[str, Any] | None:
    """The newest state in `folder` whose checksum holds; None where there is none."""
    for path in _states(folder):
        match = _NAME.fullmatch(path.name)
        content = path.read_bytes()
        if match and hashlib.sha256(content).hexdigest().startswith(match[3]):
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            return state
    return None


def drop_states(folder: Path) -> None:
    """Delete all states of a run that has finished."""
    for path in _states(folder):
        path.unlink(missing_ok=True)


def _states(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("state-*.pt") if _NAME.fullmatch(path.name)), reverse=True)
