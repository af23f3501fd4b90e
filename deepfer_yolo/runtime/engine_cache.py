"""TensorRT engines of ONNX files: built at the first run on a machine, under a lock, proven, and kept for the next."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deepfer_yolo.files import sha256_of, staged_tree
from deepfer_yolo.runtime.backends.tensorrt import environment, import_tensorrt, require_driver
from deepfer_yolo.runtime.card import Card, sidecar_path
from deepfer_yolo.runtime.child_process import run_child
from deepfer_yolo.runtime.model_file import STEM, attach, cache_dir
from deepfer_yolo.runtime.onnx_graph import card_of, check_card, io_shapes, read_graph

PROFILE = (1, 8, 64)
"""Smallest, best and largest batch of an engine whose graph leaves it open; larger ones go through in several calls."""
TIMEOUT_S = 1800.0


def engine_of(path: Path, *, prove: Callable[[Path], None]) -> Path:
    """The engine of the ONNX file at `path` for this machine's TensorRT and GPU, built now unless an earlier run did.

    Processes that start together wait for the one that builds. What was built counts only after `prove` has run on the
    new engine without an error. Raises MissingDependencyError without GPU or library, ModelError where TensorRT cannot
    build.
    """
    require_driver()
    here = environment(import_tensorrt(full=True))
    bound = "-".join((here["tensorrt"], here["compute_capability"], here["system"]))
    folder = cache_dir() / "tensorrt" / f"{sha256_of(path)[:32]}-{bound}"
    engine = folder / f"{STEM}.engine"
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not sidecar_path(engine).is_file():
            print(f"building the TensorRT engine of {path}, once on this machine", file=sys.stderr)
            with staged_tree(folder, overwrite=True) as part:
                _build(path, part / engine.name, here)
                prove(part / engine.name)
    return engine


def build_engine(graph: Path, out: Path, here: dict[str, str], *, batch: int | None, version_compatible: bool) -> None:
    """Build the engine of the ONNX file `graph` as `out`, in a child process.

    `batch` None leaves the number of pictures open.
    """
    profile = PROFILE if batch is None else (batch, batch, batch)
    # Measured kernel times are kept between builds, by version and device, since TensorRT refuses those of others.
    timings = cache_dir() / "tensorrt" / f"{here['tensorrt']}-{here['compute_capability']}.timing"
    command = [sys.executable, "-m", "deepfer_yolo.runtime.backends.tensorrt", str(graph), str(out), str(timings)]
    run_child(
        [*command, *map(str, profile), "yes" if version_compatible else "no"], "building the TensorRT engine", TIMEOUT_S
    )


def _build(path: Path, engine: Path, here: dict[str, str]) -> None:
    graph = read_graph(path)
    card: Card = card_of(graph, path)
    check_card(graph, card, path)
    build_engine(path, engine, here, batch=io_shapes(graph, path)[0][0], version_compatible=False)
    attach(card.model_copy(update={"producer": card.producer | here | {"version_compatible": "no"}}), engine)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, waiting for whoever has it; it goes with the process, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except ModuleNotFoundError:  # Windows: two first runs build twice there, and the later one's engine stays
            pass
        yield
