"""The champion's folder: who holds the title, and every decision that was made about it."""

from __future__ import annotations

import json
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from deepfer_yolo.errors import ConfigError, DeepferError
from deepfer_yolo.files import locked, staged_tree, sync_folder, write_atomic
from deepfer_yolo.records import Json, parse_json, plain
from deepfer_yolo.runtime.card import sidecar_path
from deepfer_yolo.runtime.model_file import STEM, digest, models_in, parts

CHAMPION, RELEASES, HISTORY, LOCK = "champion", "releases", "history.jsonl", ".lock"
LOCK_WAIT_S = 30.0


def champion_of(folder: Path) -> Path | None:
    """The model file that holds the title in a promotion folder; None where there is none yet."""
    found = models_in(folder / CHAMPION)
    if len(found) > 1:
        raise ConfigError(
            f"{folder / CHAMPION} holds several models: {', '.join(path.name for path in found)}", "keep one"
        )
    return found[0] if found else None


def find_champion(champion: Path | None, promote: Path | None) -> Path | None:
    """The champion's file from `--champion` (a file or a promotion folder) and `--promote`; None where there is none.

    Raises ConfigError where `champion` is a folder without one, or where the two name different models.
    """
    named = champion
    if champion is not None and champion.is_dir():
        named = champion_of(champion.parent if champion.name == CHAMPION else champion)
        if named is None:
            raise ConfigError(
                f"{champion} holds no champion", "name a model file, or leave it out: the shipped model stands in"
            )
    held = champion_of(promote) if promote is not None else None
    if named is None or held is None:
        return named or held
    if named.is_file() and digest(named) != digest(held):
        raise ConfigError(
            f"--champion {champion} is not the model that holds the title in {promote}", "leave --champion out"
        )
    return held


def title_of(promote: Path | None) -> str | None:
    """The SHA-256 of the model that holds the title in a promotion folder; None where nobody does."""
    held = champion_of(promote) if promote is not None else None
    return None if held is None else digest(held)


@dataclass(frozen=True, slots=True)
class GateDecision:
    """One gate's decision: the verdict, the challenger and the title's holder by SHA-256, the split that decided."""

    verdict: str
    challenger: str
    champion: str | None
    fingerprint: str
    split: str
    d: float | None
    run: str


def read_history(folder: Path) -> list[Json]:
    """The decisions of a promotion folder, oldest first. Raises ConfigError with the line that cannot be read."""
    path = folder / HISTORY
    if not path.is_file():
        return []
    entries: list[Json] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = parse_json(line)
            if not isinstance(entry, dict):
                raise ValueError
            entries.append(entry)
        except ValueError:
            raise ConfigError(f"{path}, line {number}: not a JSON object", "remove the broken line") from None
    return entries


def times_decided(folder: Path, fingerprint: str, split: str) -> int:
    """How many decisions in `folder` rested on this split: each one makes the next a little less independent."""
    return sum(
        entry.get("fingerprint") == fingerprint and entry.get("split") == split for entry in read_history(folder)
    )


def record(folder: Path, decision: GateDecision, challenger: Path, *, promote: bool) -> Path | None:
    """Append `decision` to the history and, with `promote`, hand the title to `challenger`; returns its new path.

    Raises ConfigError where another job has changed the champion since.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        held = title_of(folder)
        if promote and held != decision.champion:
            raise ConfigError(
                f"the champion in {folder} changed while this gate ran",
                "run the gate again: it will compare with the new one",
            )
        entries = read_history(folder)
        entry = {"number": len(entries) + 1, **plain(decision), "promoted": promote}
        release = _release(folder, challenger, entry) if promote else None
        # The history comes before the title: a job killed in between leaves the old champion, and a line that says what
        # was meant.
        lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in (*entries, entry)]
        write_atomic(folder / HISTORY, "".join(lines))
        return _link(folder, release, challenger.suffix) if release is not None else None


def _release(folder: Path, challenger: Path, entry: Json) -> Path:
    """Copy the challenger, its card and the decision into a release; returns its path relative to `folder`."""
    release = Path(RELEASES) / f"{entry['number']:04d}-{digest(challenger)[:12]}"
    with staged_tree(folder / release, overwrite=True) as staging:
        for part in parts(challenger):
            shutil.copyfile(part, staging / f"{STEM}{part.suffix}")
        if sidecar_path(challenger).is_file():
            shutil.copyfile(sidecar_path(challenger), staging / f"{STEM}.json")
        (staging / "decision").write_text(json.dumps(entry, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return release


def _link(folder: Path, release: Path, suffix: str) -> Path:
    """Turn the `champion` link to `release` in one rename."""
    link, part = folder / CHAMPION, folder / f".{CHAMPION}.part"
    if link.exists() and not link.is_symlink():
        raise ConfigError(f"{link} is not a link that --promote made", "move it away, or name another folder")
    part.unlink(missing_ok=True)
    part.symlink_to(release, target_is_directory=True)
    part.replace(link)
    sync_folder(folder)
    return link / f"{STEM}{suffix}"


def lock(folder: Path) -> AbstractContextManager[None]:
    """Hold the folder's lock; waits LOCK_WAIT_S at most."""
    busy = DeepferError(f"another promotion holds {folder / LOCK}", "wait for it to end, then run the gate again")
    return locked(folder / LOCK, busy, wait_s=LOCK_WAIT_S)
