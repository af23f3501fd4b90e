"""Foreign classifiers: nets in the exact shapes of known ones, wrapped by their preset, against that model's own
preprocessing written out in NumPy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from deepfer_yolo.config import CardConfig
from deepfer_yolo.emotions import CONTEMPT, EMOTIONS
from deepfer_yolo.errors import ConfigError, ModelError
from deepfer_yolo.export.cards import card_onnx
from deepfer_yolo.painted import paint_golden
from deepfer_yolo.presets import configs_dir, resolve
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.golden import check_golden

Floats = NDArray[Any]
SEVEN = ",".join(EMOTIONS)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
HSE8 = ("angry", CONTEMPT, "disgust", "fear", "happy", "neutral", "sad", "surprise")


def write_net(
    path: Path,
    shape: Sequence[int | str],
    n_out: int,
    *,
    probs: bool = False,
    opset: int = 13,
    kind: int = TensorProto.FLOAT,
    gain: float = 1.5,
    more: int = 0,
) -> Path:
    """A net of random weights: means over a 4 × 4 grid, then one matrix; `more` outputs beside it."""
    is_last = shape[1] not in {1, 3}
    side, planes = int(shape[2]), int(shape[3] if is_last else shape[1])
    random = np.random.default_rng(7)
    weights = random.normal(0, gain, (16 * planes, n_out + more))
    weights -= weights.mean(0)
    dtype = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    stored = [numpy_helper.from_array(weights[:, :n_out].astype(dtype), "w")]
    stored.append(numpy_helper.from_array(random.normal(0, 1, n_out).astype(dtype), "b"))
    nodes = [helper.make_node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2])] if is_last else []
    pool = {"kernel_shape": [side // 4] * 2, "strides": [side // 4] * 2}
    nodes += [
        helper.make_node("AveragePool", ["planes" if is_last else "x"], ["grid"], **pool),
        helper.make_node("Flatten", ["grid"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["y" if not probs else "logits"]),
    ]
    nodes += [helper.make_node("Softmax", ["logits"], ["y"], axis=1)] if probs else []
    outputs = [helper.make_tensor_value_info("y", kind, [shape[0], n_out])]
    if more:
        stored.append(numpy_helper.from_array(weights[:, n_out:].astype(dtype), "v"))
        nodes.append(helper.make_node("MatMul", ["flat", "v"], ["valence"]))
        outputs.insert(0, helper.make_tensor_value_info("valence", kind, [shape[0], more]))
    graph = helper.make_graph(nodes, "net", [helper.make_tensor_value_info("x", kind, shape)], outputs, stored)
    if opset < 9:  # before IR 4 stored tensors are inputs too
        graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3 if opset < 9 else 8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def run(path: Path, images: Floats, output: str = "y") -> Floats:
    """What the bare net answers, one image at a time."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = session.get_inputs()[0]
    kind = np.float16 if "float16" in taken.type else np.float32
    return np.concatenate([session.run([output], {taken.name: x[None].astype(kind)})[0] for x in images])


