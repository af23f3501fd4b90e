"""What OpenVINO would choose by itself, and int8 files that onnxruntime calculates in floating point."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from deepfer_yolo.painted import paint_golden
from deepfer_yolo.records import Crops
from deepfer_yolo.runtime.arithmetic import _opened, _unsigned, own_choice, signed_activations
from deepfer_yolo.runtime.model_file import SHIPPED, attach
from deepfer_yolo.runtime.onnx_graph import open_graph, read_graph, with_metadata

Deepfer = Callable[..., Any]
MODEL = SHIPPED / "deepfer-n.onnx"


class Faces(CalibrationDataReader):  # type: ignore[misc]
    """Sixteen painted faces for the quantiser."""

    def __init__(self, size: int) -> None:
        self._batches = iter([{"image": paint_golden(5, 16, size)}])

    def get_next(self) -> dict[str, Crops] | None:
        return next(self._batches, None)


def quantised(path: Path, activations: QuantType) -> Path:
    """deepfer-n by onnxruntime's own quantiser, whose default activations are signed; with its card."""
    _, card = open_graph(MODEL)
    made = path.with_name("raw.onnx")
    options = {"quant_format": QuantFormat.QDQ, "per_channel": True, "activation_type": activations}
    quantize_static(str(MODEL), str(made), Faces(card.input.size), **options)
    path.write_bytes(bytes(with_metadata(read_graph(made), {}).content))
    attach(card.model_copy(update={"precision": "int8", "golden": None}), path)
    return path


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantised(tmp_path_factory.mktemp("signed") / "signed.onnx", QuantType.QInt8)


def test_convolutions_left_in_float_by_signed_activations_are_counted(signed: Path, tmp_path: Path) -> None:
    found = signed_activations(signed, 1, 8, 2)
    assert found is not None
    assert found.n_float > 0.8 * found.n
    assert found.n_float_unsigned < 0.1 * found.n
    assert found.speed > 1.2
    assert f"leave {found.n_float} of {found.n} convolutions in floating point" in found.line
    unsigned = quantised(tmp_path / "unsigned.onnx", QuantType.QUInt8)
    assert signed_activations(unsigned, 1, 8, 2) is None
    assert signed_activations(MODEL, 1, 8, 2) is None


def test_unsigned_are_the_same_numbers(signed: Path) -> None:
    graph, card = open_graph(signed)
    crops = paint_golden(3, 16, card.input.size)
    made = _unsigned(graph)
    assert made is not None
    left, right = (_opened(one, 1)[0](crops) for one in (graph, made))
    assert np.abs(left - right).mean() < 0.02  # sums of integers are rounded at other places


def test_benchmark_says_why_an_int8_file_is_slow(deepfer: Deepfer, signed: Path) -> None:
    words = ("benchmark", MODEL, signed, "--batch", "16", "--rounds", "3", "--calls", "3")
    done = deepfer(*words)
    assert done.returncode == 0, done.stderr
    assert "  cause: signed activations (S8S8) leave" in done.stdout
    assert "deepfer export --precision int8" in done.stdout
    models = json.loads(deepfer(*words, "--json").stdout)["models"]
    assert "signed_activations" not in models[0]
    assert models[1]["signed_activations"]["n_float"] > 0


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="not installed: openvino")
def test_what_openvino_would_choose_is_told(deepfer: Deepfer) -> None:
    import openvino

    found = own_choice(MODEL, 1, 8, 2)
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert found is None
        pytest.skip("this processor has no bf16, so that OpenVINO calculates in fp32")
    assert found is not None
    assert (found.arithmetic, found.n) == ("bf16", 64)
    assert 1e-3 < found.max_diff < 0.2
    words = ("benchmark", MODEL, "--provider", "openvino", "--batch", "8", "--rounds", "1", "--calls", "2")
    done = deepfer(*words)
    assert done.returncode == 0, done.stderr
    assert "  fp32 by our hint; OpenVINO's own choice, bf16, is" in done.stdout
    (model,) = json.loads(deepfer(*words, "--json").stdout)["models"]
    assert model["own_choice"]["max_diff"] == pytest.approx(found.max_diff, abs=1e-4)
