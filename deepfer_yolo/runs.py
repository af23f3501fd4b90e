"""The record of runs: `runs/<command>/<name>/` with the resolved configuration, the environment and the metrics."""

from __future__ import annotations

import difflib
import json
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from deepfer_yolo.errors import ConfigError, redact
from deepfer_yolo.files import MOMENT_S, STAGING_MARK, held, hold, is_held, write_atomic
from deepfer_yolo.presets import Config, load_yaml, to_yaml
from deepfer_yolo.records import Json, JsonValue, parse_json, plain

LOG = logging.getLogger("deepfer.runs")

CONFIG, ENVIRONMENT, METRICS, LOCK = "config.yaml", "env.json", "metrics.json", ".lock"
RESUMABLE = ("weights/*.pt", "study.db", "worker", "fold-*/metrics.json", "fold-*/weights/*.pt")
"""What a training, a search or a cross-validation has left once there is something to go on with."""
CPU_INFO = Path("/proc/cpuinfo")
FASTER_IN_FP32 = "fp32 is faster here: this processor has no AVX2, without which int8 takes 1.3 to 2 times as long"
State = Literal["running", "stopped", "failed", "finished"]
_ours: dict[Path, int | None] = {}
"""The runs of this process, and the handles that hold them."""
PACKAGES = (
    "deepfer-yolo", "numpy", "pillow", "opencv-python", "onnx", "onnxruntime", "av", "torch", "torchvision",
    "ultralytics", "scikit-learn", "scipy", "matplotlib", "openvino", "tensorrt", "ncnn",
)  # fmt: skip


def create_run(command: str, name: str | None, config: Config, root: Path = Path("runs")) -> Path:
    """Make `root/command/name/` with `config.yaml` and `env.json`, and return it; no `name` means date and time.

    A run of that name that a kill or a full disk ended without a result is replaced, unless it can go on. Raises
    ConfigError for a name that exists already or is not a plain folder name.
    """
    if name is not None and (not name.strip() or name in {".", ".."} or re.search(r'[/\\\0:*?"<>|]', name)):
        raise ConfigError(f"'{name}' cannot be the name of a run", "use letters, digits, dots, - and _")
    stamp = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
    names = [name] if name is not None else [stamp, *(f"{stamp}-{number}" for number in range(2, 1000))]
    folder = root / command
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder, wait_s=60):  # of two that start at once, one has a name first
        for run in (folder / one for one in names):
            if name is not None and run.is_dir():
                _take_over(run)
            with suppress(FileExistsError):
                run.mkdir()
                break
        else:
            raise ConfigError(f"there is a run of this name already: {run}", "choose another --name")
        _ours[run.resolve()] = hold(run, wait_s=MOMENT_S)
    try:
        write_atomic(run / CONFIG, to_yaml(config))
        write_atomic(run / ENVIRONMENT, json.dumps(environment(), indent=1, ensure_ascii=False) + "\n")
    except BaseException:
        release(run)
        shutil.rmtree(run, ignore_errors=True)
        raise
    return run


def release(run: Path) -> None:
    """Hold a run of this process no longer: it has ended, or is locked otherwise."""
    handle = _ours.pop(run.resolve(), None)
    if handle is not None:
        os.close(handle)


def _take_over(run: Path) -> None:
    """Remove a run that ended without a result, and say so. Raises ConfigError for one that is under way or can go on;
    any other folder is left.
    """
    state = state_of(run)
    if state == "running":
        raise ConfigError(f"a run of this name is under way: {run}", "wait for it, or choose another --name")
    if state == "stopped":
        hint = f"deepfer {run.parent.name} --resume {run}, or choose another --name"
        raise ConfigError(f"a run of this name was stopped and can go on: {run}", hint)
    has_nothing = all(STAGING_MARK in path.name for path in run.iterdir())
    if state == "failed" and (has_nothing or (run / CONFIG).is_file()):
        if is_held(run) is None:  # a link, another user's, or a disk without locks
            reason = f"there is a run of this name already, and whether it is under way cannot be known: {run}"
            raise ConfigError(reason, "choose another --name, or remove the folder")
        LOG.warning("note: %s had ended without a result; this run takes its place", run)
        shutil.rmtree(run)


def state_of(run: Path) -> State:
    """How a run stands: `running` while a living process holds it, `finished` with its figures, `stopped` where
    `--resume` goes on with it, else `failed`.
    """
    if (run / METRICS).is_file():
        return "finished"
    if (run.resolve() not in _ours and is_held(run)) or ((run / LOCK).is_file() and is_held(run / LOCK)):
        return "running"
    return "stopped" if any(next(run.glob(trace), None) for trace in RESUMABLE) else "failed"


@contextmanager
def recorded_run(command: str, name: str | None, config: Config, root: Path = Path("runs")) -> Iterator[Path]:
    """`create_run`'s folder, which is removed where the block ends by an error or a signal before `metrics.json`."""
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
    finally:
        release(run)


def write_metrics(run: Path, metrics: Mapping[str, object]) -> Path:
    """Write `metrics.json` into a run's folder and return its path."""
    return write_json(run / METRICS, metrics)


def write_json(path: Path, value: object) -> Path:
    """Write `value` as `plain` JSON and return the path."""
    text = json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # File names that are not UTF-8 hold lone surrogates, which JSON writes as escapes.
    write_atomic(path, text.encode("utf-8", "backslashreplace"))
    return path


def environment() -> Json:
    """Where and with what a number was made: time, command line, versions, hardware, commit."""
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command_line(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cores": cores(),
        "memory_gb": _memory_gb(),
        "gpus": _gpus(),
        "commit": _commit(),
        "versions": _versions(),
    }


