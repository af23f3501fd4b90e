"""Checkpoints from strangers: nothing in them is executed, installed or fetched, and each refusal says why."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

from deepfer_yolo.errors import ModelError
from deepfer_yolo.runtime.card import write_sidecar
from deepfer_yolo.yolo import TorchClassifier, load_checkpoint


class RunsCode:
    """Unpickled by an ordinary loader, this writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.fixture
def no_side_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process may be started and no connection opened."""

    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError(f"a side effect was tried: {arguments}")

    for owner, name in (
        (subprocess, "Popen"),
        (subprocess, "run"),
        (subprocess, "check_output"),
        (socket, "create_connection"),
        (os, "system"),
    ):
        monkeypatch.setattr(owner, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("where", ["model", "ema", "train_args", "optimizer"])
def test_code_in_a_checkpoint_never_runs(where: str, tmp_path: Path) -> None:
    flag = tmp_path / "owned"
    path = tmp_path / "evil.pt"
    torch.save({"model": None, "ema": None, where: RunsCode(flag)}, path)
    with pytest.raises(ModelError, match="not a checkpoint that can be loaded safely"):
        load_checkpoint(path)
    assert not flag.exists()


def test_a_bare_pickle_never_runs(tmp_path: Path) -> None:
    flag = tmp_path / "owned"
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps(RunsCode(flag)))
    with pytest.raises(ModelError, match="loaded safely"):
        load_checkpoint(path)
    assert not flag.exists()


@pytest.mark.usefixtures("no_side_effects")
def test_an_unknown_module_is_not_installed(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", b"\x80\x02cmalicious_package.core\nModel\nq\x00)\x81q\x01.")
        archive.writestr("evil/version", b"3\n")
    with pytest.raises(ModelError, match="loaded safely"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip", b"\x80\x02}q\x00.", b"\x1f\x8b" + bytes(64)]
)
def test_other_files_are_no_checkpoints(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"loaded safely|holds no YOLO classification model"):
        load_checkpoint(path)


def test_a_checkpoint_cut_anywhere_is_a_clear_error(checkpoint: Path, tmp_path: Path) -> None:
    content = checkpoint.read_bytes()
    for sixteenth in range(16):
        path = tmp_path / f"{sixteenth}.pt"
        path.write_bytes(content[: len(content) * sixteenth // 16])
        with pytest.raises(ModelError, match="loaded safely"):
            load_checkpoint(path)


def test_what_cannot_be_a_checkpoint_is_called_what_it_is(tmp_path: Path) -> None:
    for name in ("a.onnx", "text.pt"):
        (tmp_path / name).write_bytes(b"what an exporter wrote")
    (tmp_path / "folder.pt").mkdir()
    said = {
        "a.onnx": "is no checkpoint",
        "text.pt": "it is not a whole archive of PyTorch",
        "folder.pt": "is a folder, not a checkpoint",
        "nosuch": "no such checkpoint",
    }
    for name, words in said.items():
        with pytest.raises(ModelError, match=words) as refusal:
            load_checkpoint(tmp_path / name)
        assert "Ultralytics" not in refusal.value.message


def test_plain_data_is_no_model(tmp_path: Path) -> None:
    torch.save({"model": {"weights": torch.zeros(2)}}, tmp_path / "plain.pt")
    with pytest.raises(ModelError, match="holds no YOLO classification model but dict"):
        load_checkpoint(tmp_path / "plain.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ModelError, match=r"loaded safely|holds no YOLO"):
        load_checkpoint(tmp_path / "list.pt")


def test_the_cards_hash_and_labels_are_held_against_the_file(checkpoint: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(checkpoint, tmp_path / "best.pt"))
    card = TorchClassifier(checkpoint).card
    write_sidecar(card.model_copy(update={"file_sha256": "0" * 64}), path)
    with pytest.raises(ModelError, match="is not the file its card describes"):
        TorchClassifier(path)
    write_sidecar(card.model_copy(update={"labels": tuple("abcdefg")}), path)
    with pytest.raises(ModelError, match="are not the checkpoint's"):
        TorchClassifier(path)
