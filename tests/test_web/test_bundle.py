"""The folder of the page that works in the browser: what is in it, and what is not."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from deepfer_yolo.config import FaceConfig
from deepfer_yolo.errors import ConfigError, DeepferError, MissingDependencyError, ModelError
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.golden import golden_inputs, make_golden
from deepfer_yolo.runtime.model_file import attach
from deepfer_yolo.web import bundle, runtime_files
from deepfer_yolo.web.bundle import web_detector, web_files, write_web
from deepfer_yolo.web.graph_bytes import with_free_sides, without_metadata

Deepfer = Callable[..., Any]


@pytest.fixture(autouse=True)
def browser_runtime() -> None:
    """These tests need onnxruntime-web's files."""
    if runtime_files.runtime_folder() is None:
        pytest.skip("no onnxruntime-web here; deepfer models pull onnxruntime-web")


def test_the_public_model_answers_alike_and_tells_nothing_of_its_training(tmp_path: Path) -> None:
    import onnxruntime

    written = write_web(Path("deepfer-xs"), tmp_path / "web")
    assert (written.model, written.detector) == ("deepfer-xs", None)
    model = onnx.load(tmp_path / "web" / "model.onnx")
    assert len(model.metadata_props) == 0
    card = json.loads((tmp_path / "web" / "model.json").read_text())
    classifier = Classifier("deepfer-xs")
    assert classifier.card.trained_hashes is not None
    assert card["labels"] == list(classifier.labels)
    told = (tmp_path / "web" / "model.json").read_text()
    assert "trained_hashes" not in told
    assert "sha256" not in told
    assert classifier.card.trained_on is not None
    assert classifier.card.trained_on.fingerprint not in told
    measured = json.loads(bytes(web_files(Path("deepfer-n"))["model.json"]))["metrics"]
    assert measured == {"val": Classifier("deepfer-n").card.metrics["val"]}
    assert card["model"]["bytes"] == (tmp_path / "web" / "model.onnx").stat().st_size
    assert (card["golden"]["tolerance"], card["golden"]["same_label"], card["detector"]) == (0.05, True, None)
    inputs = np.frombuffer((tmp_path / "web" / "golden.bin").read_bytes(), np.uint8).reshape(-1, 48, 48, 3)
    assert np.array_equal(inputs, golden_inputs(classifier.card))
    session = onnxruntime.InferenceSession(tmp_path / "web" / "model.onnx")
    assert np.array_equal(session.run(None, {"image": inputs})[0], classifier.predict(inputs))


