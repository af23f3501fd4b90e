"""The table of systems in docs/deploy.md: what has wheels where, as the package index says today; slow."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PIP = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps")


def glibc(machine: str, newest: int) -> list[str]:
    """The names of wheels that run on glibc 2.`newest` and older ones."""
    return [*(f"manylinux_2_{minor}_{machine}" for minor in range(newest, 4, -1)), f"manylinux2014_{machine}"]


def macos(machine: str) -> list[str]:
    versions = [*(f"{major}_0" for major in range(26, 10, -1)), *(f"10_{minor}" for minor in range(16, 8, -1))]
    return [f"macosx_{version}_{kind}" for version in versions for kind in (machine, "universal2")]


@dataclass(frozen=True, slots=True)
class System:
    """A row of the table: names of its wheels, the packages that have none at the versions of constraints.txt, and
    whether `pip install .` finds older ones for those of the base install.
    """

    wheels: list[str]
    missing: tuple[str, ...] = ()
    has_older: bool = True
    python: str = "3.11"


FOR_3_11 = ("onnxruntime", "numpy", "pillow", "typer", "filelock", "platformdirs", "av")
OF_32_BITS = ("onnxruntime", "numpy", "pillow", "pyyaml")
SYSTEMS = {
    "Linux on x86-64": System(glibc("x86_64", 28)),
    "Linux on aarch64": System(glibc("aarch64", 28)),
    "Python 3.14": System(glibc("x86_64", 28), python="3.14"),
    "glibc 2.27": System(glibc("x86_64", 27), ("onnxruntime", "av")),
    "JetPack 6": System(glibc("aarch64", 35), FOR_3_11, python="3.10"),
    "32-bit ARM": System([*glibc("armv7l", 31), "linux_armv7l"], (*OF_32_BITS, "opencv-python"), False),
    "Alpine": System(["musllinux_1_2_x86_64", "musllinux_1_1_x86_64"], ("onnxruntime", "opencv-python"), False),
    "macOS on Intel": System(macos("x86_64"), ("onnxruntime",)),
    "macOS on Apple processors": System(macos("arm64")),
    "Windows": System(["win_amd64"]),
}


@pytest.fixture(scope="module")
def base() -> dict[str, str]:
    """What the base install asks for everywhere, by name; skips where there is no index to ask."""
    asked = [*PIP, "--dry-run", "--ignore-installed", "packaging"]
    if subprocess.run(asked, capture_output=True, check=False).returncode:
        pytest.skip("pip reaches no index here")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [Requirement(line) for line in project["dependencies"]]
    return {one.name: f"{one.name}{one.specifier}" for one in wanted if one.marker is None}


def resolves(system: System, packages: Sequence[str], target: Path, *pins: str) -> bool:
    """Whether there are wheels of the packages for the system, their own needs left aside."""
    where = [word for name in system.wheels for word in ("--platform", name)]
    kind = ["--only-binary=:all:", "--implementation", "cp", "--python-version", system.python, *where]
    line = [*PIP, "--dry-run", "--ignore-installed", "--target", str(target), *kind, *pins, *packages]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or re.search("No matching distribution|ResolutionImpossible", done.stderr), done.stderr
    return done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_what_decides_is_as_the_table_says(name: str, base: dict[str, str], tmp_path: Path) -> None:
    system = SYSTEMS[name]
    pins = ("--constraint", str(ROOT / "constraints.txt"))
    for package in system.missing:
        assert not resolves(system, [package], tmp_path, *pins), f"{package} has wheels for {name} now"
    others = [line for package, line in base.items() if package not in system.missing]
    assert resolves(system, others, tmp_path, *pins)
    if older := [base[package] for package in system.missing if package in base]:
        assert resolves(system, older, tmp_path) == system.has_older


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.20.0", "1.23.2", "1.28.0"])
def test_older_onnxruntimes_answer_alike(version: str, base: dict[str, str], tmp_path: Path) -> None:
    """The oldest that pyproject.toml allows, the last for Intel Macs and Python 3.10, and for glibc 2.27."""
    if sys.version_info >= (3, 13):
        pytest.skip("the oldest has no wheels for this Python")
    assert not subprocess.run([*PIP, "--target", tmp_path, f"onnxruntime=={version}"], check=False).returncode
    settings = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    for model in ("deepfer-n", "deepfer-live", "deepfer-cnn", "deepfer-xs"):
        line = [sys.executable, "-m", "deepfer_yolo", "verify", model, "--json"]
        answer = json.loads(subprocess.run(line, capture_output=True, check=True, env=settings).stdout)
        assert answer["max_diff"] < 1e-6, (version, model)


def test_the_table_names_what_is_missing() -> None:
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    table = text.split("## Which systems\n")[1].split("\n## ")[0]
    rows = {cells[1].strip(): cells[3] for line in table.splitlines() if len(cells := line.split("|")) == 5}
    for name, system in SYSTEMS.items():
        assert name in rows
        assert [package for package in system.missing if package not in rows[name].lower()] == []
