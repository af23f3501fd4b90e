"""Many images, with or without faces to find: order, errors in their place, batches that do not matter."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepfer_yolo.config import PredictConfig
from deepfer_yolo.errors import SourceError
from deepfer_yolo.painted import paint_faces, paint_frames
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.stream.batch import find_images, label_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven images in two levels, one of them broken, and a file that is none."""
    root = tmp_path_factory.mktemp("images")
    (root / "inner").mkdir()
    for i, face in enumerate(paint_faces(3, 10)[0]):
        Image.fromarray(face).save(root / ("inner" if i % 2 else ".") / f"{i}.png")
    (root / "broken.jpg").write_text("no image")
    (root / "notes.txt").write_text("nothing")
    return root


def test_a_folder_is_listed_while_its_images_are_fetched(folder: Path) -> None:
    found = find_images([str(folder)])
    assert next(found).name == "0.png"
    Image.fromarray(paint_faces(3, 1)[0][0]).save(folder / "inner" / "99.png")
    assert "99.png" in {path.name for path in found}
    (folder / "inner" / "99.png").unlink()


def test_folders_patterns_and_files(folder: Path) -> None:
    names = [path.name for path in find_images([str(folder)])]
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
    assert [p.name for p in find_images([str(folder / "inner" / "[37].png"), str(folder / "0.png")])] == [
        "3.png",
        "7.png",
        "0.png",
    ]
    assert len(list(find_images([str(folder / "**" / "*.png")]))) == 10
    # A file that was named is never dropped: its error belongs into its row.
    assert list(find_images([str(folder / "missing.png")])) == [folder / "missing.png"]


@pytest.mark.parametrize("source", ["empty", "*.gif"])
def test_nothing_to_do_is_an_error(source: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no images in"):
        find_images([str(tmp_path / source)])


@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (3, 2), (64, 4)])
def test_rows_come_in_order_whatever_the_batch(batch: int, workers: int, folder: Path, linear_model: Path) -> None:
    classifier = Classifier(linear_model)
    paths = list(find_images([str(folder)]))
    rows = list(label_images(paths, classifier, PredictConfig(batch=batch, workers=workers)))
    assert [row.path for row in rows] == paths
    assert [row.path.name for row in rows if row.error is not None] == ["broken.jpg"]
    for row in rows:
        if row.prediction is not None:
            image = np.repeat(np.asarray(Image.open(row.path))[:, :, None], 3, axis=2)
            np.testing.assert_allclose(row.prediction.probs, classifier.predict_images([image])[0], atol=1e-6)


def test_a_batch_of_nothing_but_errors(linear_model: Path, tmp_path: Path) -> None:
    rows = list(label_images([tmp_path / "a.png", tmp_path], Classifier(linear_model), PredictConfig()))
    assert [row.error for row in rows] == ["no such file or folder", "this is a folder, not a file"]


def test_images_without_faces_and_broken_ones_have_their_rows(tmp_path: Path, model: Classifier) -> None:
    Image.fromarray(np.full((200, 300, 3), 90, np.uint8)).save(tmp_path / "flat.png")
    (tmp_path / "broken.png").write_bytes(b"x")
    paths = [tmp_path / name for name in ("flat.png", "broken.png", "missing.png")]
    rows = list(label_images(paths, model, PredictConfig(faces=True, detector="haar")))
    assert [(row.path, row.prediction, row.face) for row in rows] == [(path, None, None) for path in paths]
    assert [row.error is None for row in rows] == [True, False, False]
    assert next(label_images(paths[:1], model, PredictConfig())).prediction is not None


def test_the_command_finds_faces_without_torch(shared_dir: Path, model_file: Path) -> None:
    photo = shared_dir / "media" / "zidane.jpg"
    if not photo.is_file():
        pytest.skip("no example photo")
    code = "import sys; from deepfer_yolo.cli.app import app; app(sys.argv[1:], standalone_mode=False)\n"
    code += "assert 'torch' not in sys.modules"
    face_model = shared_dir / "models" / "face_detection_yunet_2023mar.onnx"
    words = ["predict", str(photo), "-m", str(model_file), "--faces", "--face-model", str(face_model), "--json"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 2
    assert all(row["score"] > 0.8 and sum(row["probs"].values()) == pytest.approx(1, abs=1e-3) for row in rows)
    assert all(row["size_px"] > 100 and row["reason"] is None and row["label"] in row["probs"] for row in rows)


def test_a_face_that_is_seen_too_badly_is_uncertain_and_keeps_its_probabilities(
    tmp_path: Path, linear_model: Path
) -> None:
    photo = np.full((240, 320, 3), (90, 110, 130), np.uint8)
    photo[40:200, 80:240] = next(iter(paint_frames(13, ("happy",), 1, 160)))
    Image.fromarray(photo).save(tmp_path / "one.png")
    classifier, path = Classifier(linear_model), tmp_path / "one.png"
    seen, small = (
        list(label_images([path], classifier, PredictConfig(faces=True, detector="haar", min_face_px=least)))
        for least in (0, 10_000)
    )
    assert len(seen) == len(small) > 0
    for one, other in zip(seen, small, strict=True):
        assert one.prediction is not None
        assert other.prediction is not None
        assert (one.label, one.lack) == (one.prediction.label, None)
        assert (other.label, other.lack) == ("uncertain", "small")
        assert np.array_equal(one.prediction.probs, other.prediction.probs)
        assert {"reason", "size_px", "sharpness"} <= set(other.to_json())


def test_images_in_parquet_files_are_rows_of_them(tmp_path: Path, linear_model: Path) -> None:
    """As Hugging Face writes them: in any order of rows, row groups smaller than a batch, beside image files."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    contents = []
    for i, face in enumerate(paint_faces(5, 30)[0]):
        Image.fromarray(face).save(tmp_path / f"{i}.png")
        contents.append((tmp_path / f"{i}.png").read_bytes())
    contents[7] = b"no image"
    rows = [{"bytes": content, "path": "x.png"} for content in contents] + [{"bytes": None, "path": "elsewhere.png"}]
    for name, part in (("a", rows[:20]), ("b", rows[20:])):
        pq.write_table(
            pa.table({"image": part, "label": range(len(part))}), folder / f"data/{name}.parquet", row_group_size=9
        )
    pq.write_table(pa.table({"index": [1, 2]}), folder / "numbers.parquet")
    (folder / "broken.parquet").write_bytes(b"PAR1")
    left_out: Counter[str] = Counter()
    paths = list(find_images([str(folder)], left_out))
    assert left_out.total() == 1
    assert [path.name for path in paths[:4]] == ["broken.parquet", "a.parquet#0", "a.parquet#1", "a.parquet#2"]
    model = Classifier(linear_model)
    found = list(label_images(paths, model, PredictConfig(batch=4)))
    assert [row.path.name for row in found if row.error] == ["broken.parquet", "a.parquet#7", "b.parquet#10"]
    plain = list(label_images([tmp_path / f"{i}.png" for i in range(30)], model, PredictConfig()))
    for k in (0, 8, 19, 20, 29):
        one, two = found[k + 1].prediction, plain[k].prediction
        assert one is not None
        assert two is not None
        np.testing.assert_array_equal(one.probs, two.probs)
    backwards = list(label_images(paths[:0:-1], model, PredictConfig(workers=1)))
    assert [row.label for row in backwards] == [row.label for row in found[:0:-1]]
    assert len(list(find_images([str(folder / "data" / "*.parquet")]))) == 31
    assert len(list(find_images([str(folder / "data" / "b.parquet")]))) == 11