def softmax(numbers: Floats) -> Floats:
    powers = np.exp(numbers.astype(np.float64) - numbers.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def planes_first(images: Floats) -> Floats:
    return images.transpose(0, 3, 1, 2)


@dataclass(frozen=True)
class Known:
    """A known model's shapes and what its own code does to 0..255 before it and to its numbers after it."""

    preset: str
    shape: tuple[int | str, ...]
    labels: tuple[str, ...]
    before: Callable[[Floats], Floats]
    after: Callable[[Floats], Floats] = softmax
    opset: int = 13
    gain: float = 1.5
    n_out: int = 7


def as_it_is(numbers: Floats) -> Floats:
    return numbers


KNOWN = [
    Known("fer", ("n", 64, 64, 1), FER2013, lambda x: (x[..., :1] / 255 - 0.5) * 2, as_it_is),
    Known("fer", ("n", 1, 64, 64), FER2013, lambda x: planes_first((x[..., :1] / 255 - 0.5) * 2), as_it_is),
    Known("big-xception", (1, 64, 64, 1), FER2013, lambda x: (x[..., :1] / 255 - 0.5) * 2, as_it_is),
    Known("deepface", ("n", 48, 48, 1), FER2013, lambda x: x[..., :1] / 255, as_it_is),
    Known(
        "ferplus",
        (1, 1, 64, 64),
        ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", CONTEMPT),
        lambda x: planes_first(x[..., :1]),
        opset=8,
        gain=0.02,
        n_out=8,
    ),
    Known("opencv-mobilefacenet", (1, 3, 112, 112), EMOTIONS, lambda x: planes_first((x / 255 - 0.5) / 0.5)),
    Known("hsemotion-7", ("n", 3, 260, 260), EMOTIONS, lambda x: planes_first((x / 255 - MEAN) / STD), gain=0.5),
    Known("hsemotion-8", ("n", 3, 224, 224), HSE8, lambda x: planes_first((x / 255 - MEAN) / STD), gain=0.5, n_out=8),
    Known(
        "hsemotion-8-mtl",
        ("n", 3, 224, 224),
        HSE8,
        lambda x: planes_first((x / 255 - MEAN) / STD),
        lambda numbers: softmax(numbers[:, :-2]),
        gain=0.5,
        n_out=10,
    ),
    Known(
        "face-api",
        ("n", 112, 112, 3),
        ("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise"),
        lambda x: (x - np.array([122.782, 117.001, 104.298])) / 255,
    ),
    Known("rmn", ("n", 3, 224, 224), FER2013, lambda x: planes_first(x / 255)),
    Known("facex", (1, 200, 200, 3), EMOTIONS, lambda x: x / 255, as_it_is),
]


def sides(known: Known) -> int:
    return int(known.shape[2])


def crops_of(size: int, colour: str, n: int = 5) -> NDArray[np.uint8]:
    crops = paint_golden(4, n, size)
    return np.ascontiguousarray(np.repeat(crops[..., :1], 3, axis=3)) if colour == "grey" else crops


def test_every_preset_is_tried() -> None:
    assert {known.preset for known in KNOWN} == {path.stem for path in (configs_dir() / "cards").glob("*.yaml")}


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: f"{known.preset}-{known.shape[1]}")
def test_a_preset_does_what_the_models_own_code_does(known: Known, tmp_path: Path) -> None:
    preset = resolve(CardConfig, known.preset)
    net = write_net(
        tmp_path / "net.onnx",
        known.shape,
        known.n_out,
        probs=known.after is as_it_is,
        opset=known.opset,
        gain=known.gain,
    )
    card = card_onnx(net, tmp_path / "card.onnx", preset)
    wrapped = Classifier(tmp_path / "card.onnx")
    assert wrapped.labels == known.labels
    assert (card.license, card.producer["source"]) == (preset.license, preset.source)
    assert (card.input.size, card.input.colour) == (sides(known), preset.colour)
    crops = crops_of(sides(known), preset.colour)
    expected = known.after(run(net, known.before(crops.astype(np.float64))))
    assert float(np.median(expected.std(0))) > 1e-3, "the net must answer differently to different images"
    np.testing.assert_allclose(wrapped.predict(crops), expected, atol=2e-5)
    assert check_golden(wrapped).passed
    onnx.checker.check_model(onnx.load(str(tmp_path / "card.onnx")), full_check=True)