def test_the_list_names_every_file_with_size_and_hash(tmp_path: Path) -> None:
    write_web(Path("deepfer-xs"), tmp_path / "web")
    listed = json.loads((tmp_path / "web" / "files.json").read_text())
    found = {path.relative_to(tmp_path / "web").as_posix() for path in (tmp_path / "web").rglob("*") if path.is_file()}
    assert {row["path"] for row in listed["files"]} == found - {"files.json", "sw.js"}
    for row in listed["files"]:
        content = (tmp_path / "web" / row["path"]).read_bytes()
        assert (row["bytes"], row["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert {"engine/index.js", "model.onnx", "licenses.txt", "onnxruntime/ort.wasm.min.js"} < found


def test_a_change_of_any_file_is_a_new_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page"
    page.mkdir()
    (page / "index.html").write_text("one")
    (page / "sw.js").write_text("self.x = BUNDLE;")
    monkeypatch.setattr(bundle, "PAGE", page)

    def version() -> tuple[str, bytes]:
        files = web_files(Path("deepfer-xs"))
        listed, worker = files["files.json"], files["sw.js"]
        assert isinstance(listed, bytes)
        assert isinstance(worker, bytes)
        return str(json.loads(listed)["version"]), worker

    first, worker = version()
    assert worker == b"const BUNDLE = " + bytes(web_files(Path("deepfer-xs"))["files.json"]).rstrip() + (
        b";\nself.x = BUNDLE;"
    )
    assert version()[0] == first
    (page / "index.html").write_text("two")
    second = version()[0]
    (page / "sw.js").write_text("self.y = BUNDLE;")
    assert len({first, second, version()[0]}) == 3


def test_a_folder_that_is_not_empty_stays(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "mine.txt").write_text("kept")
    with pytest.raises(DeepferError, match="not empty"):
        write_web(Path("deepfer-xs"), tmp_path / "web")
    assert [path.name for path in tmp_path.rglob("*")] == ["web", "mine.txt"]
    write_web(Path("deepfer-xs"), tmp_path / "web", overwrite=True)
    assert not (tmp_path / "web" / "mine.txt").exists()


def test_a_model_that_fails_its_golden_test_is_refused(
    tmp_path: Path, write_linear_model: Callable[..., Path], fitted_weights: tuple[NDArray[np.float32], ...]
) -> None:
    path = write_linear_model(tmp_path / "linear.onnx", *fitted_weights)
    with pytest.raises(ModelError, match="no golden part"):
        web_files(path)
    card = Classifier(path).card
    wrong = make_golden(lambda crops: Classifier(path).predict(crops[..., ::-1] // 2), card.input.size)
    attach(card.model_copy(update={"golden": wrong}), path)
    with pytest.raises(ModelError, match="fails its golden self-test"):
        web_files(path)


def test_a_fixed_batch_is_told(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    assert json.loads(bytes(web_files(exported)["model.json"]))["model"]["batch"] is None
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(model, tmp_path / "eight.onnx")
    attach(Classifier(exported).card, tmp_path / "eight.onnx")
    assert json.loads(bytes(web_files(tmp_path / "eight.onnx")["model.json"]))["model"]["batch"] == 8


def test_yunet_gets_free_sides_and_finds_the_same(yunet: Path) -> None:
    import onnxruntime

    content = bytes(with_free_sides(yunet.read_bytes()))
    onnx.checker.check_model(onnx.load_model_from_string(content), full_check=True)
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, 640, 640)).astype(np.float32)
    fixed, free = onnxruntime.InferenceSession(yunet), onnxruntime.InferenceSession(content)
    for one, two in zip(fixed.run(None, {"input": image}), free.run(None, {"input": image}), strict=True):
        assert np.array_equal(one, two)
    assert free.run(["cls_8"], {"input": image[:, :, :192, :320]})[0].shape == (1, 24 * 40, 1)
    assert "detector.onnx" in web_files(Path("deepfer-xs"), yunet)


@pytest.mark.parametrize("content", [b"", b"\xff", b"no model", bytes(range(256)), b"\x3a\x7f\x0a"])
def test_what_is_no_detector_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "detector.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"not a YuNet file"):
        web_files(Path("deepfer-xs"), tmp_path / "detector.onnx")


def test_removing_metadata_leaves_all_else(exported: Path) -> None:
    before, after = onnx.load(exported), onnx.load_model_from_string(bytes(without_metadata(exported.read_bytes())))
    assert len(before.metadata_props) > 0
    del before.metadata_props[:]
    assert before == after


def test_a_browser_finds_faces_by_yunet_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFER_HOME", str(tmp_path))
    monkeypatch.delenv("DEEPFER_FACE_MODEL", raising=False)
    assert web_detector(FaceConfig()) is None
    assert web_detector(FaceConfig(detector="whole", face_model=Path("any.onnx"))) is None
    with pytest.raises(ModelError, match="not here"):
        web_detector(FaceConfig(detector="yunet"))
    with pytest.raises(ConfigError, match="YuNet alone"):
        web_detector(FaceConfig(detector="haar"))
    (tmp_path / "mine.onnx").write_bytes(b"")
    assert web_detector(FaceConfig(face_model=tmp_path / "mine.onnx")) == tmp_path / "mine.onnx"


def test_the_command_writes_it_and_says_how_to_try_it(deepfer: Deepfer, tmp_path: Path) -> None:
    done = deepfer("export", "deepfer-xs", "--web", "web", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["path"], told["model"]) == ("web", "deepfer-xs")
    assert told["n_bytes"] == sum(path.stat().st_size for path in (tmp_path / "web").rglob("*") if path.is_file())
    again = deepfer("export", "deepfer-xs", "--web", "web")
    assert (again.returncode, "not empty" in again.stderr) == (1, True)
    assert "http.server" in deepfer("export", "deepfer-xs", "--web", "web", "--overwrite").stdout
    for more in (("--opset", 18), ("--out", "x.onnx"), ("--format", "ncnn")):
        done = deepfer("export", "deepfer-xs", "--web", "other", *more)
        assert (done.returncode, "exported already" in done.stderr) == (1, True), more
    done = deepfer("export", "deepfer-n.pt", "--web", "other")
    assert (done.returncode, "a browser runs ONNX files" in done.stderr) == (1, True)
    assert not (tmp_path / "other").exists()


def test_without_the_runtime_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_files, "PACKAGED", tmp_path / "none")
    monkeypatch.setenv("DEEPFER_HOME", str(tmp_path))
    with pytest.raises(MissingDependencyError) as caught:
        web_files(Path("deepfer-xs"))
    assert caught.value.hint == "deepfer models pull onnxruntime-web"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="npm"):
        runtime_files.pull_runtime(tmp_path / "new")


def test_another_archive_than_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_files: Callable[[Path], str]
) -> None:
    (tmp_path / "package.tgz").write_bytes(b"something else")
    with pytest.raises(ModelError, match="SHA-512"):
        runtime_files.pull_runtime(tmp_path / "new", url=start_files(tmp_path) + "package.tgz")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ModelError, match="http or https"):
        runtime_files.pull_runtime(tmp_path / "new", url="file:///etc/hostname")


def test_the_files_of_the_pinned_archive_are_kept_under_names_that_hosts_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_files: Callable[[Path], str]
) -> None:
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as packed:
        for member in (*runtime_files.FILES, "ort.min.mjs"):
            content = tarfile.TarInfo(f"package/dist/{member}")
            content.size = len(member)
            packed.addfile(content, io.BytesIO(member.encode()))
    digest = hashlib.sha512((tmp_path / "package.tgz").read_bytes()).digest()
    monkeypatch.setattr(runtime_files, "INTEGRITY", base64.b64encode(digest).decode())
    folder = runtime_files.pull_runtime(tmp_path / "new", url=start_files(tmp_path) + "package.tgz")
    assert {path.name for path in folder.iterdir()} == set(runtime_files.FILES.values())
    assert gzip.decompress((folder / runtime_files.WASM).read_bytes()) == b"ort-wasm-simd-threaded.wasm"
    assert (folder / "ort.wasm.min.js").read_bytes() == b"ort.wasm.min.mjs"
    assert runtime_files.pull_runtime(folder, url="http://127.0.0.1:9/none.tgz") == folder
