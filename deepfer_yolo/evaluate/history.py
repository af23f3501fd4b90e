"""Past runs: which there are, what each gave, and how two differ."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deepfer_yolo.errors import ConfigError
from deepfer_yolo.evaluate.runs import CONFIG, ENVIRONMENT, METRICS

HEADLINE = ("top1", "macro_f1", "ece", "verdict")
LONGEST = 40
LIST_HEADER = ("run", "started", "data", "n", "top-1", "macro F1", "ECE")


def find_runs(root: Path) -> list[Path]:
    """Every run below `root`, oldest first."""
    found = [path.parent for path in root.glob(f"*/*/{ENVIRONMENT}")]
    return sorted(found, key=lambda run: (str(read_run(run)["environment"].get("time", "")), str(run)))


def find_run(name: str, root: Path) -> Path:
    """The run called `name` (NAME where it is the only one, or COMMAND/NAME, or a path). Raises ConfigError that lists the nearest."""
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
    raise ConfigError(f"no run named '{name}' in {root}" + (f" (nearest: {', '.join(near)})" if near else ""), "deepfer runs list")


def read_run(run: Path) -> dict[str, Any]:
    """Configuration, environment and metrics of a run; what is missing or broken becomes empty and is named under `problems`."""
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
        sides = ({name: value for name, value in side[key].items() if name not in {"time", "command"}} for side in (one, two))
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
