"""Running a model: the same numbers as a bare session, any batch, and no silent fallback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from deepfer_yolo.errors import MissingDependencyError, ModelError
from deepfer_yolo.painted import paint_golden
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import attach


def test_predict_is_the_bare_session(exported: Path) -> None:
    crops = paint_golden(1, 5, 32)
    bare = ort.InferenceSession(str(exported)).run(None, {"image": crops})[0]
    classifier = Classifier(exported)
    np.testing.assert_allclose(classifier.predict(crops), bare, atol=1e-6)
    assert classifier.predict(crops).dtype == np.float32
    assert classifier.predict(crops[:0]).shape == (0, 7)
    assert classifier.provider == "cpu"


@pytest.mark.parametrize(
    "crops", [np.zeros((2, 32, 32, 3), np.float32), np.zeros((32, 32, 3), np.uint8), np.zeros((1, 3, 32, 32), np.uint8)]
)
def test_other_arrays_are_refused(crops: np.ndarray, exported: Path) -> None:
    with pytest.raises(ValueError, match=r"crops must be uint8 \(n, 32, 32, 3\)"):
        Classifier(exported).predict(crops)


def test_a_fixed_batch_answers_any_number(linear_model: Path, tmp_path: Path) -> None:
    model = onnx.load(str(linear_model))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    path = tmp_path / "fixed.onnx"
    path.write_bytes(model.SerializeToString())
    attach(Classifier(linear_model).card, path)
    fixed, dynamic = Classifier(path), Classifier(linear_model)
    for n in (1, 3, 4, 5, 9):
        crops = paint_golden(2, n, 24)
        np.testing.assert_allclose(fixed.predict(crops), dynamic.predict(crops), atol=1e-6)


def test_providers_are_never_guessed(linear_model: Path) -> None:
    with pytest.raises(ModelError, match="cannot run on the provider 'gpu'"):
        Classifier(linear_model, provider="gpu")
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(MissingDependencyError, match="no provider 'cuda'"):
        Classifier(linear_model, provider="cuda")


def test_images_of_any_size(linear_model: Path) -> None:
    classifier = Classifier(linear_model)
    images = [np.full((h, w, 3), 90, np.uint8) for h, w in ((24, 24), (7, 100), (300, 200))]
    probs = classifier.predict_images(images)
    assert probs.shape == (3, len(classifier.labels))
    # One flat grey is the same input whatever its size was.
    np.testing.assert_allclose(probs[0], probs[2], atol=1e-6)


def test_the_run_time_never_loads_torch(linear_model: Path) -> None:
    code = (
        "import sys; from deepfer_yolo import Classifier; from deepfer_yolo.painted import paint_golden;"
        f"print(Classifier({str(linear_model)!r}).predict(paint_golden(0, 2, 24)).shape);"
        "print([n for n in ('torch', 'torchvision', 'ultralytics', 'cv2', 'scipy', 'sklearn') if n in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert shown[:2] == ["(2, 7)", "[]"]
