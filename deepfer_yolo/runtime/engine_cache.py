"""TensorRT engines of ONNX files: built at the first run on a machine, under a lock, proven, and kept for the next."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from deepfer_yolo.errors import ModelError
from deepfer_yolo.files import locked, sha256_of, staged_tree, write_atomic
from deepfer_yolo.records import Json
from deepfer_yolo.runtime.backends.tensorrt import environment, import_tensorrt, require_driver
from deepfer_yolo.runtime.card import sidecar_path
from deepfer_yolo.runtime.child_process import Child, Message, answer_parent
from deepfer_yolo.runtime.model_file import STEM, attach, cache_dir
from deepfer_yolo.runtime.onnx_graph import INPUT, io_shapes, open_graph

PROFILE = (1, 8, 64)
"""Smallest, best and largest batch of an engine whose graph leaves it open; larger ones go through in several calls."""
TIMEOUT_S = 1800.0
WORKSPACE_BYTES = 1 << 30


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
                _build_with_card(path, part / engine.name, here)
                prove(part / engine.name)
    return engine


def _build_with_card(path: Path, engine: Path, here: dict[str, str]) -> None:
    graph, card = open_graph(path)
    build_engine(path, engine, here, batch=io_shapes(graph, path)[0][0], version_compatible=False)
    attach(card.model_copy(update={"producer": card.producer | here | {"version_compatible": "no"}}), engine)


def build_engine(graph: Path, out: Path, here: dict[str, str], *, batch: int | None, version_compatible: bool) -> None:
    """Build the engine of the ONNX file `graph` as `out`, in a child process.

    `batch` None leaves the number of images open.
    """
    # Measured kernel times are kept between builds, by version and device, since TensorRT refuses those of others.
    timings = cache_dir() / "tensorrt" / f"{here['tensorrt']}-{here['compute_capability']}.timing"
    question: Json = {
        "graph": str(graph),
        "out": str(out),
        "timings": str(timings),
        "batches": PROFILE if batch is None else (batch, batch, batch),
        "version_compatible": version_compatible,
    }
    with Child(__name__, "building the TensorRT engine", TIMEOUT_S) as child:
        child.ask(question)


def _build_here(question: Message) -> Json:
    """The child's part of `build_engine`."""
    require_driver()
    said = question.head
    timings = Path(said["timings"])
    plan, measured = build(
        import_tensorrt(full=True),
        Path(said["graph"]).read_bytes(),
        said["batches"],
        timings.read_bytes() if timings.is_file() else b"",
        version_compatible=said["version_compatible"],
    )
    Path(said["out"]).write_bytes(plan)
    write_atomic(timings, measured)
    return {"n_bytes": len(plan)}


def build(
    trt: ModuleType, graph: bytes, profile: tuple[int, int, int], cache: bytes, *, version_compatible: bool
) -> tuple[bytes, bytes]:
    """The serialised engine of an ONNX `graph` for batches min, opt, max, and the timing cache as it is afterwards.

    Types are those of the graph: fp16 by its tensors, int8 by its Q/DQ pairs, which is how TensorRT 11 wants it and
    TensorRT 10 can do it. Works with both. Raises ModelError with the parser's words.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ModelError(f"TensorRT cannot read the graph: {reasons[:500]}", "report it with the TensorRT version")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.clear_flag(trt.BuilderFlag.TF32)  # ten bits of a product are not what fp32's parity promises
    if version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    _add_profile(builder, config, network, profile)
    timing = config.create_timing_cache(cache)
    config.set_timing_cache(timing, False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelError("TensorRT built no engine", "another precision may work")
    return bytes(plan), bytes(config.get_timing_cache().serialize())


def _add_profile(builder: Any, config: Any, network: Any, batches: tuple[int, int, int]) -> None:
    shape = next(
        tuple(network.get_input(i).shape) for i in range(network.num_inputs) if network.get_input(i).name == INPUT
    )
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, *((n, *shape[1:]) for n in batches))
    config.add_optimization_profile(profile)


if __name__ == "__main__":
    answer_parent(_build_here)
