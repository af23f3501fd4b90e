"""First contact with a native library in a child process, so that a crash of it becomes a report."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deepfer_yolo.errors import DeepferError, MissingDependencyError, ModelError

TIMEOUT_S = 120.0
ERRORS: dict[str, type[DeepferError]] = {kind.__name__: kind for kind in (ModelError, MissingDependencyError)}
"""What a child may have raised, so that it is the same error here."""
LIBRARIES = {".engine": "tensorrt", ".param": "ncnn", ".tflite": "ai-edge-litert", ".xml": "openvino"}
"""The distribution that runs a format; an ONNX file runs in the one that bears its provider's name, or in onnxruntime.
"""


def ensure_contact(path: Path, provider: str) -> None:
    """`first_contact`, once for each file, provider and version of the library on this machine; a note in the cache
    folder remembers it.
    """
    from deepfer_yolo.runtime.model_file import cache_dir, digest

    library = LIBRARIES.get(path.suffix, "openvino" if provider == "openvino" else "onnxruntime")
    try:
        installed = version(library)
    except PackageNotFoundError:
        installed = "absent"
    note = cache_dir() / "contacts" / f"{digest(path)[:32]}-{provider}-{library}-{installed}-{platform.node()}"
    if note.is_file():
        return
    first_contact(path, provider)
    with suppress(OSError):  # where nothing can be written, every start is a first one
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()


def first_contact(path: Path, provider: str, *, threads: int = 1, timeout_s: float = TIMEOUT_S) -> None:
    """Open `path` and run it once, in a child.

    Raises what the child raised, or ModelError that says how it ended where it did not end well.
    """
    command = [sys.executable, "-m", "deepfer_yolo.runtime.child_process", str(path), provider, str(threads)]
    run_child(command, f"{path} on {provider}", timeout_s)


def run_child(command: list[str], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Run a child that prints one JSON line, `{"error": …, "hint": …, "kind": …}` where it failed; its death by a
    signal is named.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"{what}: no answer within {timeout_s:.0f} s",
            "the library hangs on this machine; use another format or provider",
        ) from None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ModelError(
            f"{what}: the native library crashed ({name})",
            "use another format or provider, or another version of the library",
        )
    last = (done.stdout.strip().splitlines() or [""])[-1]
    try:
        answer = json.loads(last)
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ModelError(f"{what}: the child process ended with {done.returncode}: {reason[:300]}") from None
    if "error" in answer:
        raise ERRORS.get(answer.get("kind"), ModelError)(answer["error"], answer.get("hint"))


def main() -> None:
    """The child: open, run one blank picture, say so."""
    import numpy as np

    from deepfer_yolo.errors import DeepferError
    from deepfer_yolo.runtime.backends.registry import open_backend

    path, provider, threads = sys.argv[1:4]
    try:
        backend = open_backend(Path(path), provider, int(threads))
        size = backend.card.input.size
        backend.run(np.zeros((1, size, size, 3), np.uint8))
    except DeepferError as error:
        print(json.dumps({"error": error.message, "hint": error.hint, "kind": type(error).__name__}))
    else:
        print(json.dumps({"provider": backend.provider}))


if __name__ == "__main__":
    main()
