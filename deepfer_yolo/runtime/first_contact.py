"""First contact with a model file in a child process: a crash or hang of a native library becomes a report."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from deepfer_yolo.records import Json
from deepfer_yolo.runtime.backends.protocol import open_backend
from deepfer_yolo.runtime.child_process import TIMEOUT_S, Child, Message, answer_parent
from deepfer_yolo.runtime.formats import library_of
from deepfer_yolo.runtime.model_file import cache_dir, digest


def ensure_contact(path: Path, provider: str, timeout_s: float | None = None) -> None:
    """`first_contact`, once for each file, provider and version of the library on this machine."""
    if not _note(path, provider).is_file():
        first_contact(path, provider, timeout_s)


def first_contact(path: Path, provider: str, timeout_s: float | None = None) -> None:
    """Open `path` and run it once, in a child, and note in the cache folder that it went well; raises what `Child.ask`
    raises.
    """
    _ask(path, provider, timeout_s or TIMEOUT_S)
    note = _note(path, provider)
    with suppress(OSError):  # where nothing can be written, every start is a first one
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()


def _note(path: Path, provider: str) -> Path:
    library = library_of(path, provider).distribution
    try:
        installed = version(library)
    except PackageNotFoundError:
        installed = "absent"
    return cache_dir() / "contacts" / f"{digest(path)[:32]}-{provider}-{library}-{installed}-{platform.node()}"


def _ask(path: Path, provider: str, timeout_s: float) -> None:
    on = "" if provider == "cpu" else f" --provider {provider}"
    wait = f"the library hangs here, or the machine is slow: deepfer verify {path}{on} --timeout-s {4 * timeout_s:g}"
    with Child(__name__, f"{path} on {provider}", timeout_s, wait) as child:
        child.ask({"path": str(path), "provider": provider})


def _open_and_run(question: Message) -> Json:
    backend = open_backend(Path(question.head["path"]), question.head["provider"], threads=1)
    size = backend.card.input.size
    backend.run(np.zeros((1, size, size, 3), np.uint8))
    return {"provider": backend.provider}


if __name__ == "__main__":
    answer_parent(_open_and_run)
