"""The record of runs: `runs/<command>/<name>/` with the resolved configuration, the environment and the metrics."""

from __future__ import annotations

import difflib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from deepfer_yolo.errors import ConfigError, redact
from deepfer_yolo.files import write_atomic
from deepfer_yolo.presets import Config, to_yaml
from deepfer_yolo.records import plain

CONFIG, ENVIRONMENT, METRICS = "config.yaml", "env.json", "metrics.json"
PACKAGES = (
    "deepfer-yolo", "numpy", "pillow", "opencv-python", "onnx", "onnxruntime", "av", "torch", "torchvision", "ultralytics",
    "scikit-learn", "scipy", "matplotlib", "openvino", "tensorrt", "ncnn",
)  # fmt: skip


def create_run(command: str, name: str | None, config: Config, root: Path = Path("runs")) -> Path:
    """Make `root/command/name/` with `config.yaml` and `env.json`, and return it; no `name` means date and time.

    Raises ConfigError for a name that exists already or is not a plain folder name.
    """
    if name is not None and (not name.strip() or name in {".", ".."} or re.search(r'[/\\\0:*?"<>|]', name)):
        raise ConfigError(f"'{name}' cannot be the name of a run", "use letters, digits, dots, - and _")
    folder = root / command
    folder.mkdir(parents=True, exist_ok=True)
    if name is not None:
        run = folder / name
        try:
            run.mkdir()
        except FileExistsError:
            raise ConfigError(f"there is a run of this name already: {run}", "choose another --name") from None
    else:
        run = _dated(folder)
    write_atomic(run / CONFIG, to_yaml(config))
    write_atomic(run / ENVIRONMENT, json.dumps(environment(), indent=1, ensure_ascii=False) + "\n")
    return run


@contextmanager
def recorded_run(command: str, name: str | None, config: Config, root: Path = Path("runs")) -> Iterator[Path]:
    """`create_run`'s folder, which is removed again where the block ends by an error or a signal before `metrics.json`
    is written.
    """
    new = [folder for folder in (root / command, root) if not folder.exists()]
    run = create_run(command, name, config, root)
    try:
        yield run
    except BaseException:
        if not (run / METRICS).is_file():
            shutil.rmtree(run, ignore_errors=True)
            with suppress(OSError):  # another run has begun there since
                for folder in new:
                    folder.rmdir()
        raise


def _dated(folder: Path) -> Path:
    stamp = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1, 1000):
        run = folder / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            run.mkdir()
        except FileExistsError:
            continue
        return run
    raise ConfigError(f"a thousand runs began in the same second in {folder}", "give each a --name")


def write_metrics(run: Path, metrics: Mapping[str, Any]) -> Path:
    """Write `metrics.json` into a run's folder and return its path; numpy values become plain ones and NaN becomes
    null.
    """
    return write_json(run / METRICS, metrics)


def write_json(path: Path, value: Any) -> Path:
    """Write `value` as `plain` JSON and return the path."""
    text = json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # File names that are not UTF-8 hold lone surrogates, which JSON writes as escapes.
    write_atomic(path, text.encode("utf-8", "backslashreplace"))
    return path


def environment() -> dict[str, Any]:
    """Where and with what a number was made: time, command line, versions, hardware, commit.

    Passwords in URLs are left out.
    """
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command_line(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "gpus": _gpus(),
        "commit": _commit(),
        "versions": _versions(),
    }


