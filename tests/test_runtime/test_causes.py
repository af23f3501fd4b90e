"""The cause of a failure is named: models, programs and run-times broken in one way each, and one in no known way."""

from __future__ import annotations

import base64
import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image as PillowImage

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.painted import paint_faces
from deepfer_yolo.records import Image, Probs
from deepfer_yolo.runtime.card import Card, Golden, InputSpec
from deepfer_yolo.runtime.causes import graph_answers
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.golden import golden_inputs, make_golden
from deepfer_yolo.runtime.model_file import attach
from deepfer_yolo.runtime.onnx_graph import open_graph
from deepfer_yolo.runtime.protobuf import parse

SIDE, LARGE = 48, 120
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EMULATOR = os.environ.get("DEEPFER_QEMU") or shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
Draw = Callable[[Path], Image]


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def write_net(path: Path, *, side: int = SIDE, flip: bool = False, antialias: int | None = None) -> Path:
    """A net that looks at single pixels and at colour: of images of `side`, shrunk inside to SIDE where that is less
    (`antialias` 0 or 1), with its channels the other way round where `flip`.
    """
    random = np.random.default_rng(4)
    weights = random.normal(0, 0.004, (3 * SIDE * SIDE, 7)).astype(np.float32)
    stored = {"weights": weights, "order": np.array([2, 1, 0]), "sizes": np.array([-1, 3, SIDE, SIDE])}
    nodes = [helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT)]
    last = "float"
    if flip:
        nodes.append(helper.make_node("Gather", [last, "order"], ["flipped"], axis=3))
        last = "flipped"
    nodes.append(helper.make_node("Transpose", [last], ["planes"], perm=[0, 3, 1, 2]))
    if antialias is not None:
        stored["scales"] = np.array([1, 1, SIDE / side, SIDE / side], np.float32)
        shrink = {"mode": "linear", "antialias": antialias, "exclude_outside": antialias}
        nodes.append(helper.make_node("Resize", ["planes", "", "scales"], ["small"], **shrink))
    nodes += [
        helper.make_node("Flatten", ["small" if antialias is not None else "planes"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probs"], axis=1),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", side, side, 3])
    probs = helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["n", 7])
    graph = helper.make_graph(nodes, "net", [image], [probs], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    return write_card(model, Card(name="net", labels=EMOTIONS, input=InputSpec(size=side, colour="rgb")), path)


def write_card(model: onnx.ModelProto, card: Card, path: Path, golden: Golden | None = None) -> Path:
    """The file with its card; golden answers are its own unless others are given."""
    path.write_bytes(model.SerializeToString())
    attach(card, path)
    made = golden or make_golden(Classifier(path).predict, card.input.size)
    attach(card.model_copy(update={"golden": made}), path)
    return path


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 28 coloured faces of 120 px with fine detail."""
    root, random = tmp_path_factory.mktemp("colours"), np.random.default_rng(2)
    faces, labels = paint_faces(3, 28, LARGE)
    for i, (face, label) in enumerate(zip(faces, labels, strict=True)):
        tinted = face[..., None] * random.uniform(0.3, 1, 3) + random.normal(0, 25, (LARGE, LARGE, 3))
        folder = root / "tree" / "val" / EMOTIONS[label]
        folder.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(np.clip(tinted, 0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    convert(root / "tree", root / "made", ConvertConfig())
    return root / "made"


def write_answers(path: Path, dataset: Path, answers: Callable[[Path], Probs]) -> Path:
    """What a program answers to each image, as a csv."""
    opened = open_dataset(dataset)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", *(f"prob_{label}" for label in EMOTIONS)])
        for row in opened.rows("val"):
            rows.writerow([row.path, *(f"{p:.8f}" for p in answers(opened.path(row)))])
    return path


def by(model: Path, draw: Draw) -> Callable[[Path], Probs]:
    """A program that prepares an image by `draw` and runs the model on it."""
    classifier = Classifier(model)
    return lambda path: classifier.predict(draw(path)[None])[0]


def cause_of(done: Any) -> dict[str, Any] | None:
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown["cause"]


def test_a_file_that_takes_blue_first_is_named(deepfer, tmp_path: Path, colours: Path) -> None:  # type: ignore[no-untyped-def]
    good = write_net(tmp_path / "good.onnx")
    card = open_graph(good)[1]
    turned = write_net(tmp_path / "turned.onnx", flip=True)
    write_card(onnx.load(turned), card.model_copy(update={"golden": None}), turned, card.golden)
    done = deepfer("verify", turned)
    assert done.returncode == 3
    assert "cause: turned.onnx takes blue, green, red" in done.stdout
    assert "becomes 0.0e+00" in done.stdout or "e-0" in done.stdout
    assert (found := cause_of(deepfer("verify", turned, "--json"))) is not None
    assert found["kind"] == "channels"
    assert found["after"] < 1e-6 < found["before"]
    done = deepfer("parity", good, turned, "--data", colours)
    assert done.returncode == 3
    assert "  cause: turned.onnx takes blue, green, red" in done.stdout
    assert "  hint: export it again" in done.stdout


def test_a_resize_without_antialias_inside_is_named(deepfer, tmp_path: Path, colours: Path) -> None:  # type: ignore[no-untyped-def]
    good = write_net(tmp_path / "good.onnx", side=LARGE, antialias=1)
    plain = write_net(tmp_path / "plain.onnx", side=LARGE, antialias=0)
    done = deepfer("parity", good, plain, "--data", colours)
    assert done.returncode == 3
    assert "cause: plain.onnx shrinks images in its graph without antialias" in done.stdout
    assert "antialias=1, exclude_outside=1" in done.stdout


@needs("openvino")
def test_a_run_time_that_ignores_antialias_is_named(deepfer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    good = write_net(tmp_path / "good.onnx", side=LARGE, antialias=1)
    assert deepfer("verify", good).returncode == 0
    done = deepfer("verify", good, "--provider", "openvino")
    assert done.returncode == 3
    assert "cause: good.onnx shrinks images in its graph, and openvino ignores the antialias" in done.stdout
    assert "hint: run it with --provider cpu" in done.stdout


def _read(path: Path) -> Image:
    return np.asarray(PillowImage.open(path).convert("RGB"))


def _bgr(path: Path) -> Image:
    image = PillowImage.fromarray(cv2.imread(str(path)))
    return np.asarray(image.resize((SIDE, SIDE), PillowImage.Resampling.BILINEAR))


def _opencv(path: Path) -> Image:
    return cv2.resize(_read(path), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize(
    ("kind", "draw", "hint"), [("channels", _bgr, "cv2.COLOR_BGR2RGB"), ("antialias", _opencv, "BILINEAR")]
)
def test_what_a_program_does_to_images_is_named(
    kind: str, draw: Draw, hint: str, deepfer, tmp_path: Path, colours: Path
) -> None:  # type: ignore[no-untyped-def]
    model = write_net(tmp_path / "net.onnx")
    sheet = write_answers(tmp_path / "app.csv", colours, by(model, draw))
    done = deepfer("parity", model, sheet, "--data", colours, "--json")
    assert done.returncode == 3
    assert (found := cause_of(done)) is not None
    assert found["kind"] == kind
    assert hint in found["hint"]


def test_a_program_that_does_it_right_is_equal(deepfer, tmp_path: Path, colours: Path) -> None:  # type: ignore[no-untyped-def]
    model = write_net(tmp_path / "net.onnx")
    classifier = Classifier(model)
    sheet = write_answers(tmp_path / "app.csv", colours, lambda path: classifier.predict_images([_read(path)])[0])
    done = deepfer("parity", model, sheet, "--data", colours)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("equal by the lines of fp32, on 28 of 28 images")
    assert deepfer("parity", model, sheet).returncode == 1
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\n" + "".join(f"{row.path},happy\n" for row in open_dataset(colours).rows("val")))
    done = deepfer("parity", model, labels, "--data", colours)
    assert done.returncode == 1
    assert "labels alone" in done.stderr


JS = """async ([url, side]) => {
    const image = new Image(); image.src = url; await image.decode();
    const canvas = document.createElement("canvas"); canvas.width = canvas.height = side;
    const context = canvas.getContext("2d"); context.drawImage(image, 0, 0, side, side);
    return Array.from(context.getImageData(0, 0, side, side).data);
}"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; Debian: apt-get install -y chromium")
@needs("playwright")
def test_a_page_that_shrinks_on_a_canvas_is_named(deepfer, tmp_path: Path, colours: Path) -> None:  # type: ignore[no-untyped-def]
    from playwright.sync_api import sync_playwright

    model = write_net(tmp_path / "net.onnx")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, headless=True, args=["--no-sandbox"])
        page = browser.new_page()

        def draw(path: Path) -> Image:
            url = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
            return np.array(page.evaluate(JS, [url, SIDE]), np.uint8).reshape(SIDE, SIDE, 4)[..., :3].copy()

        sheet = write_answers(tmp_path / "page.csv", colours, by(model, draw))
        browser.close()
    done = deepfer("parity", model, sheet, "--data", colours, "--json")
    assert done.returncode == 3
    assert (found := cause_of(done)) is not None
    assert found["kind"] == "canvas", found