@pytest.mark.parametrize(
    ("preset", "shape", "n_out", "probs", "reason"),
    [
        ("deepface", ("n", 64, 64, 1), 7, True, r"not images of 48×48.*big-xception, fer"),
        ("fer", ("n", 48, 48, 1), 7, True, "not images of 64×64.*deepface"),
        ("big-xception", ("n", 3, 64, 64), 7, True, "not 1 channel"),
        ("fer", (1, 1, 64, 64), 8, False, "8 numbers per image, but there are 7 labels.*ferplus"),
        ("ferplus", ("n", 64, 64, 1), 7, True, "7 numbers per image, but there are 8 labels"),
        ("opencv-mobilefacenet", ("n", 3, 224, 224), 7, False, "not images of 112×112.*hsemotion-7, rmn"),
        ("hsemotion-7", ("n", 3, 224, 224), 8, False, "8 numbers per image, but there are 7.*hsemotion-8"),
        ("hsemotion-8", ("n", 3, 224, 224), 10, False, "10 numbers per image, but there are 8.*hsemotion-8-mtl"),
        ("hsemotion-8-mtl", ("n", 3, 224, 224), 8, False, "8 numbers per image, but there are 10"),
        ("rmn", ("n", 3, 260, 260), 7, False, "not images of 224×224.*hsemotion-7"),
        ("face-api", ("n", 64, 64, 3), 7, False, "not images of 112×112"),
        ("facex", (1, 224, 224, 3), 7, True, "not images of 200×200"),
        ("rmn", ("n", 3, 224, 224), 7, True, "ends in a softmax"),
        ("deepface", ("n", 48, 48, 1), 7, False, "does not answer with probabilities"),
    ],
)
def test_the_wrong_preset_is_refused(
    preset: str, shape: tuple[int | str, ...], n_out: int, probs: bool, reason: str, tmp_path: Path
) -> None:
    net = write_net(tmp_path / "net.onnx", shape, n_out, probs=probs)
    with pytest.raises((ConfigError, ModelError)) as caught:
        card_onnx(net, tmp_path / "card.onnx", resolve(CardConfig, preset))
    assert re.search(reason, f"{caught.value} {caught.value.hint}"), caught.value
    assert not (tmp_path / "card.onnx").exists()


def test_contempt_is_kept_or_left_out_by_labels(tmp_path: Path) -> None:
    net = write_net(tmp_path / "net.onnx", (1, 1, 64, 64), 8, opset=8, gain=0.02)
    facts = resolve(CardConfig, "ferplus", {"labels": SEVEN})
    card_onnx(net, tmp_path / "seven.onnx", facts)
    seven, crops = Classifier(tmp_path / "seven.onnx"), crops_of(64, "grey")
    assert seven.labels == EMOTIONS
    numbers = run(net, planes_first(crops[..., :1].astype(np.float64)))
    np.testing.assert_allclose(seven.predict(crops), softmax(numbers[:, [4, 5, 6, 1, 0, 3, 2]]), atol=2e-5)


def test_probabilities_that_are_kept_sum_to_one(tmp_path: Path) -> None:
    net = write_net(tmp_path / "net.onnx", ("n", 48, 48, 1), 7, probs=True)
    facts = resolve(CardConfig, "deepface", {"labels": "happy,Sadness,fear"})
    card_onnx(net, tmp_path / "three.onnx", facts)
    three, crops = Classifier(tmp_path / "three.onnx"), crops_of(48, "grey")
    assert three.labels == ("happy", "Sadness", "fear")
    part = run(net, crops[..., :1] / 255)[:, [3, 4, 2]]
    np.testing.assert_allclose(three.predict(crops), part / part.sum(1, keepdims=True), atol=2e-5)


@pytest.mark.parametrize("shape", [("n", 3, 48, 48), ("n", 48, 48, 3)])
def test_a_model_that_takes_blue_first(shape: tuple[int | str, ...], tmp_path: Path) -> None:
    net = write_net(tmp_path / "net.onnx", shape, 7)
    facts = {"labels": EMOTIONS, "mean": tuple(MEAN), "std": tuple(STD), "answers": "logits"}
    for channels in ("rgb", "bgr"):
        card_onnx(net, tmp_path / f"{channels}.onnx", CardConfig(**facts, channels=channels))  # type: ignore[arg-type]
    crops = paint_golden(5, 6, 48)
    x = ((crops / 255 - MEAN) / STD)[..., ::-1]
    expected = softmax(run(net, planes_first(x) if shape[1] == 3 else x))
    np.testing.assert_allclose(Classifier(tmp_path / "bgr.onnx").predict(crops), expected, atol=1e-5)
    assert np.abs(Classifier(tmp_path / "rgb.onnx").predict(crops) - expected).max() > 0.01
    grey = write_net(tmp_path / "grey.onnx", ("n", 48, 48, 1), 7)
    with pytest.raises(ConfigError, match="one channel has no order"):
        card_onnx(grey, tmp_path / "g.onnx", CardConfig(**facts, channels="bgr"))  # type: ignore[arg-type]


