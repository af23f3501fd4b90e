"""The base install as a program: what only extras bring is hidden from it and from all processes that it starts."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from typer.testing import CliRunner

from deepfer_yolo.cli.app import app
from deepfer_yolo.errors import install_line
from deepfer_yolo.painted import paint_faces
from deepfer_yolo.runtime.model_file import SHIPPED

MODELS = sorted(path.stem for path in SHIPPED.glob("*.onnx"))
Bare = Callable[..., subprocess.CompletedProcess[str]]
Hiding = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, hiding: Hiding, painted_dataset: Path) -> Bare:
    """A function that runs `deepfer` on its words in a folder with eight faces, `faces/0.png` and so on, the same in
    `classes/happy` and `classes/sad`, a data set, `data`, and somebody's `foreign.onnx`.
    """
    folder = tmp_path_factory.mktemp("bare")
    environment = hiding(folder)
    (folder / "faces").mkdir()
    for i, face in enumerate(paint_faces(3, 8)[0]):
        Image.fromarray(face).save(folder / "faces" / f"{i}.png")
    for label in ("happy", "sad"):
        shutil.copytree(folder / "faces", folder / "classes" / label)
    (folder / "data").symlink_to(painted_dataset)
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32])
    probs = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Softmax", ["mean"], ["y"], axis=1),
    ]
    graph = helper.make_graph(nodes, "foreign", [image], [probs])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), str(folder / "foreign.onnx"))

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "deepfer_yolo", *map(str, words)]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    return run


def test_the_hidden_are_hidden(hiding: Hiding, tmp_path: Path) -> None:
    code = "import importlib.util as u; print([n for n in ('cv2', 'av', 'onnx', 'lap', 'torch') if u.find_spec(n)])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=hiding(tmp_path), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_crops_get_the_same_answers_to_the_digit(bare: Bare, tmp_path: Path) -> None:
    done = bare("predict", "faces", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    for i, face in enumerate(paint_faces(3, 8)[0]):
        Image.fromarray(face).save(tmp_path / f"{i}.png")
    here = CliRunner().invoke(app, ["predict", str(tmp_path), "--json"])
    rows, wanted = ([json.loads(line) for line in text.splitlines()] for text in (done.stdout, here.stdout))
    assert len(rows) == 8
    assert [row["probs"] for row in rows] == [row["probs"] for row in wanted]


@pytest.mark.parametrize("name", MODELS)
def test_each_shipped_model_verifies(bare: Bare, name: str) -> None:
    done = bare("verify", name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("verified: ")


def test_models_are_measured(bare: Bare) -> None:
    done = bare("benchmark", "deepfer-xs", "--rounds", "1", "--calls", "1", "--batch", "1")
    assert done.returncode == 0, done.stderr
    assert "images/s" in done.stdout


@pytest.mark.parametrize(
    ("words", "module", "extra"),
    [
        (("predict", "faces", "--faces"), "cv2", "live"),
        (("stream", "clip.mp4"), "cv2", "live"),
        (("card", "foreign.onnx", "--labels", "a,b,c", "--mean", "0", "--std", "1"), "onnx", "onnx"),
        (("audit", "data"), "cv2", "eval"),
        (("convert", "classes", "out"), "cv2", "eval"),
        (("review", "data"), "cv2", "eval,serve"),
        (("evaluate", "data", "--split", "val"), "scipy", "eval"),
        (("gate", "data", "-m", "deepfer-xs", "--champion", "deepfer-n"), "scipy", "eval"),
        (("compare", "deepfer-xs", "deepfer-n", "--data", "data"), "scipy", "eval"),
        (("serve",), "", "serve"),
        (("train", "data"), "", "train"),
        (("export", "deepfer-n"), "", "train"),
        (("tune", "data"), "", "train"),
        (("demo",), "ultralytics", "train"),
    ],
    ids=lambda part: part[0] if isinstance(part, tuple) else None,
)
def test_what_needs_an_extra_says_which_in_one_line(
    bare: Bare, words: tuple[str, ...], module: str, extra: str
) -> None:
    done = bare(*words)
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()[-2:]
    assert f"error: this needs the Python module '{module}" in error
    assert hint.startswith(f"hint: {install_line(extra)}")
    assert "Traceback" not in done.stderr


def test_convert_refuses_a_val_that_it_cannot_take_before_it_reads_images(bare: Bare, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for label in ("happy", "sad"):
            (tmp_path / "source" / split / label).mkdir(parents=True)
            for i, face in enumerate(paint_faces(3 + (label == "sad"), 8)[0]):
                Image.fromarray(face).save(tmp_path / "source" / split / label / f"{i}.png")
    done = bare("convert", tmp_path / "source", tmp_path / "both")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "source" / "val")
    for flags in (("--val", "0"), ("--no-near",), ("--group-by", "none")):
        done = bare("convert", tmp_path / "source", tmp_path / flags[0], *flags)
        assert done.returncode == 0, done.stderr
    (tmp_path / "source" / "train" / "sad" / "0.png").write_bytes(b"no image")
    done = bare("convert", tmp_path / "source", tmp_path / "out")
    assert (done.returncode, (tmp_path / "out").exists()) == (1, False)
    assert "error: this needs the Python module 'cv2'" in done.stderr
    assert f"hint: {install_line('eval')}" in done.stderr


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, hiding: Hiding, start_process: Callable[..., Any]
) -> tuple[str, str]:
    """A server of an install with [serve] and no [live]: its address, and what it said at its start."""
    folder = tmp_path_factory.mktemp("served")
    words = ("serve", "--port", "0", "-m", "deepfer-xs")
    served = start_process(folder, *words, environment=hiding(folder, "serve"))
    return served.url, served.log.read_text()


def test_serve_without_live_labels_images_that_are_faces(server: tuple[str, str]) -> None:
    url, said = server
    assert "note: images that are faces already are labelled, and nothing else" in said
    assert f"hint: {install_line('live')}" in said
    content = io.BytesIO()
    Image.fromarray(paint_faces(3, 1)[0][0]).save(content, "PNG")
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/v1/model").json()["has_live"] is False
        answer = client.post("/v1/predict", files={"files": ("a.png", content.getvalue())})
        assert answer.status_code == 200, answer.text
        (face,) = answer.json()["pictures"][0]["faces"]
        assert abs(sum(face["probs"].values()) - 1) < 1e-4
        refused = client.post("/v1/predict?faces=true", files={"files": ("a.png", content.getvalue())})
        assert (refused.status_code, refused.json()["detail"]) == (
            501,
            "finding faces needs the extra [live], which this server was installed without",
        )
        refused = client.post("/v1/video", files={"files": ("a.mp4", b"\0\0\0\x20ftypisom")})
        assert (refused.status_code, "labelling videos" in refused.text) == (501, True)


def test_serve_without_live_refuses_sources_and_detectors(hiding: Hiding, tmp_path: Path) -> None:
    environment = hiding(tmp_path, "serve")
    for flags in (("--source", "0"), ("--detector", "haar")):
        command = [sys.executable, "-m", "deepfer_yolo", "serve", "--port", "0", *flags]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 1
        assert f"hint: {install_line('live')}" in done.stderr
