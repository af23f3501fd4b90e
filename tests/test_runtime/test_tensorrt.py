"""TensorRT without a GPU: what is compared before an engine is opened, and the build against both generations of the
library's interface.
"""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest

from deepfer_yolo.errors import ModelError
from deepfer_yolo.runtime.backends.tensorrt import check_environment
from deepfer_yolo.runtime.engine_cache import build

HERE = {"tensorrt": "10.9.0", "compute_capability": "8.7", "system": "linux-aarch64"}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"tensorrt": "10.8.0"}, r"TensorRT 10\.8\.0 there, 10\.9\.0 here"),
        ({"tensorrt": "11.4.0", "version_compatible": "yes"}, r"TensorRT 11\.4\.0 there"),
        ({"compute_capability": "9.0"}, r"compute capability 9\.0 there, 8\.7 here"),
        ({"system": "linux-x86_64"}, "system linux-x86_64 there, linux-aarch64 here"),
    ],
)
def test_an_engine_of_another_machine_is_refused_unopened(changed: dict[str, str], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        check_environment(HERE | changed, HERE, "model.engine")


def test_an_engine_of_this_machine_is_accepted() -> None:
    check_environment(HERE, HERE, "model.engine")
    check_environment(HERE | {"tensorrt": "10.3.1", "version_compatible": "yes"}, HERE, "model.engine")
    with pytest.raises(ModelError, match="unknown there"):
        check_environment({}, HERE, "model.engine")


class FakeTensorRt:
    """The part of TensorRT's interface that building uses; what is called is written down.

    Generation 11 has no weak typing.
    """

    def __init__(self, major: int, *, readable: bool = True, buildable: bool = True) -> None:
        self.calls: list[Any] = []
        calls = self.calls

        class Logger:
            ERROR = 1

            def __init__(self, level: int) -> None:
                calls.append(("logger", level))

        class Profile:
            def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
                calls.append(("profile", name, low, best, high))

        class Config:
            def set_memory_pool_limit(self, pool: str, size: int) -> None:
                calls.append(("pool", pool, size))

            def set_flag(self, flag: str) -> None:
                calls.append(("flag", flag))

            def clear_flag(self, flag: str) -> None:
                calls.append(("no flag", flag))

            def add_optimization_profile(self, profile: Profile) -> None:
                calls.append("add profile")

            def create_timing_cache(self, content: bytes) -> bytes:
                return content

            def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> None:
                calls.append(("cache", cache, ignore_mismatch))

            def get_timing_cache(self) -> Any:
                return SimpleNamespace(serialize=lambda: b"timings")

        class Builder:
            def __init__(self, logger: Logger) -> None:
                pass

            def create_network(self, flags: int) -> Any:
                calls.append(("network", flags))
                return SimpleNamespace(
                    num_inputs=1, get_input=lambda i: SimpleNamespace(name="image", shape=(-1, 64, 64, 3))
                )

            def create_builder_config(self) -> Config:
                return Config()

            def create_optimization_profile(self) -> Profile:
                return Profile()

            def build_serialized_network(self, network: Any, config: Config) -> bytes | None:
                return b"plan" if buildable else None

        class OnnxParser:
            num_errors = 1

            def __init__(self, network: Any, logger: Logger) -> None:
                pass

            def parse(self, graph: bytes) -> bool:
                return readable

            def get_error(self, i: int) -> str:
                return "node 7: unsupported"

        self.Logger, self.Builder, self.OnnxParser = Logger, Builder, OnnxParser
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1) if major == 10 else SimpleNamespace()
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.BuilderFlag = SimpleNamespace(VERSION_COMPATIBLE="vc", TF32="tf32")


@pytest.mark.parametrize(("major", "flags"), [(10, 2), (11, 0)])
def test_both_generations_build_a_strongly_typed_network(major: int, flags: int) -> None:
    trt: Any = FakeTensorRt(major)
    assert build(trt, b"graph", (1, 8, 64), b"old", version_compatible=True) == (b"plan", b"timings")
    assert ("network", flags) in trt.calls
    assert ("profile", "image", (1, 64, 64, 3), (8, 64, 64, 3), (64, 64, 64, 3)) in trt.calls
    assert ("cache", b"old", False) in trt.calls
    assert ("flag", "vc") in trt.calls
    assert ("no flag", "tf32") in trt.calls


def test_refusals_carry_the_librarys_words() -> None:
    unreadable: Any = FakeTensorRt(10, readable=False)
    with pytest.raises(ModelError, match="node 7: unsupported"):
        build(unreadable, b"graph", (1, 8, 64), b"", version_compatible=False)
    unbuilt: Any = FakeTensorRt(11, buildable=False)
    with pytest.raises(ModelError, match="built no engine"):
        build(unbuilt, b"graph", (1, 8, 64), b"", version_compatible=False)
    assert not [call for call in unbuilt.calls if call == ("flag", "vc")]


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_lean_bindings") is None, reason="not installed: tensorrt-lean")
def test_the_real_bindings_have_what_is_called() -> None:
    import tensorrt_lean_bindings as trt

    assert hasattr(trt.Runtime, "deserialize_cuda_engine")
    assert hasattr(trt.Runtime, "engine_host_code_allowed")
    for name in (
        "create_execution_context",
        "num_io_tensors",
        "get_tensor_name",
        "get_tensor_shape",
        "get_tensor_profile_shape",
    ):
        assert hasattr(trt.ICudaEngine, name)
    for name in ("set_input_shape", "set_tensor_address", "execute_async_v3"):
        assert hasattr(trt.IExecutionContext, name)
