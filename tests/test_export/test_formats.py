"""Every format and precision: proven against the checkpoint, opened by the run-time, verified from its own card."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from pkgutil import resolve_name
from typing import get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from deepfer_yolo.cli.options import open_classifier
from deepfer_yolo.config import ExportConfig
from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.errors import ConfigError, DatasetError, DeepferError, ModelError
from deepfer_yolo.export import int8
from deepfer_yolo.export.calibration import calibration_images
from deepfer_yolo.export.export import default_name, export_model
from deepfer_yolo.export.parity import LIMITS, Limits, load_sample
from deepfer_yolo.painted import paint_golden
from deepfer_yolo.runtime import golden
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.first_contact import first_contact
from deepfer_yolo.runtime.formats import FORMATS
from deepfer_yolo.runtime.golden import check_golden
from deepfer_yolo.runtime.model_file import attach, locate
from deepfer_yolo.yolo import TorchClassifier

LOOSE = Limits(None, 0.3)
"""For random weights, whose labels lie close together: the machinery is under test here, not the accuracy."""


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.mark.parametrize(
    ("fmt", "precision", "suffix", "tolerance"),
    [
        ("onnx", "fp16", ".onnx", 5e-3),
        pytest.param("openvino", "fp32", ".xml", 1e-4, marks=needs("openvino")),
        pytest.param("openvino", "fp16", ".xml", 5e-3, marks=needs("openvino")),
        ("torchscript", "fp32", ".torchscript", 1e-4),
        pytest.param("ncnn", "fp32", ".param", 1e-4, marks=needs("ncnn", "pnnx")),
        pytest.param("ncnn", "fp16", ".param", 5e-3, marks=needs("ncnn", "pnnx")),
        pytest.param("litert", "fp32", ".tflite", 1e-4, marks=needs("litert_torch", "ai_edge_litert")),
    ],
)
def test_a_format_answers_like_the_checkpoint(
    fmt: str, precision: str, suffix: str, tolerance: float, checkpoint: Path, tmp_path: Path
) -> None:
    config = ExportConfig(format=fmt, precision=precision, pictures=70)  # type: ignore[arg-type]
    found = export_model(checkpoint, config, out=tmp_path / ("model.onnx" if fmt == "onnx" else "model"))
    assert found.parity.passed
    assert locate(found.path).suffix == suffix
    classifier = open_classifier(found.path)
    assert classifier.card.precision == precision
    assert check_golden(classifier).passed
    crops = paint_golden(12, 5, 32)
    np.testing.assert_allclose(classifier.predict(crops), TorchClassifier(checkpoint).predict(crops), atol=tolerance)
    # The proof of the file is tied to its bytes.
    victim = max(locate(found.path).parent.iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0xFF
    victim.write_bytes(content)
    with pytest.raises(ModelError):
        open_classifier(found.path)


@needs("litert_torch", "ai_edge_litert")
@pytest.mark.parametrize("batch", [None, 2])
def test_a_litert_file_takes_any_number_of_images_unless_it_is_fixed(
    checkpoint: Path, tmp_path: Path, batch: int | None
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    found = export_model(checkpoint, ExportConfig(format="litert", batch=batch, pictures=70), out=tmp_path / "made")
    (taken,) = Interpreter(model_path=str(locate(found.path))).get_input_details()
    assert taken["shape_signature"].tolist() == [batch or -1, 32, 32, 3]
    classifier, reference = open_classifier(found.path), TorchClassifier(checkpoint)
    for n in (1, 3, 70, 2, 1):
        crops = paint_golden(n, n, 32)
        np.testing.assert_allclose(classifier.predict(crops), reference.predict(crops), atol=1e-5)


def test_fp16_halves_the_file_and_keeps_its_borders(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    found = export_model(checkpoint, ExportConfig(precision="fp16", pictures=70), out=tmp_path / "half.onnx")
    assert found.n_bytes < 0.6 * exported.stat().st_size
    model = onnx.load(str(found.path))
    assert (model.graph.input[0].type.tensor_type.elem_type, model.graph.output[0].type.tensor_type.elem_type) == (2, 1)
    assert (found.card.precision, found.card.arithmetic) == ("fp16", "fp32")
    assert check_golden(Classifier(found.path)).tolerance == 1e-4


def test_fp16_arithmetic_is_said_and_proven_where_it_is_calculated(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ExportConfig(precision="fp16", fp16_arithmetic=True, pictures=70)
    found = export_model(checkpoint, config, out=tmp_path / "gpu.onnx")
    assert [attempt.name for attempt in found.attempts] == ["fp16"]
    card = Classifier(found.path).card
    assert (card.precision, card.arithmetic) == ("fp16", "fp16")
    proof = card.metrics["fp16_arithmetic"]
    assert proof["n"] == 8 + 64
    assert 1e-4 < proof["max_diff"] < proof["allowed"] == 0.02
    assert check_golden(Classifier(found.path)).tolerance == 0.02
    # Where fp16 arithmetic goes too far, the weights alone become fp16, whatever this machine calculates in.
    monkeypatch.setitem(golden.FP16, "fp16", 1e-5)
    cautious = export_model(checkpoint, config, out=tmp_path / "cautious.onnx")
    assert [attempt.parity.passed for attempt in cautious.attempts] == [False, False, True]
    assert cautious.card.arithmetic == "fp32"
    with pytest.raises(ConfigError, match="not of ncnn in fp16"):
        export_model(checkpoint, ExportConfig(format="ncnn", precision="fp16", fp16_arithmetic=True))


def test_int8_takes_the_first_rung_that_passes(
    checkpoint: Path, exported: Path, painted_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "int8", LOOSE)
    found = export_model(
        checkpoint, ExportConfig(precision="int8", calibration=64), out=tmp_path / "int8.onnx", data=painted_dataset
    )
    assert [attempt.precision for attempt in found.attempts] == ["int8"]
    assert found.attempts[0].name.startswith("int8, min-max, 64 training images")
    assert found.card.metrics["parity"]["recipe"] == found.attempts[0].name
    assert found.n_bytes < 0.5 * exported.stat().st_size
    model = onnx.load(str(found.path))
    makers = {node.output[0]: node for node in model.graph.node}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        weights = makers[node.input[1]]
        assert stored[weights.input[0]].data_type == TensorProto.INT8
        assert stored[weights.input[1]].dims == stored[weights.input[0]].dims[:1], "quantised per channel"
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert check_golden(Classifier(found.path)).passed
    # The network answers nearly alike to all: no seed has its labels apart, and the steadiest is taken.
    elsewhere = found.card.metrics["golden_elsewhere"]
    assert elsewhere["max_diff"] <= 0.01
    assert elsewhere["allowed"] == 0.05


def test_golden_inputs_of_int8_leave_room_for_other_processors() -> None:
    shipped = Classifier(locate(Path("deepfer-xs")))
    model = onnx.load(str(shipped.path))
    chosen, room = int8.steady_golden(model, shipped.predict, shipped.card.input.size)
    assert room["max_diff"] <= 0.05 / int8.ROOM
    assert room["label_margin"] > 0.05
    assert shipped.card.golden is not None
    assert chosen.seed == shipped.card.golden.seed, "the shipped file's own inputs have the room"
    np.testing.assert_allclose(chosen.probs, shipped.card.golden.probs, atol=1e-6)
    # Answers that lie half-way to another processor's are passed over.
    picky, _ = int8.steady_golden(model, lambda crops: 0.9 * shipped.predict(crops) + 0.1 / 7, shipped.card.input.size)
    assert picky.seed != chosen.seed


def test_int8_that_never_passes_ends_in_fp16(
    checkpoint: Path, painted_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "int8", Limits(None, 1.1))
    monkeypatch.setattr(
        int8, "LADDER", (int8.LADDER[1], int8.Rung("least squares, 2 blocks in floating point", n_float=2))
    )
    seen: list[str] = []
    found = export_model(
        checkpoint,
        ExportConfig(precision="int8", calibration=64),
        out=tmp_path / "int8.onnx",
        data=painted_dataset,
        on_attempt=lambda attempt: seen.append(attempt.precision),
    )
    assert seen == ["int8", "int8", "fp16"]
    assert found.card.precision == "fp16"
    # Two blocks calculate in floating point, and the file stays as small: their weights are stored in 8 bits all the
    # same.
    first, second = found.attempts[:2]
    assert second.n_bytes < 1.02 * first.n_bytes
    assert second.parity.mean_diff < first.parity.mean_diff


def test_calibration_never_sees_an_evaluated_image(painted_dataset: Path, checkpoint: Path) -> None:
    card = TorchClassifier(checkpoint).card
    rows = open_dataset(painted_dataset).rows("train")
    stolen = frozenset(row.sha256 for row in rows[:20])
    crops, n_left_out = calibration_images(painted_dataset, card.input, 1000, stolen)
    assert (len(crops), n_left_out) == (len(rows) - 20, 20)
    with pytest.raises(DatasetError, match="too few to calibrate"):
        calibration_images(painted_dataset, card.input, 100, frozenset(row.sha256 for row in rows))
    assert set(load_sample(painted_dataset, "val", card.labels, 5).hashes) == {
        row.sha256 for row in open_dataset(painted_dataset).rows("val")
    }


def test_what_cannot_be_made_is_said_first(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="calibrated on the training images"):
        export_model(checkpoint, ExportConfig(precision="int8"))
    with pytest.raises(ConfigError, match="torchscript cannot be exported in int8") as error:
        export_model(checkpoint, ExportConfig(format="torchscript", precision="int8"))
    assert error.value.hint == "known for it: fp32"
    with pytest.raises(ConfigError, match="openvino cannot be exported in int8") as error:
        export_model(checkpoint, ExportConfig(format="openvino", precision="int8"))
    assert "--format onnx --precision int8, then --provider openvino" in str(error.value.hint)
    assert default_name(Path("a/best.pt"), ExportConfig(precision="int8")) == Path("a/best-int8.onnx")
    assert default_name(Path("a/best.pt"), ExportConfig(format="openvino", precision="fp16")) == Path(
        "a/best-openvino-fp16"
    )


@needs("openvino")
def test_openvino_runs_the_onnx_file_too_and_leaves_no_trace_at_home(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = paint_golden(12, 5, 32)
    classifier = Classifier(exported, provider="openvino")
    assert classifier.provider == "openvino"
    np.testing.assert_allclose(classifier.predict(crops), Classifier(exported).predict(crops), atol=1e-5)
    monkeypatch.setenv("HOME", str(tmp_path))
    first_contact(exported, "openvino")
    assert list(tmp_path.iterdir()) == []


@needs("openvino")
def test_the_card_is_inside_the_ir_as_well(checkpoint: Path, tmp_path: Path) -> None:
    found = export_model(checkpoint, ExportConfig(format="openvino", pictures=35), out=tmp_path / "ir")
    assert sorted(path.name for path in found.path.iterdir()) == ["model.bin", "model.json", "model.xml"]
    text = (found.path / "model.xml").read_text(encoding="utf-8")
    assert "deepfer" in text
    assert "apparent facial expressions" in text


def test_every_row_of_the_table_names_what_is_there() -> None:
    assert set(FORMATS) == {*get_args(ExportConfig.model_fields["format"].annotation), "pt"}
    for name, found in FORMATS.items():
        assert bool(found.writer) == bool(found.precisions) == (name != "pt")
        assert not found.writer or callable(resolve_name(found.writer))
        for library in found.libraries.values():
            assert {"run"} <= set(dir(resolve_name(library.backend)))


@pytest.mark.skipif(sys.platform == "win32", reason="needs no NVIDIA driver")
def test_an_engine_without_a_driver_is_one_clear_error(checkpoint: Path, tmp_path: Path) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    with pytest.raises(DeepferError, match="TensorRT needs an NVIDIA GPU"):
        export_model(checkpoint, ExportConfig(format="engine", pictures=35), out=tmp_path / "engine")
    assert list(tmp_path.iterdir()) == []
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"plan")
    attach(TorchClassifier(checkpoint).card, engine)
    with pytest.raises(DeepferError, match="TensorRT needs an NVIDIA GPU"):
        Classifier(engine, provider="tensorrt")
