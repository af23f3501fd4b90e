"""Other processors for tests/devices/ and tests/benchmarks/devices.py: aarch64 and x86 of fewer instructions, by qemu.

Needs Debian's `qemu-user-static` and `debootstrap`, and the network once: `Arm` keeps system and wheels in a folder.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
QEMU_ARM, QEMU_X86 = "qemu-aarch64-static", "qemu-x86_64-static"
MISSING = [tool for tool in (QEMU_ARM, QEMU_X86, "debootstrap", "dpkg") if shutil.which(tool) is None]
PYTHON = "3.11"
"""Of Debian 12, which the emulated system is."""
PLATFORMS = [*(f"manylinux_2_{minor}_aarch64" for minor in (28, 27, 26, 17)), "manylinux2014_aarch64"]
MARKERS = {"platform_machine": "aarch64", "python_version": PYTHON, "python_full_version": f"{PYTHON}.2"}
CPU_INFO = """processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""
"""onnxruntime asks /proc/cpuinfo which processor it is on, and ends in a crash on the text of the host, an x86."""


def call(*words: str | Path, cwd: Path | None = None) -> str:
    """What a command prints; where it fails, an AssertionError with its last words."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@dataclass(frozen=True, slots=True)
class Device:
    """A processor: `program` stands for its Python, also where a process starts another."""

    name: str
    program: Path

    @classmethod
    def of(cls, name: str, work: Path, settings: dict[str, str], words: list[str | Path]) -> Device:
        """With a program in `work` that starts `words` with `settings` in the environment."""
        program = work / f"python-{name}"
        given = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"} | settings
        line = shlex.join(["env", *(f"{key}={value}" for key, value in given.items()), *map(str, words)])
        program.write_text(f'#!/bin/sh\nexec {line.replace("PROGRAM", shlex.quote(str(program)))} "$@"\n')
        program.chmod(0o755)
        return cls(name, program)

    def deepfer(self, *words: str | Path) -> str:
        """What `deepfer` prints there."""
        return call(self.program, "-m", "deepfer_yolo", *words)


def here(work: Path) -> Device:
    """This machine's own processor."""
    return Device.of("here", work, {}, [sys.executable])


def x86(cpu: str, work: Path) -> Device:
    """An x86 processor by qemu's name, with this environment's packages."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    words = [QEMU_X86, "-cpu", cpu, "-0", "PROGRAM", sys.executable]
    return Device.of(cpu, work, {"PYTHONPATH": f"{ROOT}:{packages}"}, words)


class Arm:
    """A Debian of arm64 in `folder`, whose packages are merely unpacked: it has Python and no library but its own."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._root = folder, folder / "root"
        folder.mkdir(parents=True, exist_ok=True)
        if not self._root.exists():
            part = folder / "root.part"
            shutil.rmtree(part, ignore_errors=True)
            kind = ("--arch=arm64", "--foreign", "--variant=minbase", "--include=python3,libstdc++6")
            call("debootstrap", *kind, "bookworm", part)
            for package in sorted((part / "var" / "cache" / "apt" / "archives").glob("*.deb")):
                call("dpkg", "-x", package, part)
            (part / "proc").mkdir(exist_ok=True)
            (part / "proc" / "cpuinfo").write_text(CPU_INFO)
            if sys.version_info[:2] == (3, 11):  # what is compiled here need not be there, at each start, by emulation
                call(
                    sys.executable, "-m", "compileall", "-q", part / "usr" / "lib" / "python3.11", "-x", "idlelib|test"
                )
            part.rename(self._root)

    def device(self, cpu: str, work: Path, extra: str = "") -> Device:
        """A processor by qemu's name, with the packages of the base install, or of an extra too."""
        settings = {"PYTHONPATH": f"{self._wheels(extra)}:{ROOT}", "PYTHONHOME": str(self._root / "usr")}
        python = self._root / "usr" / "bin" / f"python{PYTHON}"
        return Device.of(cpu, work, settings, [QEMU_ARM, "-L", self._root, "-cpu", cpu, "-0", "PROGRAM", python])

    def _wheels(self, extra: str) -> Path:
        wanted = requirements(extra)
        pins = (ROOT / "constraints.txt").read_bytes()
        folder = self._folder / f"wheels-{hashlib.sha256(repr(wanted).encode() + pins).hexdigest()[:12]}"
        if not folder.exists():
            where = [word for platform in PLATFORMS for word in ("--platform", platform)]
            kind = ("--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp")
            pip = (sys.executable, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt")
            part = self._folder / "wheels.part"
            shutil.rmtree(part, ignore_errors=True)
            call(*pip, *kind, *where, "--target", part, *wanted, cwd=self._folder)
            part.rename(folder)
        return folder


def requirements(extra: str = "", markers: dict[str, str] = MARKERS) -> list[str]:
    """What the package asks for there, without markers, which pip would judge by the machine that it runs on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: list[str] = []
    for line in project["dependencies"] + (project["optional-dependencies"][extra] if extra else []):
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate(markers):
            own = wanted.name == project["name"]
            found += requirements(next(iter(wanted.extras)), markers) if own else [f"{wanted.name}{wanted.specifier}"]
    return found


def kept_folder(otherwise: Path) -> Path:
    """Where the arm64 system stays for the next run: $DEEPFER_DEVICES, else nowhere."""
    return Path(os.environ.get("DEEPFER_DEVICES") or otherwise)
