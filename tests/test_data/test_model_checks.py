"""The audit's checks with a model, a face detector and another data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deepfer_yolo.config import AuditConfig, FaceConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.audit.inspection import inspect
from deepfer_yolo.data.audit.model_checks import FaceCheck, drift
from deepfer_yolo.data.audit.report import write_page
from deepfer_yolo.data.leaks import image_hash
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.faces.detect import open_detector
from deepfer_yolo.runtime.card import Card, InputSpec, pack_hashes

CONFIG = AuditConfig(min_per_class=1, near_correlation=0.98)


class Oracle:
    """A classifier that knows the true label of every image by its bytes."""

    def __init__(self, truth: dict[bytes, str], labels: tuple[str, ...] = EMOTIONS) -> None:
        self.truth, self.labels = truth, labels
        self.card = Card(name="oracle", labels=labels, input=InputSpec(size=48, colour="rgb"))

    def predict(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        probs = np.full((len(crops), len(self.labels)), 0.02, np.float32)
        for row, crop in zip(probs, crops, strict=True):
            row[self.labels.index(self.truth[crop[:, :, 0].tobytes()])] = 0.88
        return probs


def test_wrong_labels_are_ranked_by_confident_learning(painted_csv: Path, tmp_path: Path) -> None:
    lines = painted_csv.read_text().splitlines()
    truth = {}
    for line in lines[1:]:
        code, pixels, _ = line.split(",")
        truth[bytes(map(int, pixels.split()))] = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")[
            int(code)
        ]
    wrong = [10, 60, 110]
    for index in wrong:
        code, rest = lines[index + 1].split(",", 1)
        lines[index + 1] = f"{(int(code) + 1) % 7},{rest}"
    source = tmp_path / "wrong.csv"
    source.write_text("\n".join(lines) + "\n")
    result = audit(source, CONFIG, classifier=Oracle(truth))  # type: ignore[arg-type]
    finding = next(finding for finding in result.findings if finding.kind == "label-error")
    assert {group[0] for group in finding.groups} == {str(index) for index in wrong}
    assert "its label 0.02" in finding.notes[0]
    assert "a model may have learned wrong labels with the images" in finding.message


def test_how_many_of_the_images_a_model_has_learned_is_said(painted_csv: Path) -> None:
    lines = painted_csv.read_text().splitlines()[1:]
    pixels = [np.array(line.split(",")[1].split(), np.uint8).reshape(48, 48) for line in lines]
    labels = {image.key: image.label for image in inspect(painted_csv).images}
    truth = {image.tobytes(): label for image, label in zip(pixels, labels.values(), strict=True)}
    truth[pixels[0].tobytes()] = next(label for label in EMOTIONS if label != labels["0"])
    for learned, said in (
        (pixels[:50], f"has learned 50 of the {len(lines)} images, perhaps"),
        ([], "likeliest first"),
    ):
        model = Oracle(truth)
        hashes = np.array([image_hash(image) for image in learned], np.uint64)
        model.card = model.card.model_copy(update={"trained_hashes": pack_hashes(hashes)})
        result = audit(painted_csv, CONFIG, classifier=model)  # type: ignore[arg-type]
        (finding,) = (finding for finding in result.findings if finding.kind == "label-error")
        assert said in finding.message
        assert ("--predictions" in finding.message) == bool(learned)


def test_few_classes_and_few_images(painted_csv: Path, tmp_path: Path) -> None:
    lines = painted_csv.read_text().splitlines()
    truth = {bytes(map(int, line.split(",")[1].split())): "happy" for line in lines[1:]}
    (tmp_path / "two.csv").write_text(
        "\n".join([lines[0], *(line for line in lines[1:] if line[0] in "34")][:8]) + "\n"
    )
    audit(tmp_path / "two.csv", CONFIG, classifier=Oracle(truth))  # type: ignore[arg-type]
    (tmp_path / "one.csv").write_text("\n".join([lines[0], *(line for line in lines[1:] if line[0] == "3")]) + "\n")
    with pytest.raises(DatasetError, match="all images bear one"):
        audit(tmp_path / "one.csv", CONFIG, classifier=Oracle(truth))  # type: ignore[arg-type]


def test_faces_are_looked_for(painted_csv: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.csv"
    few.write_text("\n".join(painted_csv.read_text().splitlines()[:15]) + "\n")
    result = audit(few, CONFIG, detector=open_detector(FaceConfig(detector="whole"), "image"))
    assert not any(finding.kind.startswith("face") for finding in result.findings)
    result = audit(few, CONFIG, detector=open_detector(FaceConfig(detector="haar"), "image"))
    finding = next(finding for finding in result.findings if finding.kind == "face-none")
    assert 0 < finding.count <= 14
    assert finding.message == "no face found by haar"


def test_drift_of_light_and_classes(painted_csv: Path, tmp_path: Path) -> None:
    lines = painted_csv.read_text().splitlines()
    darker = [lines[0]]
    for line in lines[1:]:
        code, pixels, usage = line.split(",")
        if code != "3":
            darker.append(f"{code},{' '.join(str(int(value) // 3) for value in pixels.split())},{usage}")
    (tmp_path / "dark.csv").write_text("\n".join(darker) + "\n")
    seen = inspect(painted_csv)
    assert {finding.severity for finding in drift(seen, seen, CONFIG)} == {"note"}
    found = {finding.kind: finding for finding in drift(seen, inspect(tmp_path / "dark.csv"), CONFIG)}
    assert found["drift-brightness"].severity == "warning"
    assert found["drift-classes"].severity == "warning"
    assert "most in happy: 14.3 % here, 0.0 % there" in found["drift-classes"].message


def test_the_page_shows_the_images(painted_csv: Path, tmp_path: Path) -> None:
    lines = painted_csv.read_text().splitlines()
    (tmp_path / "copies.csv").write_text("\n".join([*lines, lines[1], lines[1]]) + "\n")
    result = audit(tmp_path / "copies.csv", CONFIG)
    html = write_page(result, "deepfer audit copies.csv", tmp_path / "page.html").read_text()
    assert "duplicate: 2" in html
    assert html.count("data:image/png") == 3
    assert "deepfer audit copies.csv" in html


def test_severities_and_allowances(painted_csv: Path, tmp_path: Path) -> None:
    lines = painted_csv.read_text().splitlines()
    (tmp_path / "copies.csv").write_text("\n".join([*lines, lines[1]]) + "\n")
    strict = CONFIG.model_copy(update={"severity": {"duplicate": "error"}})
    assert not audit(tmp_path / "copies.csv", strict).passed
    assert audit(tmp_path / "copies.csv", strict.model_copy(update={"allow": {"duplicate": 0.01}})).passed


def test_images_of_any_shape_are_looked_at_and_do_not_wait_in_memory() -> None:
    check = FaceCheck(open_detector(FaceConfig(), "image"))
    for shape in ((8, 65500), (900, 1500), (1, 1), (48, 48)):
        assert check.prepare(np.zeros(shape, np.uint8)) == (0, 0.0)


def test_a_data_set_without_a_readable_image_cannot_be_compared_with(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "bad" / "happy").mkdir(parents=True)
    (tmp_path / "bad" / "happy" / "a.png").write_text("no")
    with pytest.raises(DatasetError, match="no image of bad can be read"):
        audit(tree, AuditConfig(), against=tmp_path / "bad")
