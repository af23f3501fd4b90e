"""`deepfer doctor`: what is installed, what it can use, and what would go wrong."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from deepfer_yolo.cli.options import JsonOption
from deepfer_yolo.errors import SYSTEM_LIBRARIES_HINT

DISTRIBUTION = "deepfer-yolo"
EXTRAS = {
    "eval": "audit reports, evaluate, gate: metrics, intervals, plots, HTML",
    "train": "train, export from a checkpoint, tune (torch, Ultralytics)",
}
"""What each extra adds, in words."""

CLASHES = (
    ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
    ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"),
)
"""Distributions that write into one folder: with two of a row installed, which files win is chance."""

# Native libraries meet their first contact in a child process: a crash or a hang there becomes a line in the report.
PROBES = {
    "opencv": "import cv2, json; print(json.dumps({'version': cv2.__version__, 'haar': hasattr(cv2, 'CascadeClassifier')}))",
    "onnxruntime": "import onnxruntime as o, json; print(json.dumps({'version': o.__version__, 'providers': o.get_available_providers()}))",
    "av": "import av, json; print(json.dumps({'version': av.__version__, 'h264': 'libx264' in av.codecs_available}))",
    "torch": "import torch, json; n = torch.cuda.device_count(); print(json.dumps({'version': torch.__version__, 'cuda': "
    "[torch.cuda.get_device_name(i) for i in range(n)], 'threads': torch.get_num_threads()}))",
    "ultralytics": "import deepfer_yolo.yolo, ultralytics, json; print(json.dumps({'version': ultralytics.__version__}))",
}
PROBE_TIMEOUT_S = 60


def doctor(
    sizes: Annotated[
        bool, typer.Option("--sizes", help="Also list every installed dependency with its size on disk.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Report versions, devices, cameras, clashing installs, and what each missing extra would add.

    Exits 1 when something that the base install needs does not work.

    Example: deepfer doctor --sizes
    """
    report = _examine(with_sizes=sizes)
    if as_json:
        from deepfer_yolo.cli.output import print_json

        print_json(report)
    else:
        _print(report)
    if report["problems"]:
        raise typer.Exit(1)


def _examine(*, with_sizes: bool) -> dict[str, Any]:
    probes = _probe_all()
    base_sizes = _sizes("")
    report: dict[str, Any] = {
        "deepfer": importlib.metadata.version(DISTRIBUTION),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "libraries": probes,
        "cameras": sorted(str(path) for path in Path("/dev").glob("video*")),
        "extras": {extra: _missing(extra) for extra in EXTRAS},
        "base_install_mb": round(sum(base_sizes.values()) / 1e6, 1),
        "problems": _problems(probes),
    }
    if with_sizes:
        report["sizes_mb"] = {name: round(size / 1e6, 1) for name, size in _sizes(*EXTRAS, "").items()}
    return report


