"""The unit and the manifest in docs/cameras: checked by systemd, and their commands run, twice, as after a restart."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
UNIT, MANIFEST = ROOT / "docs/cameras/deepfer-stream@.service", ROOT / "docs/cameras/statefulset.yaml"
PROGRAM = "/opt/deepfer/bin/deepfer"
NAMES = {f"camera-{n}" for n in range(12)}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with cameras and a program `deepfer`."""
    (tmp_path / "cameras.yaml").write_text("".join(f"{name}: testsrc=size=64x48:rate=5\n" for name in sorted(NAMES)))
    program = tmp_path / "bin" / "deepfer"
    program.parent.mkdir()
    words = shlex.join([sys.executable, "-m", "deepfer_yolo"])
    program.write_text(f'#!/bin/sh\nexec {words} "$@" --detector whole --max-seconds 1\n')
    program.chmod(0o755)
    return tmp_path


def run(command: str, **environ: str) -> None:
    done = subprocess.run(
        ["sh", "-c", command], env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def sources(path: Path) -> list[str]:
    return [json.loads(line)["source"] for line in path.read_text().splitlines()]


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze to check with")
    (tmp_path / "deepfer-stream@1.service").write_text(UNIT.read_text().replace(PROGRAM, "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "deepfer-stream@1.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_units_command_runs_and_goes_on_after_a_restart(place: Path, free_port: Any) -> None:
    pytest.importorskip("prometheus_client")
    (line,) = (line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart="))
    port = f"127.0.0.1:{free_port()}"
    command = line.removeprefix("ExecStart=").replace(PROGRAM, str(place / "bin/deepfer"))
    command = command.replace("127.0.0.1:910%i", port).replace("%i", "2")
    folders = {"CREDENTIALS_DIRECTORY": str(place), "STATE_DIRECTORY": str(place)}
    run(command, **folders)
    first = sources(place / "faces-2.jsonl")
    run(command, **folders)
    both = sources(place / "faces-2.jsonl")
    assert 0 < len(set(first)) < len(NAMES)
    assert both[: len(first)] == first
    assert len(both) > len(first)
    assert set(both) == set(first)


@pytest.mark.slow
def test_the_pods_of_the_manifest_share_all_cameras(place: Path, free_port: Any) -> None:
    pytest.importorskip("prometheus_client")
    pods, service = yaml.safe_load_all(MANIFEST.read_text())
    (container,) = pods["spec"]["template"]["spec"]["containers"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"/etc/deepfer", "/data", "/tmp"}
    assert service["spec"]["selector"] == pods["spec"]["selector"]["matchLabels"]
    assert [one["name"] for one in container["env"]] == ["INDEX"]
    (command,) = container["args"]
    assert command.count(f"/{pods['spec']['replicas']} ") == 1
    seen = []
    for index in range(pods["spec"]["replicas"]):
        pod = command.replace("/etc/deepfer", str(place)).replace("/data", f"{place}/{index}")
        pod = pod.replace("0.0.0.0:9100", f"127.0.0.1:{free_port()}")
        run(pod, INDEX=str(index), PATH=f"{place / 'bin'}:{os.environ['PATH']}")
        seen.append(set(sources(place / str(index) / "faces.jsonl")))
    assert set.union(*seen) == NAMES
    assert sum(map(len, seen)) == len(NAMES)