def cores() -> int:
    """Cores that this process may use; a container or taskset may grant fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command_line() -> str:
    """The command that runs now, as one would type it again but for passwords in URLs."""
    program = Path(sys.argv[0])
    shown = "deepfer" if program.name in {"deepfer", "deepfer.exe", "__main__.py"} else program.name
    return shlex.join([shown, *map(redact, sys.argv[1:])])


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def cpu_name() -> str:
    """The processor as the system names it."""
    match = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", _cpu_info(), re.MULTILINE)
    return match.group(1).strip() if match else platform.processor()


def int8_note(precision: str, provider: str) -> str | None:
    """What is to be said where a model of that precision runs there; None but for int8 on a processor that is slow."""
    return FASTER_IN_FP32 if (precision, provider) == ("int8", "cpu") and int8_is_slow() else None


def int8_is_slow() -> bool:
    """Whether this is an x86 processor without AVX2, on which int8 takes longer than fp32 (docs/deploy.md)."""
    flags = re.search(r"^flags\s*:\s*(.+)$", _cpu_info(), re.MULTILINE)
    return flags is not None and "avx2" not in flags.group(1).split()


def _cpu_info() -> str:
    """What Linux tells of the processors; empty elsewhere."""
    try:
        return CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


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


LIST_HEADER = ("run", "started", "data", "n", "top-1", "macro F1", "ECE")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run's folder holds; what is missing or broken there is empty, and named under `problems`."""

    name: str
    path: Path
    state: State
    problems: list[str]
    config: Json
    environment: Json
    metrics: Json

    def to_json(self) -> Json:
        """All of it."""
        return dict(plain(self))

    def started(self) -> str:
        """When it began; empty where that is not known."""
        return str(self.environment.get("time", ""))


def read_runs(root: Path) -> list[RunRecord]:
    """Every run below `root`, oldest first."""
    found = [read_run(path.parent) for path in root.glob(f"*/*/{ENVIRONMENT}")]
    return sorted(found, key=lambda run: (run.started(), str(run.path)))


def find_run(name: str, root: Path) -> RunRecord:
    """The run called `name` (NAME where it is the only one, COMMAND/NAME, or a path); an error lists the nearest."""
    for path in (Path(name), root / name):
        if (path / ENVIRONMENT).is_file():
            return read_run(path)
    runs = read_runs(root)
    same = [run for run in runs if run.path.name == name]
    if len(same) == 1:
        return same[0]
    shown = [run.name for run in (same or runs)]
    if same:
        raise ConfigError(f"several runs are called '{name}': {', '.join(shown)}", "say which one, as COMMAND/NAME")
    near = difflib.get_close_matches(name, [*shown, *(run.path.name for run in runs)], n=3)
    raise ConfigError(
        f"no run named '{name}' in {root}" + (f" (nearest: {', '.join(near)})" if near else ""), "deepfer runs list"
    )


def read_run(run: Path) -> RunRecord:
    """The record in a run's folder."""
    problems: list[str] = []
    config, environment, metrics = (_read(run / name, problems) for name in (CONFIG, ENVIRONMENT, METRICS))
    return RunRecord(f"{run.parent.name}/{run.name}", run, state_of(run), problems, config, environment, metrics)


def _read(path: Path, problems: list[str]) -> Json:
    if not path.is_file():
        if path.name != METRICS:  # its state says that
            problems.append(f"{path.name} is missing")
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        found = load_yaml(text) if path.name == CONFIG else parse_json(text)
        if not isinstance(found, dict):
            raise ValueError("no keys and values")
        json.dumps(found, default=str)  # what is nested deeper than this goes cannot be shown either
    except (ValueError, OSError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).split(":")[0][:80]
        problems.append(f"{path.name} cannot be read ({reason})")
        return {}
    return found


def list_row(run: RunRecord) -> list[str]:
    """A run as a row of the list: shares in per cent, a dash for what it has not measured."""
    flat = flatten(run.metrics)

    def first(*keys: str) -> JsonValue:
        return next((flat[key] for key in keys if key in flat), None)

    data = first("dataset.name") or Path(str(run.config.get("data") or "")).name
    # A training run measures its val split.
    shares = (first("val.top1", "top1"), first("val.macro_f1", "macro_f1"), first("calibration.ece_after", "ece"))
    shown = [f"{100 * share:.1f}" if isinstance(share, float | int) and 0 <= share <= 1 else "–" for share in shares]
    n = first("val.n", "n") if run.state == "finished" else run.state
    counted = str(n) if isinstance(n, int | str) else "–"
    return [run.name, run.started()[:16].replace("T", " "), str(data)[:200], counted[:20], *shown]


def flatten(content: JsonValue, prefix: str = "") -> dict[str, JsonValue]:
    """Nested mappings as one, keys joined by dots; lists stay values."""
    if not isinstance(content, Mapping):
        return {prefix: content}
    flat: dict[str, JsonValue] = {}
    for key, value in content.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


class Change(NamedTuple):
    """A key whose value differs between two runs; None where a run has no such key."""

    key: str
    first: JsonValue
    second: JsonValue


def diff_runs(first: RunRecord, second: RunRecord) -> dict[str, list[Change]]:
    """How two runs differ: configuration, environment (without time and command) and metrics; lists are left out."""
    sections = {}
    for section in ("config", "environment", "metrics"):
        one, two = (flatten(getattr(run, section)) for run in (first, second))
        changes = [Change(key, one.get(key), two.get(key)) for key in dict.fromkeys([*one, *two])]
        sections[section] = [
            change
            for change in changes
            if change.first != change.second
            and change.key not in ("time", "command")
            and not isinstance(one.get(change.key, change.second), list)
        ]
    return sections