def test_half_precision_in_and_out(tmp_path: Path) -> None:
    net = write_net(tmp_path / "net.onnx", ("n", 3, 112, 112), 7, kind=TensorProto.FLOAT16)
    card = card_onnx(net, tmp_path / "card.onnx", resolve(CardConfig, "opencv-mobilefacenet"))
    assert card.precision == "fp16"
    wrapped, crops = Classifier(tmp_path / "card.onnx"), crops_of(112, "rgb")
    expected = softmax(run(net, planes_first((crops / 255 - 0.5) / 0.5)))
    np.testing.assert_allclose(wrapped.predict(crops), expected, atol=5e-3)
    assert check_golden(wrapped).passed


def test_one_of_several_outputs_is_named(tmp_path: Path) -> None:
    net = write_net(tmp_path / "net.onnx", ("n", 48, 48, 1), 7, probs=True, more=2)
    with pytest.raises(ModelError, match=r"has 2 outputs: valence float32 \(\?, 2\), y float32 \(\?, 7\)") as caught:
        card_onnx(net, tmp_path / "card.onnx", resolve(CardConfig, "deepface"))
    assert "--output" in str(caught.value.hint)
    with pytest.raises(ModelError, match="no output 'probs'"):
        card_onnx(net, tmp_path / "card.onnx", resolve(CardConfig, "deepface", {"output": "probs"}))
    card_onnx(net, tmp_path / "card.onnx", resolve(CardConfig, "deepface", {"output": "y"}))
    crops = crops_of(48, "grey")
    np.testing.assert_allclose(
        Classifier(tmp_path / "card.onnx").predict(crops), run(net, crops[..., :1] / 255), atol=2e-5
    )


@pytest.mark.parametrize(
    ("shape", "flags", "reason"),
    [
        (("n", 1, 64, 64), {}, "does not say its labels.*big-xception, fer"),
        (("n", 1, 64, 64), {"labels": SEVEN}, "how its input is scaled.*--white 255.*big-xception, fer"),
        (("n", 1, 64, 64), {"labels": SEVEN, "mean": "1,2,3", "std": "1"}, "--mean has 3 numbers"),
        (("n", 1, 64, 64), {"labels": SEVEN, "mean": "0", "std": "1", "colour": "rgb"}, "one channel is grey"),
        (("n", 1, 64, 48), {}, "only square images"),
        (("n", 4, 64, 64), {}, "neither 1 nor 3 channels"),
        (("n", 64), {}, "one or three channels"),
    ],
)
def test_what_is_missing_or_wrong_is_said(
    shape: tuple[int | str, ...], flags: dict[str, str], reason: str, tmp_path: Path
) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["m"], axes=list(range(1, len(shape))), keepdims=0),
            helper.make_node("Unsqueeze", ["m"], ["u"], axes=[1]),
            helper.make_node("MatMul", ["u", "w"], ["l"]),
            helper.make_node("Softmax", ["l"], ["y"], axis=1),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 7])],
        [numpy_helper.from_array(np.ones((1, 7), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    onnx.save(model, str(tmp_path / "net.onnx"))
    with pytest.raises((ConfigError, ModelError)) as caught:
        card_onnx(tmp_path / "net.onnx", tmp_path / "card.onnx", resolve(CardConfig, None, flags))
    assert re.search(reason, f"{caught.value} {caught.value.hint}"), caught.value


def test_a_shape_that_may_be_both_is_asked_about(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["l"]),
            helper.make_node("Softmax", ["l"], ["y"], axis=1),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "a", 48, "c"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 7])],
        [numpy_helper.from_array(np.ones((48 * 48, 7), np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), str(tmp_path / "net.onnx"))
    with pytest.raises(ModelError, match="channels stand first or last") as caught:
        card_onnx(tmp_path / "net.onnx", tmp_path / "card.onnx", CardConfig(labels=EMOTIONS))
    assert "--layout" in str(caught.value.hint)


def test_a_licence_that_nobody_named_is_unknown(tmp_path: Path) -> None:
    net = write_net(tmp_path / "net.onnx", ("n", 1, 48, 48), 7, probs=True)
    facts = resolve(CardConfig, None, {"labels": SEVEN, "mean": "0", "std": "1"})
    assert card_onnx(net, tmp_path / "card.onnx", facts).license == "unknown: ask who made the model"
    named = facts.model_copy(update={"license": "MIT"})
    assert card_onnx(net, tmp_path / "mit.onnx", named).license == "MIT"
