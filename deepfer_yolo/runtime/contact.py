"""First contact with a native library in a child process, so that a crash of it becomes a report."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from deepfer_yolo.errors import ModelError

TIMEOUT_S = 120.0


def first_contact(path: Path, provider: str, *, threads: int = 1, timeout_s: float = TIMEOUT_S) -> None:
    """Open `path` and run it once, in a child. Raises ModelError that says how the child ended where it did not end well."""
    command = [sys.executable, "-m", "deepfer_yolo.runtime.contact", str(path), provider, str(threads)]
    run_child(command, f"{path} on {provider}", timeout_s)


def run_child(command: list[str], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Run a child that prints one JSON line, `{"error": …, "hint": …}` where it failed; its death by a signal is named."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise ModelError(f"{what}: no answer within {timeout_s:.0f} s", "the library hangs on this machine; use another format or provider") from None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ModelError(f"{what}: the native library crashed ({name})", "use another format or provider, or another version of the library")
    last = (done.stdout.strip().splitlines() or [""])[-1]
    try:
        answer = json.loads(last)
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ModelError(f"{what}: the child process ended with {done.returncode}: {reason[:300]}") from None
    if "error" in answer:
        raise ModelError(answer["error"], answer.get("hint"))


def main() -> None:
    """The child: open, run one blank picture, say so."""
    import numpy as np

    from deepfer_yolo.errors import DeepferError
    from deepfer_yolo.runtime.backends import open_backend

    path, provider, threads = sys.argv[1:4]
    try:
        backend = open_backend(Path(path), provider, int(threads), contacted=True)
        size = backend.card.input.size
        backend.run(np.zeros((1, size, size, 3), np.uint8))
    except DeepferError as error:
        print(json.dumps({"error": error.message, "hint": error.hint}))
    else:
        print(json.dumps({"provider": backend.provider}))


if __name__ == "__main__":
    main()