def command_line() -> str:
    """The command that runs now, as one would type it again but for passwords in URLs."""
    import shlex

    program = Path(sys.argv[0])
    shown = "deepfer" if program.name in {"deepfer", "deepfer.exe", "__main__.py"} else program.name
    return shlex.join([shown, *map(redact, sys.argv[1:])])


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """The processor as the system names it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    match = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1).strip() if match else platform.processor()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _gpus() -> list[str]:
    """NVIDIA devices by the driver's own list; loading CUDA to ask would cost seconds."""
    names = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        match = re.search(r"^Model:\s*(.+)$", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        names.append(match.group(1).strip() if match else path.parent.name)
    return names


def _commit() -> str | None:
    """The commit of the working directory's repository, `+` where files were changed; None outside of one."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


HEADLINE = ("top1", "macro_f1", "ece", "verdict")
LONGEST = 40
LIST_HEADER = ("run", "started", "data", "n", "top-1", "macro F1", "ECE")


def find_runs(root: Path) -> list[Path]:
    """Every run below `root`, oldest first."""
    found = [path.parent for path in root.glob(f"*/*/{ENVIRONMENT}")]
    return sorted(found, key=lambda run: (str(read_run(run)["environment"].get("time", "")), str(run)))


def find_run(name: str, root: Path) -> Path:
    """The run called `name` (NAME where it is the only one, or COMMAND/NAME, or a path).

    Raises ConfigError that lists the nearest.
    """
    for path in (Path(name), root / name):
        if (path / ENVIRONMENT).is_file():
            return path
    runs = find_runs(root)
    same = [run for run in runs if run.name == name]
    if len(same) == 1:
        return same[0]
    shown = [f"{run.parent.name}/{run.name}" for run in (same or runs)]
    if same:
        raise ConfigError(f"several runs are called '{name}': {', '.join(shown)}", "say which one, as COMMAND/NAME")
    near = difflib.get_close_matches(name, [*shown, *(run.name for run in runs)], n=3)
    raise ConfigError(
        f"no run named '{name}' in {root}" + (f" (nearest: {', '.join(near)})" if near else ""), "deepfer runs list"
    )


def read_run(run: Path) -> dict[str, Any]:
    """Configuration, environment and metrics of a run; what is missing or broken becomes empty and is named under
    `problems`.
    """
    content: dict[str, Any] = {"name": f"{run.parent.name}/{run.name}", "path": str(run), "problems": []}
    for key, file in (("config", CONFIG), ("environment", ENVIRONMENT), ("metrics", METRICS)):
        path = run / file
        content[key] = {}
        if not path.is_file():
            if key != "metrics":
                content["problems"].append(f"{file} is missing")
            continue
        try:
            text = path.read_text(encoding="utf-8")
            found = yaml.safe_load(text) if file == CONFIG else json.loads(text)
        except (ValueError, yaml.YAMLError):
            content["problems"].append(f"{file} cannot be read")
            continue
        content[key] = found if isinstance(found, dict) else {}
    return content


def list_row(run: Mapping[str, Any]) -> list[str]:
    """A run as a row of the list: shares in per cent, a dash for what it has not measured."""
    metrics, started = run["metrics"], str(run["environment"].get("time", ""))
    if isinstance(metrics.get("val"), dict):  # a training run measures its val split
        metrics = {**metrics, "ece": metrics.get("calibration", {}).get("ece_after"), **metrics["val"]}
    data = metrics.get("dataset")
    named = data.get("name", "") if isinstance(data, dict) else Path(str(run["config"].get("data") or "")).name
    shares = [f"{100 * metrics[key]:.1f}" if isinstance(metrics.get(key), int | float) else "–" for key in HEADLINE[:3]]
    return [run["name"], started[:16].replace("T", " "), named, str(metrics.get("n", "–")), *shares]


def flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots; lists stay values."""
    if not isinstance(content, Mapping):
        return {prefix: content}
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Every key whose value differs, with both values; None where one side has no such key. Long lists are left out."""
    one, two = flatten(a), flatten(b)
    changed = [key for key in dict.fromkeys([*one, *two]) if one.get(key) != two.get(key)]
    return [(key, one.get(key), two.get(key)) for key in changed if not isinstance(one.get(key, two.get(key)), list)]


def diff_runs(a: Path, b: Path) -> dict[str, list[tuple[str, Any, Any]]]:
    """How two runs differ: configuration, environment (without the time) and metrics."""
    one, two = read_run(a), read_run(b)
    sections = {}
    for key in ("config", "environment", "metrics"):
        sides = (
            {name: value for name, value in side[key].items() if name not in {"time", "command"}} for side in (one, two)
        )
        sections[key] = difference(*sides)
    return sections


def show_value(value: Any) -> str:
    """A value in a table: short floats, a dash for none, the beginning of what is long."""
    if value is None:
        return "–"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def change(a: Any, b: Any) -> str:
    """The signed change of a number; empty for anything else."""
    if isinstance(a, bool) or isinstance(b, bool) or not (isinstance(a, int | float) and isinstance(b, int | float)):
        return ""
    return f"{b - a:+.4g}"
