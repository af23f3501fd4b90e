"""States that a run continues from: two kept, checked by their name, nothing but plain data inside."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch

from deepfer_yolo.train.state import RunState, drop_states, newest_state


def state(epoch: int, batch: int = 0) -> RunState:
    nothing = dict.fromkeys((field.name for field in fields(RunState)), None)
    weights = {"weight": torch.full((3,), float(epoch))}
    return RunState(**nothing | {"epoch": epoch, "batch": batch, "model": weights})  # type: ignore[arg-type]


def test_the_two_newest_are_kept(tmp_path: Path) -> None:
    for epoch, batch in ((1, 0), (2, 0), (9, 0), (9, 12), (10, 0)):
        state(epoch, batch).save(tmp_path)
    assert sorted(path.name[:19] for path in tmp_path.iterdir()) == ["state-00009-0000012", "state-00010-0000000"]
    found = newest_state(tmp_path)
    assert found is not None
    assert (found.epoch, found.batch, found.model["weight"][0]) == (10, 0, 10.0)


def test_a_truncated_newest_gives_the_one_before(tmp_path: Path) -> None:
    state(1).save(tmp_path)
    newest = state(2).save(tmp_path)
    newest.write_bytes(newest.read_bytes()[:-100])
    found = newest_state(tmp_path)
    assert found is not None
    assert found.epoch == 1


def test_no_state_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "state-final.pt").write_text("someone's own file")
    assert newest_state(tmp_path) is None
    drop_states(tmp_path)
    assert (tmp_path / "state-final.pt").exists()
