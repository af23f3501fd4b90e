"""Building a TensorRT engine; run as a child process, since the library can end its process on a machine that does not suit it.

`python -m deepfer_yolo.runtime.engine_build GRAPH.onnx OUT.engine CACHE MIN OPT MAX yes|no`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from deepfer_yolo.errors import DeepferError, ModelError
from deepfer_yolo.files import write_atomic
from deepfer_yolo.runtime.graph import INPUT
from deepfer_yolo.runtime.tensorrt import import_tensorrt, require_driver

WORKSPACE_BYTES = 1 << 30


def build(trt: ModuleType, graph: bytes, profile: tuple[int, int, int], cache: bytes, *, version_compatible: bool) -> tuple[bytes, bytes]:
    """The serialised engine of an ONNX `graph` for batches min, opt, max, and the timing cache as it is afterwards.

    Types are those of the graph: fp16 by its tensors, int8 by its Q/DQ pairs, which is how TensorRT 11 wants it and TensorRT 10 can do it.
    Works with both. Raises ModelError with the parser's words.
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
        raise ModelError("TensorRT built no engine", "see its messages with --debug; another precision may work")
    return bytes(plan), bytes(config.get_timing_cache().serialize())


def _add_profile(builder: Any, config: Any, network: Any, batches: tuple[int, int, int]) -> None:
    shape = next(tuple(network.get_input(i).shape) for i in range(network.num_inputs) if network.get_input(i).name == INPUT)
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, *((n, *shape[1:]) for n in batches))
    config.add_optimization_profile(profile)


def main() -> None:
    """The child."""
    source, target, cache = map(Path, sys.argv[1:4])
    low, best, high = map(int, sys.argv[4:7])
    try:
        require_driver()
        trt = import_tensorrt(full=True)
        timings = cache.read_bytes() if cache.is_file() else b""
        plan, timings = build(trt, source.read_bytes(), (low, best, high), timings, version_compatible=sys.argv[7] == "yes")
        target.write_bytes(plan)
        write_atomic(cache, timings)
    except DeepferError as error:
        print(json.dumps({"error": error.message, "hint": error.hint, "kind": type(error).__name__}))
    else:
        print(json.dumps({"n_bytes": len(plan)}))


if __name__ == "__main__":
    main()