def _probe_all() -> dict[str, dict[str, Any]]:
    missing = {module for module in ("torch", "ultralytics") if not _is_installed(module)}
    names = [name for name in PROBES if name not in missing]
    children = {
        name: subprocess.Popen(
            [sys.executable, "-c", PROBES[name]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name in names
    }
    return {name: _read_probe(child) for name, child in children.items()}


def _read_probe(child: subprocess.Popen[str]) -> dict[str, Any]:
    try:
        output, errors = child.communicate(timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return {"error": f"no answer within {PROBE_TIMEOUT_S} s"}
    if child.returncode != 0:
        reason = errors.strip().splitlines()[-1] if errors.strip() else f"exit status {child.returncode}"
        return {"error": reason}
    answer: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return answer


def _problems(probes: dict[str, dict[str, Any]]) -> list[str]:
    problems = []
    for name, answer in probes.items():
        if "error" in answer:
            fix = f" ({SYSTEM_LIBRARIES_HINT})" if "cannot open shared object file" in answer["error"] else ""
            problems.append(f"{name} does not load: {answer['error']}{fix}")
    for row in CLASHES:
        found = [name for name in row if _is_installed(name)]
        if len(found) > 1:
            problems.append(
                f"{' and '.join(found)} overwrite each other: pip uninstall -y {' '.join(found)}, then install one again"
            )
    if probes.get("opencv", {}).get("haar") is False:
        problems.append('OpenCV 5 has no Haar cascade and cannot read the face model: pip install "opencv-python<5"')
    return problems


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _missing(extra: str) -> list[str]:
    """Distributions of an extra that are not installed."""
    return sorted(name for name in _closure(extra, deep=False) if not _is_installed(name))


def _closure(*extras: str, deep: bool = True) -> set[str]:
    """Names of the distributions that the given extras ("" is the base install) ask for; `deep` adds what those need in
    turn.
    """
    found: set[str] = set()
    todo = [(DISTRIBUTION, extra) for extra in extras]
    seen = set(todo)
    while todo:
        name, extra = todo.pop()
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for line in requires:
            wanted = _requirement(line, extra)
            if wanted is None:
                continue
            child, child_extras = wanted
            if child != DISTRIBUTION:
                found.add(child)
            steps = [(child, e) for e in (*child_extras, "") if deep or child == DISTRIBUTION]
            todo += [step for step in steps if step not in seen and step != (DISTRIBUTION, "")]
            seen.update(steps)
    return found


def _requirement(line: str, extra: str) -> tuple[str, tuple[str, ...]] | None:
    """Name and extras of one requirement that holds here under `extra`; None where it does not."""
    from packaging.requirements import Requirement

    requirement = Requirement(line)
    of_extra = requirement.marker is not None and "extra" in str(requirement.marker)
    if of_extra != bool(extra) or (
        requirement.marker is not None and not requirement.marker.evaluate({"extra": extra})
    ):
        return None
    return re.sub(r"[-_.]+", "-", requirement.name).lower(), tuple(requirement.extras)


def _sizes(*extras: str) -> dict[str, int]:
    """Bytes on disk by installed distribution, largest first."""
    sizes = {}
    for name in _closure(*extras):
        if _is_installed(name):
            files = importlib.metadata.files(name) or []
            sizes[name] = sum(file.size or 0 for file in files)
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _print(report: dict[str, Any]) -> None:
    from rich.table import Table

    from deepfer_yolo.cli.output import stdout

    console = stdout()
    console.print(
        f"deepfer {report['deepfer']} · Python {report['python']} · {report['system']} · {report['cores']} cores"
    )
    table = Table("library", "version", "offers", box=None, header_style="bold", pad_edge=False)
    for name, answer in report["libraries"].items():
        rest = {key: value for key, value in answer.items() if key != "version"}
        table.add_row(name, answer.get("version", "—"), answer.get("error") or _offers(rest))
    console.print(table)
    console.print(f"cameras: {', '.join(report['cameras']) or 'none'}")
    console.print(f"base install: {report['base_install_mb']:.0f} MB on disk")
    for extra, missing in report["extras"].items():
        state = "installed" if not missing else f'missing {", ".join(missing)}: pip install "{DISTRIBUTION}\\[{extra}]"'
        console.print(f"\\[{extra}] {EXTRAS[extra]}: {state}")
    for name, size in report.get("sizes_mb", {}).items():
        console.print(f"{size:9.1f} MB  {name}")
    for problem in report["problems"]:
        console.print(f"[bold red]problem:[/] {problem}")
    if not report["problems"]:
        console.print("no problems found")


def _offers(answer: dict[str, Any]) -> str:
    parts = []
    for key, value in answer.items():
        if isinstance(value, list):
            parts.append(f"{key}: {', '.join(value).replace('ExecutionProvider', '') or 'none'}")
        elif isinstance(value, bool):
            parts.append(key if value else f"no {key}")
        else:
            parts.append(f"{key}: {value}")
    return " · ".join(parts)