def openvino_default(model: Path) -> Callable[[NDArray[np.uint8]], Probs]:
    """The model as a program runs it that leaves the arithmetic to OpenVINO; skips where that is not bf16."""
    import openvino

    core = openvino.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bf16, so that OpenVINO calculates in fp32")
    compiled = core.compile_model(core.read_model(model.read_bytes(), b""), "CPU")
    return lambda crops: compiled({"image": crops})[0]


@needs("openvino")
def test_bf16_of_a_program_and_of_a_card_is_named(deepfer, exported: Path, tmp_path: Path, colours: Path) -> None:  # type: ignore[no-untyped-def]
    run, classifier = openvino_default(exported), Classifier(exported)
    from deepfer_yolo.runtime.preprocess import to_inputs

    def answers(path: Path) -> Probs:
        return run(to_inputs([_read(path)], classifier.card.input))[0]

    sheet = write_answers(tmp_path / "app.csv", colours, answers)
    done = deepfer("parity", exported, sheet, "--data", colours)
    assert done.returncode == 3
    assert "cause: the program calculates in bf16, OpenVINO's default" in done.stdout
    assert '"INFERENCE_PRECISION_HINT": "f32"' in done.stdout
    card = open_graph(exported)[1]
    assert card.golden is not None
    rows = [[round(float(p), 8) for p in row] for row in run(golden_inputs(card))]
    made = write_card(onnx.load(exported), card, tmp_path / "made.onnx", card.golden.model_copy(update={"probs": rows}))
    done = deepfer("verify", made)
    assert done.returncode == 3
    assert "cause: the answers expected are those of bf16 arithmetic" in done.stdout


