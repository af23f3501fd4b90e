"""The shipped models on other processors: aarch64 and x86 of fewer instructions, emulated by qemu; slow.

Needs Debian's `qemu-user-static` and `debootstrap`, and the network. $DEEPFER_DEVICES names a folder that keeps the
arm64 system and the wheels for the next run.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from deepfer_yolo.painted import paint_faces, paint_frames

ROOT = Path(__file__).resolve().parents[2]
QEMU_ARM, QEMU_X86 = "qemu-aarch64-static", "qemu-x86_64-static"
MISSING = [tool for tool in (QEMU_ARM, QEMU_X86, "debootstrap", "dpkg") if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)} (qemu-user-static, debootstrap)"),
]
BASE = "numpy pillow onnx onnxruntime opencv-python av lap typer rich pyyaml pydantic packaging filelock platformdirs"
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
CPU_INFO = """processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0b
CPU revision\t: 1
"""
"""onnxruntime asks /proc/cpuinfo what it may use; with that of the host beneath, its import ends in a crash."""
Device = Callable[..., str]


def call(*words: str | Path) -> str:
    """What a command prints; its errors fail the test."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="session")
def arm_system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `root`, a Debian of arm64 whose packages are merely unpacked, and `site`, our wheels for it."""
    folder = Path(os.environ.get("DEEPFER_DEVICES") or tmp_path_factory.mktemp("devices"))
    root, site = folder / "root", folder / "site"
    if not root.exists():
        part = folder / "root.part"
        wanted = ("--arch=arm64", "--foreign", "--variant=minbase", "--include=python3,libstdc++6,libgl1,libglib2.0-0")
        call("debootstrap", *wanted, "bookworm", part)
        for package in sorted((part / "var" / "cache" / "apt" / "archives").glob("*.deb")):
            call("dpkg", "-x", package, part)
        (part / "proc").mkdir(exist_ok=True)
        (part / "proc" / "cpuinfo").write_text(CPU_INFO)
        part.rename(root)
    if not site.exists():
        where = [word for platform in PLATFORMS for word in ("--platform", platform)]
        kind = ("--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp")
        pins = ("--constraint", ROOT / "constraints.txt", "--quiet", "--no-compile")
        call(sys.executable, "-m", "pip", "install", *pins, *kind, *where, "--target", folder / "part", *BASE.split())
        (folder / "part").rename(site)
    return folder


def emulated(folder: Path, cpu: str, tmp_path: Path, system: Path | None) -> Device:
    """`deepfer` on an emulated processor; child processes find the emulator by a script that stands for Python."""
    script = tmp_path / f"python-{cpu}"
    settings = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    if system is None:
        start = [QEMU_X86, "-cpu", cpu, "-0", str(script), sys.executable]
        settings["PYTHONPATH"] += f":{next(path for path in sys.path if path.endswith('site-packages'))}"
    else:
        python = system / "root" / "usr" / "bin" / "python3.11"
        settings |= {"PYTHONPATH": f"{system / 'site'}:{ROOT}", "PYTHONHOME": str(system / "root" / "usr")}
        start = [QEMU_ARM, "-L", str(system / "root"), "-cpu", cpu, "-0", str(script), str(python)]
    words = ["env", *(f"{name}={value}" for name, value in settings.items()), *start]
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    script.chmod(0o755)
    return lambda *arguments: call(script, "-m", "deepfer_yolo", *arguments)


def here(*arguments: str | Path) -> str:
    """`deepfer` on this processor."""
    return call(sys.executable, "-m", "deepfer_yolo", *arguments)


@pytest.mark.parametrize("cpu", ["Nehalem", "SandyBridge", "Haswell"])
def test_int8_answers_alike_with_fewer_instructions(cpu: str, tmp_path: Path) -> None:
    answer = json.loads(emulated(tmp_path, cpu, tmp_path, None)("verify", "deepfer-xs", "--json"))
    print(cpu, answer["max_diff"])
    assert answer["passed"]
    assert answer["max_diff"] < 1e-6


@pytest.mark.parametrize("cpu", ["cortex-a72", "cortex-a76"])
def test_arm_verifies_labels_and_streams_alike(cpu: str, arm_system: Path, tmp_path: Path) -> None:
    device = emulated(tmp_path, cpu, tmp_path, arm_system)
    for model, allowed in (("deepfer-n", 1e-5), ("deepfer-xs", 1e-6)):
        answer = json.loads(device("verify", model, "--json"))
        print(cpu, model, answer["max_diff"])
        assert answer["passed"]
        assert answer["max_diff"] < allowed
    faces = tmp_path / "faces"
    faces.mkdir()
    for index, face in enumerate(paint_faces(5, 50)[0]):
        Image.fromarray(face).save(faces / f"{index:02}.png")
    rows = [[json.loads(line) for line in run("predict", faces, "--json").splitlines()] for run in (device, here)]
    assert len(rows[0]) == 50
    assert [row["label"] for row in rows[0]] == [row["label"] for row in rows[1]]
    probs = [[list(row["probs"].values()) for row in side] for side in rows]
    assert np.abs(np.subtract(*probs)).max() < 1e-4
    clip = tmp_path / "clip.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 160, 160, "yuv420p"
        for image in paint_frames(6, ("happy",), 12, 160):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    streamed = []
    for name, run in (("device", device), ("here", here)):
        sink = tmp_path / f"{name}.jsonl"
        run("stream", clip, "--detector", "whole", "--sink", f"jsonl={sink}")
        records = [json.loads(line) for line in sink.read_text().splitlines()]
        streamed.append([(row["frame"], row["raw_label"]) for row in records if row["kind"] == "face"])
    assert len(streamed[0]) == 12
    assert streamed[0] == streamed[1]
