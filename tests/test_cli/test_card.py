"""`deepfer card --as` at the shell: from another's file to every command that takes a model."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from deepfer_yolo.cli.options import open_classifier
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.painted import paint_golden
from deepfer_yolo.runtime.card import pack_hashes
from deepfer_yolo.runtime.model_file import SHIPPED, attach, locate

Deepfer = Callable[..., Any]
SEVEN = ",".join(EMOTIONS)
HASHES = pack_hashes(np.arange(1, 40, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
FIVE = [
    ("fer", ("n", 64, 64, 1), 7, True, ()),
    ("deepface", ("n", 48, 48, 1), 7, True, ()),
    ("ferplus", (1, 1, 64, 64), 8, False, ("--labels", SEVEN)),
    ("opencv-mobilefacenet", (1, 3, 112, 112), 7, False, ()),
    ("hsemotion-8", ("n", 3, 224, 224), 8, False, ("--labels", SEVEN)),
]


def nets() -> ModuleType:
    """The module that writes nets of known shapes."""
    path = Path(__file__).parents[1] / "test_export" / "test_foreign.py"
    spec = importlib.util.spec_from_file_location("nets_of_known_shapes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of each of FIVE's shapes."""
    folder, write = tmp_path_factory.mktemp("foreign"), nets().write_net
    return {
        name: write(folder / f"{name}.onnx", shape, n_out, probs=probs, gain=0.02 if name == "ferplus" else 1.0)
        for name, shape, n_out, probs, _ in FIVE
    }


def test_from_five_foreign_files_to_compare_gate_benchmark_and_parity(
    deepfer: Deepfer, files: dict[str, Path], linear_model: Path, painted_dataset: Path, tmp_path: Path
) -> None:
    made = []
    for name, _, _, _, words in FIVE:
        done = deepfer("card", files[name], "--as", name, "--out", tmp_path / f"{name}.onnx", *words)
        assert done.returncode == 0, done.stderr
        assert (", rgb " if name in {"opencv-mobilefacenet", "hsemotion-8"} else ", grey ") in done.stdout
        made.append(tmp_path / f"{name}.onnx")
        assert deepfer("verify", made[-1]).returncode == 0
    compared = deepfer("compare", linear_model, *made, "--data", painted_dataset, "--json")
    assert compared.returncode == 0, compared.stderr
    assert len(json.loads(compared.stdout)["models"]) == 6
    gated = deepfer("gate", painted_dataset, "-m", linear_model, "--champion", made[0], "--split", "val", "--json")
    assert gated.returncode in {0, 5}, gated.stderr  # 5: too few images to decide
    timed = deepfer("benchmark", made[1], made[2], "--batch", "1,2", "--rounds", "1", "--calls", "2", "--json")
    assert timed.returncode == 0, timed.stderr
    assert all(entry["batches"] for entry in json.loads(timed.stdout)["models"])
    same = deepfer("parity", made[0], made[0], "--data", painted_dataset)
    assert same.returncode == 0, same.stderr
    assert deepfer("parity", made[0], made[1], "--data", painted_dataset).returncode == 3


def test_what_shapes_cannot_tell_apart_is_said(deepfer: Deepfer, tmp_path: Path) -> None:
    net = nets().write_net(tmp_path / "net.onnx", ("n", 3, 224, 224), 7)
    done = deepfer("card", net, "--as", "rmn")
    assert done.returncode == 0, done.stderr
    assert "it may as well be hsemotion-7: see docs/peers.md" in done.stderr
    again = deepfer("card", net, "--as", "rnm", "--overwrite")
    assert again.returncode != 0
    assert "rmn" in again.stderr
    own = tmp_path / "mine.yaml"
    own.write_text(f"order: [{SEVEN}]\nwhite: 255\nmean: 127.5\nstd: 127.5\nanswers: logits\n")
    assert deepfer("card", net, "--as", own, "--overwrite").returncode == 0


def test_a_checkpoint_has_no_preset(deepfer: Deepfer, checkpoint: Path) -> None:
    done = deepfer("card", checkpoint, "--as", "fer", "--overwrite")
    assert done.returncode == 1
    assert "--as is for ONNX files" in done.stderr


@pytest.mark.parametrize("suffix", [".onnx", ".pt"])
def test_a_public_copy_has_no_hashes_and_is_the_same_model(deepfer: Deepfer, tmp_path: Path, suffix: str) -> None:
    model, beside = tmp_path / f"own{suffix}", SHIPPED / "deepfer-xs.json"
    shutil.copy(SHIPPED / f"deepfer-xs{suffix}", model)
    if suffix == ".pt":
        shutil.copy(beside, tmp_path / "own.json")
    before = model.read_bytes()
    original = open_classifier(model)
    hashes = original.card.trained_hashes
    assert hashes is not None
    done = deepfer("card", model, "--strip-hashes")
    assert done.returncode == 0, done.stderr
    copy = tmp_path / f"own-public{suffix}"
    assert done.stdout.startswith(str(copy))
    assert model.read_bytes() == before
    opened = open_classifier(copy)
    assert opened.card.learned is None
    assert opened.card.model_dump(exclude={"file_sha256"}) == original.card.model_dump(exclude={"file_sha256"})
    crops = paint_golden(1, 4, opened.card.input.size)
    assert (opened.predict(crops) == original.predict(crops)).all()
    content = b"".join(path.read_bytes() for path in tmp_path.glob("own-public*"))
    packed = np.frombuffer(base64.b64decode(hashes), "<u8")
    assert hashes[:64].encode() not in content
    assert packed[:4].tobytes() not in content
    assert np.sort(packed.view(np.int64))[:4].tobytes() not in content
    assert deepfer("verify", copy).returncode == (0 if suffix == ".onnx" else 1)  # the .pt has no golden answers
    assert deepfer("card", model, "--strip-hashes").returncode == 1
    assert deepfer("card", model, "--strip-hashes", "--overwrite").returncode == 0
    for words in (("--out", tmp_path / "other.zip"), ("--out", model, "--overwrite"), ("--labels", SEVEN)):
        assert deepfer("card", model, "--strip-hashes", *words).returncode == 1


def test_a_public_copy_of_a_format_with_a_card_beside(deepfer: Deepfer, checkpoint: Path, tmp_path: Path) -> None:
    done = deepfer("export", checkpoint, "--format", "torchscript", "--out", tmp_path / "made", "--pictures", "14")
    assert done.returncode == 0, done.stderr
    model = locate(tmp_path / "made")
    attach(open_classifier(model).card.model_copy(update={"trained_hashes": HASHES}), model)
    assert open_classifier(model).card.learned is not None
    done = deepfer("card", tmp_path / "made", "--strip-hashes")
    assert done.returncode == 0, done.stderr
    assert open_classifier(tmp_path / "made-public" / "model.torchscript").card.learned is None
    assert deepfer("verify", tmp_path / "made-public").returncode == 0