def write_int8(path: Path, levels: int) -> Path:
    """A convolution and a matrix in 8 bits (QDQ), unsigned activations, weights of at most `levels`; the golden answers
    are those of the same numbers in floating point.
    """
    random = np.random.default_rng(1)
    first = np.clip(random.normal(levels, levels / 2, (16, 3, 4, 4)), -levels, levels).astype(np.int8)
    stored = {
        "w": first, "ws": np.full(16, 0.004 / levels, np.float32), "wz": np.zeros(16, np.int8),
        "s": np.float32(0.5), "z": np.uint8(0), "os": np.float32(0.2), "oz": np.uint8(0),
        "m": random.normal(0, 0.004, (16 * 8 * 8, 7)).astype(np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("QuantizeLinear", ["planes", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["dw"], axis=0),
        helper.make_node("Conv", ["dq", "dw"], ["conv"], strides=[4, 4], kernel_shape=[4, 4]),
        helper.make_node("QuantizeLinear", ["conv", "os", "oz"], ["qo"]),
        helper.make_node("DequantizeLinear", ["qo", "os", "oz"], ["dqo"]),
        helper.make_node("Flatten", ["dqo"], ["flat"]),
        helper.make_node("MatMul", ["flat", "m"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probs"], axis=1),
    ]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 32, 32, 3])
    probs = helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["n", 7])
    graph = helper.make_graph(nodes, "net", [image], [probs], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    card = Card(name="net", labels=EMOTIONS, input=InputSpec(size=32, colour="rgb"), precision="int8")
    read = parse("Model", model.SerializeToString())
    golden = make_golden(lambda crops: graph_answers(read, crops, in_float=True), 32)
    return write_card(model, card, path, golden)


@pytest.mark.slow
@pytest.mark.skipif(EMULATOR is None, reason="no qemu-x86_64 here; Debian: apt-get install -y qemu-user-static")
def test_sums_that_overflow_without_vnni_are_named(tmp_path: Path) -> None:
    """On an emulated Haswell, which has AVX2 and no VNNI."""

    def verified(path: Path) -> subprocess.CompletedProcess[str]:
        line = [str(EMULATOR), "-cpu", "Haswell", sys.executable, "-m", "deepfer_yolo", "verify", str(path)]
        return subprocess.run(line, capture_output=True, text=True, timeout=500, check=False)

    done = verified(write_int8(tmp_path / "wide.onnx", 127))
    assert done.returncode == 3, done.stdout + done.stderr
    assert "weights beyond 7 bits, whose sums overflow in this processor's 16 bits (no VNNI)" in done.stdout
    assert "hint: quantise it with 7-bit weights" in done.stdout
    done = verified(write_int8(tmp_path / "narrow.onnx", 63))
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_claimed_where_nothing_fits(deepfer, tmp_path: Path, colours: Path) -> None:  # type: ignore[no-untyped-def]
    good, other = write_net(tmp_path / "good.onnx"), write_net(tmp_path / "other.onnx")
    graph, card = onnx.load(other), open_graph(other)[1]
    weights = next(tensor for tensor in graph.graph.initializer if tensor.name == "weights")
    moved = numpy_helper.to_array(weights) + np.random.default_rng(0).normal(0, 0.001, (3 * SIDE * SIDE, 7))
    weights.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), "weights"))
    write_card(graph, card, other, card.golden)
    for words in (("verify", other), ("parity", good, other, "--data", colours)):
        done = deepfer(*words)
        assert done.returncode == 3
        assert "cause" not in done.stdout
        assert cause_of(deepfer(*words, "--json")) is None
    classifier = Classifier(other)
    sheet = write_answers(tmp_path / "app.csv", colours, lambda path: classifier.predict_images([_read(path)])[0])
    assert cause_of(deepfer("parity", good, sheet, "--data", colours, "--json")) is None


def test_models_that_are_equal_have_no_cause(deepfer, tmp_path: Path, colours: Path) -> None:  # type: ignore[no-untyped-def]
    good = write_net(tmp_path / "good.onnx")
    done = deepfer("parity", good, good, "--data", colours, "--json")
    assert done.returncode == 0
    assert cause_of(done) is None
