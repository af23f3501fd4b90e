"""From an audit to a gate: doubted, reviewed over HTTP by a script, converted, learned and judged, at the shell."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from deepfer_yolo.data.dataset import open_dataset, read_description, read_manifest, register

Deepfer = Callable[..., Any]
TOKEN = "0123456789abcdef"
TINY = """nc: 7
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [-1, 1, Classify, [nc]]
"""
RECIPE = ("--model", "tiny-cls.yaml", "--imgsz", 32, "--batch", 35, "--threads", 1, "--epochs", 1)


@pytest.fixture
def mislabelled(painted_dataset: Path, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """The painted set with a second copy of six images under a wrong label, in train and test; and the right labels."""
    folder = tmp_path / "faces"
    shutil.copytree(painted_dataset, folder)
    rows, right = read_manifest(folder), {}
    for split in ("train", "test"):
        for row in [row for row in rows if (row.split, row.label) == (split, "happy")][:3]:
            path = f"{split}/sad/wrong-{Path(row.path).name}"
            shutil.copy(folder / row.path, folder / path)
            rows.append(replace(row, path=path, label="sad"))
            right |= {path: "happy", row.path: "happy"}
    register(rows, read_description(folder), folder)
    return folder, right


def review(start_review: Callable[..., Any], folder: Path, data: Path, right: dict[str, str], *words: object) -> None:
    """Decide everything that the page shows, as a browser does."""
    served = start_review(folder, data, "--only", "conflicts", "--no-near", "--token", TOKEN, *words)
    me = {"session": "browser-one", "reviewer": "Ada"}
    with httpx.Client(base_url=served.url.partition("?")[0], headers={"authorization": f"Bearer {TOKEN}"}) as client:
        while items := client.post("v1/next", json=me).json()["items"]:
            answer = {**me, "id": items[0]["id"], "answer": right[items[0]["path"]]}
            client.post("v1/decisions", json=answer).raise_for_status()
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(20) == 0


def test_doubted_reviewed_converted_learned_and_judged(
    deepfer: Deepfer,
    start_review: Callable[..., Any],
    mislabelled: tuple[Path, dict[str, str]],
    linear_model: Path,
    tmp_path: Path,
) -> None:
    data, right = mislabelled
    (tmp_path / "tiny-cls.yaml").write_text(TINY)
    judge = ("--no-near", "--config", "judge.yaml")
    (tmp_path / "judge.yaml").write_text("fail_on: warning\nseverity:\n  few: note\n  duplicate: note\n")
    assert deepfer("audit", data, *judge).returncode == 3  # conflicts
    review(start_review, tmp_path, data, right)
    review(start_review, tmp_path, data, right, "--held-out")

    done = deepfer("audit", data, *judge, "--corrections", "corrections.csv", "--json")
    assert done.returncode == 3  # the set is what it was
    assert json.loads(done.stdout)["settled"]["findings"]["conflict"] == {"groups": 6, "settled": 3}
    assert deepfer("convert", data, "new", "--corrections", "corrections.held-out.csv").returncode == 1
    both = ("--corrections", "corrections.csv", "--corrections", "corrections.held-out.csv", "--held-out")
    done = deepfer("convert", data, "new", *both, "--json")
    assert done.returncode == 0, done.stderr
    assert [one["counts"]["changed"] for one in json.loads(done.stdout)["corrections"]] == [3, 3]
    assert {row.label for row in open_dataset(tmp_path / "new").all_rows if "wrong" in row.path} == {"happy"}
    assert deepfer("audit", "new", *judge).returncode == 0

    assert deepfer("train", "new", *RECIPE, "--name", "new").returncode == 0
    assert deepfer("train", data, *RECIPE, "--corrections", "corrections.csv", "--name", "same").returncode == 0
    learned = [json.loads(Path(f"runs/train/{name}/metrics.json").read_text()) for name in ("new", "same")]
    assert learned[0]["corrections"][0] == learned[1]["corrections"][0]

    gate = ("gate", "new", "-m", linear_model, "--champion", linear_model, "--json")
    done = deepfer(*gate)
    assert done.returncode == 5, done.stderr  # so few images decide nothing
    found = json.loads(done.stdout)
    assert (found["judged_by"], found["corrections"]["changed"]) == ("original", 3)
    tops = (found["challenger"]["top1"], found["corrections"]["other"]["challenger"]["top1"])
    assert tops[1] != tops[0]
    (tmp_path / "floors.yaml").write_text("floors:\n  top1: 0.999\n")
    assert deepfer(*gate, "--config", "floors.yaml").returncode == 3
    (tmp_path / "wide.yaml").write_text("margin: 0.5\n")
    assert deepfer(*gate, "--config", "wide.yaml").returncode == 0
