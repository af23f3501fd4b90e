"""`deepfer runs list|show|diff` at the shell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deepfer_yolo.cli.app import app
from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.runs import create_run, write_metrics

Deepfer = Callable[..., Any]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for command, name, seed, top1 in (("evaluate", "a", 0, 0.5), ("evaluate", "b", 7, 0.75), ("train", "a", 0, 0.6)):
        run = create_run(command, name, EvaluateConfig(seed=seed), tmp_path / "runs")
        metrics = {
            "n": 100,
            "top1": top1,
            "macro_f1": top1 - 0.1,
            "ece": 0.05,
            "dataset": {"name": "faces"},
            "per_class": {"sad": {"recall": top1}},
        }
        write_metrics(run, metrics | ({"clean": {"top1": 0.7}} if name == "b" else {}))
    return tmp_path / "runs"


def test_list(deepfer: Deepfer, runs: Path) -> None:
    done = deepfer("runs", "list")
    assert done.returncode == 0
    assert "evaluate/b" in done.stdout
    assert "75.0" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    only = deepfer("runs", "list", "--command", "train", "--json")
    assert [run["name"] for run in json.loads(only.stdout)] == ["train/a"]


def test_show(deepfer: Deepfer, runs: Path) -> None:
    done = deepfer("runs", "show", "b")
    assert "per_class.sad.recall" in done.stdout
    assert "0.75" in done.stdout
    assert json.loads(deepfer("runs", "show", "evaluate/b", "--json").stdout)["config"]["seed"] == 7


def test_diff_shows_configuration_and_metrics_that_changed_and_nothing_else(deepfer: Deepfer, runs: Path) -> None:
    done = deepfer("runs", "diff", "evaluate/a", "b")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["seed", "0", "7", "+7"] in rows
    assert ["top1", "0.5", "0.75", "+0.25"] in rows
    assert "metrics only of b: clean.top1" in done.stdout
    assert "batch" not in done.stdout
    found = json.loads(deepfer("runs", "diff", "evaluate/a", "b", "--json").stdout)
    assert found["config"] == {"seed": [0, 7]}
    assert found["metrics"]["clean.top1"] == [None, 0.7]
    assert deepfer("runs", "diff", "b", "evaluate/b").stdout.strip() == "no difference"


def test_names(deepfer: Deepfer, runs: Path) -> None:
    two = deepfer("runs", "show", "a")
    assert two.returncode == 1
    assert "several runs are called 'a': evaluate/a, train/a" in two.stderr
    none = deepfer("runs", "show", "evaluate/c")
    assert none.returncode == 1
    assert "nearest: evaluate/" in none.stderr


def test_damaged_and_missing_runs_do_not_stop_the_list(deepfer: Deepfer, runs: Path, tmp_path: Path) -> None:
    (runs / "evaluate" / "b" / "metrics.json").write_text("{broken")
    (runs / "evaluate" / "a" / "config.yaml").unlink()
    done = deepfer("runs", "list", "--json")
    assert done.returncode == 0
    problems = {run["name"]: run["problems"] for run in json.loads(done.stdout)}
    assert problems == {
        "evaluate/a": ["config.yaml is missing"],
        "evaluate/b": ["metrics.json cannot be read (Expecting property name enclosed in double quotes)"],
        "train/a": [],
    }
    empty = deepfer("runs", "list", "--root", tmp_path / "nowhere")
    assert empty.returncode == 0
    assert "no runs in" in empty.stderr


DEEP = "[" * 3000 + "]" * 3000
BAD = {
    "no JSON": ("metrics.json", "{broken"),
    "a list": ("metrics.json", "[1, 2]"),
    "nested": ("metrics.json", '{"n": ' + DEEP + "}"),
    "no UTF-8": ("metrics.json", "\udcff"),
    "a key twice": ("metrics.json", '{"n": 1, "n": 2}'),
    "nested environment": ("env.json", DEEP),
    "no yaml": ("config.yaml", "a: [}"),
    "an impossible date": ("config.yaml", "a: 2026-13-45"),
    "no float": ("config.yaml", "a: !!float x"),
    "nested yaml": ("config.yaml", DEEP),
}


@pytest.mark.parametrize("name", BAD)
def test_one_bad_record_is_named_and_the_others_are_listed(name: str, runs: Path) -> None:
    file, content = BAD[name]
    (runs / "evaluate" / "b" / file).write_bytes(content.encode("utf-8", "surrogateescape"))
    done = CliRunner().invoke(app, ["runs", "list", "--root", str(runs)])
    assert done.exit_code == 0
    assert all(run in done.stdout for run in ("evaluate/a", "evaluate/b", "train/a"))
    assert f"evaluate/b: {file} cannot be read (" in done.stderr
    assert max(map(len, done.stderr.splitlines())) < 160
    as_json = json.loads(CliRunner().invoke(app, ["runs", "list", "--root", str(runs), "--json"]).stdout)
    assert [bool(run["problems"]) for run in sorted(as_json, key=lambda run: str(run["name"]))] == [False, True, False]


@pytest.mark.parametrize(
    "metrics",
    [
        {"n": {"x": 1}, "top1": "no", "macro_f1": True, "ece": [0.1]},
        {"n": [1] * 500, "top1": 10**400, "macro_f1": -1, "ece": None},
        {"val": "x", "dataset": {"name": ["faces"] * 90}},
    ],
)
def test_figures_of_another_kind_are_dashes(metrics: dict[str, Any], runs: Path) -> None:
    (runs / "evaluate" / "b" / "metrics.json").write_text(json.dumps(metrics))
    (runs / "evaluate" / "b" / "env.json").write_text('{"time": ["soon"]}')
    done = CliRunner().invoke(app, ["runs", "list", "--root", str(runs)], env={"COLUMNS": "80"})
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    [line] = [line for line in done.stdout.splitlines() if "evaluate/b" in line]
    assert line.split()[-1] == "–"


def test_models_at_80_columns_have_whole_names_and_paths_without_their_middle() -> None:
    shown = CliRunner().invoke(app, ["models"], env={"COLUMNS": "80"}).stdout.splitlines()
    known = json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)
    assert all(len(line) <= 80 for line in shown)
    for model in known:
        [line] = [line for line in shown if line.startswith(f"{model['name']} ")]
        assert model["path"] is None or line.rstrip().endswith(Path(model["path"]).name[-6:])
