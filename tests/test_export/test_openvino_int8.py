"""int8 by NNCF: every rung makes a model that answers nearly like fp32, and the search for layers keeps its bounds."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from deepfer_yolo.config import ExportConfig
from deepfer_yolo.export.candidates import Request
from deepfer_yolo.export.rounding import answers
from deepfer_yolo.export.writers import openvino
from deepfer_yolo.painted import paint_golden
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.onnx_graph import read_graph

MISSING = [name for name in ("openvino", "nncf") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


def test_every_rung_answers_nearly_like_fp32(
    exported: Path, painted_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepfer_yolo.runtime.backends.openvino import import_openvino

    # So strict a line that the search begins, and so few layers that it ends without having met it.
    monkeypatch.setattr(openvino, "MAX_DROP", -1.0)
    monkeypatch.setattr(openvino, "MAX_RESTORED", 2)
    graph = read_graph(exported)
    config = ExportConfig(format="openvino", precision="int8", calibration=48)
    request = Request(exported, Classifier(exported).card, config, painted_dataset, frozenset(), tmp_path)
    crops = paint_golden(3, 24, 32)
    expected = answers(graph, crops)
    off = {}
    for name, make in openvino.ladder(graph, request):
        model = make()
        assert any(op.get_type_name() == "FakeQuantize" for op in model.get_ops()), name
        compiled = import_openvino().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        off[name] = float(np.abs(compiled(crops)[0] - expected).mean())
        assert 0 < off[name] < 0.03, name
    # Of the six blocks here four may stay in floating point; a file with all of them is int8 in name alone.
    assert [name.split(",")[0] for name in off] == ["NNCF"] * 3 + ["NNCF with accuracy control"]
    assert list(off.values())[2] < next(iter(off.values()))
