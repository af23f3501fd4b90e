"""Many pictures: order, errors in their place, batches that do not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepfer_yolo.errors import SourceError
from deepfer_yolo.painted import paint_faces
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.stream.batch import find_pictures, predict_pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven pictures in two levels, one of them broken, and a file that is none."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "inner").mkdir()
    for i, face in enumerate(paint_faces(3, 10)[0]):
        Image.fromarray(face).save(root / ("inner" if i % 2 else ".") / f"{i}.png")
    (root / "broken.jpg").write_text("no picture")
    (root / "notes.txt").write_text("nothing")
    return root


def test_folders_patterns_and_files(folder: Path) -> None:
    names = [path.name for path in find_pictures([str(folder)])]
    assert names == [
        "0.png",
        "2.png",
        "4.png",
        "6.png",
        "8.png",
        "broken.jpg",
        "1.png",
        "3.png",
        "5.png",
        "7.png",
        "9.png",
    ]
    assert [p.name for p in find_pictures([str(folder / "inner" / "[37].png"), str(folder / "0.png")])] == [
        "3.png",
        "7.png",
        "0.png",
    ]
    assert len(find_pictures([str(folder / "**" / "*.png")])) == 10
    # A file that was named is never dropped: its error belongs into its row.
    assert find_pictures([str(folder / "missing.png")]) == [folder / "missing.png"]


@pytest.mark.parametrize("source", ["empty", "*.gif"])
def test_nothing_to_do_is_an_error(source: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no pictures in"):
        find_pictures([str(tmp_path / source)])


@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (3, 2), (64, 4)])
def test_rows_come_in_order_whatever_the_batch(batch: int, workers: int, folder: Path, linear_model: Path) -> None:
    classifier = Classifier(linear_model)
    paths = find_pictures([str(folder)])
    rows = list(predict_pictures(paths, classifier, batch=batch, workers=workers))
    assert [row.path for row in rows] == paths
    assert [row.path.name for row in rows if row.error is not None] == ["broken.jpg"]
    for row in rows:
        if row.prediction is not None:
            image = np.repeat(np.asarray(Image.open(row.path))[:, :, None], 3, axis=2)
            np.testing.assert_allclose(row.prediction.probs, classifier.predict_images([image])[0], atol=1e-6)


def test_a_batch_of_nothing_but_errors(linear_model: Path, tmp_path: Path) -> None:
    rows = list(predict_pictures([tmp_path / "a.png", tmp_path], Classifier(linear_model)))
    assert [row.error for row in rows] == ["no such file or folder", "this is a folder, not a file"]
