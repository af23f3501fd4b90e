"""Two machines train as one: two agents of torchrun on loopback, in folders of their own, by gloo on processors."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from deepfer_yolo.yolo import load_checkpoint

WORKER = (str(Path(__file__).parent / "node_worker.py"),)
DEEPFER = ("-m", "deepfer_yolo")
TIMEOUT_S = 300


class Nodes:
    """Two nodes, each an agent with a current folder, and so with runs, of its own."""

    def __init__(self, folder: Path, program: Sequence[str], *words: Sequence[object], **environ: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.folders = [folder / "node-0", folder / "node-1"]
        self.agents = []
        for node, place in enumerate(self.folders):
            place.mkdir(exist_ok=True)
            agent = ["--nnodes", "2", "--node_rank", node, "--master_addr", "127.0.0.1", "--master_port", port]
            command = [sys.executable, "-m", "torch.distributed.run", *agent, *program, *words[node % len(words)]]
            environ["GLOO_SOCKET_IFNAME"] = "lo"
            with (place / "out.txt").open("w") as out, (place / "err.txt").open("w") as err:
                self.agents.append(
                    subprocess.Popen(
                        list(map(str, command)), cwd=place, env={**os.environ, **environ}, stdout=out, stderr=err
                    )
                )

    def until(self, seen: Callable[[], bool]) -> None:
        """Wait for something while both live."""
        deadline = time.monotonic() + TIMEOUT_S
        while not seen():
            assert [agent.poll() for agent in self.agents] == [None, None], self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.05)

    def ends(self) -> list[int]:
        """The exit codes of both."""
        try:
            return [agent.wait(timeout=TIMEOUT_S) for agent in self.agents]
        finally:
            for agent in self.agents:
                agent.kill()

    def text(self) -> str:
        return "\n".join(path.read_text() for folder in self.folders for path in sorted(folder.glob("*.txt")))


def recipe(folder: Path, tiny_yaml: Path, **more: object) -> Path:
    path = folder / "recipe.yaml"
    content = {"model": str(tiny_yaml), "imgsz": 32, "batch": 28, "threads": 1, "epochs": 3, **more}
    path.write_text(yaml.safe_dump(content))
    return path


def notes(folder: Path, rank: int, epoch: int) -> dict[str, list[list[int]]]:
    found: dict[str, list[list[int]]] = json.loads((folder / f"rank{rank}-{epoch}.json").read_text())
    return found


def column(run: Path, name: str) -> list[float]:
    with (run / "results.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_two_nodes_train_as_one_process_with_the_whole_batch(
    tmp_path: Path, tiny_yaml: Path, painted_dataset: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    # What mixes images of one batch, which the processes part, is off.
    path = recipe(tmp_path, tiny_yaml, mixup=0.0, cutmix=0.0)
    words = ["train", painted_dataset, "--config", path, "--name", "r"]
    command = [sys.executable, *WORKER, *words]
    subprocess.run(
        list(map(str, command)), cwd=tmp_path, env={**os.environ, "NOTES": str(tmp_path / "one")}, check=True,
        capture_output=True,
    )  # fmt: skip
    nodes = Nodes(tmp_path, WORKER, words, NOTES=str(tmp_path / "two"))
    assert nodes.ends() == [0, 0], nodes.text()
    for epoch in range(3):
        one = notes(tmp_path / "one", 0, epoch)
        parts = [notes(tmp_path / "two", rank, epoch) for rank in (0, 1)]
        assert (one["ranks"], [part["ranks"] for part in parts]) == (1, [2, 2])
        seen = [index for part in parts for batch in part["drawn"] for index in batch]
        assert sorted(seen) == list(range(140))
        assert [sorted(a + b) for a, b in zip(*(part["drawn"] for part in parts), strict=True)] == [
            sorted(batch) for batch in one["drawn"]
        ]
        both = [sum(pair) / 2 for pair in zip(*(part["losses"] for part in parts), strict=True)]  # type: ignore[arg-type]
        assert both == pytest.approx(one["losses"], rel=1e-4)
    alone, first = tmp_path / "runs/train/r", nodes.folders[0] / "runs/train/r"
    assert column(first, "val/loss") == pytest.approx(column(alone, "val/loss"), rel=1e-3)
    weights = [load_checkpoint(run / "weights/last.pt").state_dict() for run in (alone, first)]
    for name, value in weights[0].items():
        assert value.float().allclose(weights[1][name].float(), rtol=1e-2, atol=1e-3), name
    # The second node writes nothing but what it says.
    assert sorted(path.name for path in nodes.folders[1].iterdir()) == ["err.txt", "out.txt"]
    assert (nodes.folders[1] / "out.txt").read_text() == ""
    assert "top-1" in (nodes.folders[0] / "out.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("signalled", [0, 1])
def test_a_signal_to_either_node_saves_and_the_run_goes_on(
    signalled: int, tmp_path: Path, tiny_yaml: Path, painted_dataset: Path
) -> None:
    path = recipe(tmp_path, tiny_yaml, epochs=60)
    nodes = Nodes(tmp_path, DEEPFER, ["train", painted_dataset, "--config", path, "--name", "r"])
    run = nodes.folders[0] / "runs/train/r"
    nodes.until((run / "results.csv").exists)
    nodes.agents[signalled].send_signal(signal.SIGTERM)
    ends = nodes.ends()
    assert all(ends), (ends, nodes.text())
    assert "state saved" in (run / "log.txt").read_text()
    assert "continue with: deepfer train --resume runs/train/r" in (nodes.folders[0] / "err.txt").read_text()
    assert not (run / "metrics.json").exists()
    done = len(column(run, "epoch"))
    assert done < 60
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "epochs": done + 2}))
    again = Nodes(tmp_path, DEEPFER, ["train", "--resume", "runs/train/r"])
    assert again.ends() == [0, 0], again.text()
    assert f"resuming {run} from epoch {done + 1}" in (run / "log.txt").read_text()
    assert column(run, "epoch") == list(range(1, done + 3))
    assert json.loads((run / "metrics.json").read_text())["val"]["n"] == 56
    assert not (nodes.folders[1] / "runs").exists()


@pytest.mark.slow
def test_a_run_that_died_before_its_measurement_is_measured(
    tmp_path: Path, tiny_yaml: Path, painted_dataset: Path
) -> None:
    words = ["train", painted_dataset, "--config", recipe(tmp_path, tiny_yaml, epochs=2), "--name", "r"]
    nodes = Nodes(tmp_path, WORKER, words, NOTES=str(tmp_path), DIE_BEFORE_THE_MEASUREMENT="1")
    assert any(nodes.ends())
    run = nodes.folders[0] / "runs/train/r"
    assert not (run / "metrics.json").exists()
    again = Nodes(tmp_path, DEEPFER, ["train", "--resume", "runs/train/r"])
    assert again.ends() == [0, 0], again.text()
    assert "from its last epoch, to measure it" in (run / "log.txt").read_text()
    assert column(run, "epoch") == [1, 2]
    assert json.loads((run / "metrics.json").read_text())["val"]["n"] == 56


@pytest.mark.slow
def test_what_one_node_cannot_do_is_an_error_of_both(tmp_path: Path, tiny_yaml: Path, painted_dataset: Path) -> None:
    path = recipe(tmp_path, tiny_yaml)
    words = ["train", painted_dataset, "--config", path]
    nodes = Nodes(tmp_path, DEEPFER, words, ["train", painted_dataset, "--config", path, "--lr0", "0.2"])
    assert all(nodes.ends())
    texts = [(folder / "err.txt").read_text() for folder in nodes.folders]
    assert "error: the first process trains otherwise: lr0 (0.2 here, 0.01 there)" in texts[1]
    assert "error: process 1, on" in texts[0]
    nodes = Nodes(tmp_path, DEEPFER, [*words, "--batch", "35"])
    assert all(nodes.ends())
    assert "a batch of 35 cannot be dealt to 2 processes" in nodes.text()
    assert not (nodes.folders[0] / "runs").exists()


@pytest.mark.slow
def test_the_death_of_one_node_ends_the_other_with_the_way_on(
    tmp_path: Path, tiny_yaml: Path, painted_dataset: Path
) -> None:
    path = recipe(tmp_path, tiny_yaml, epochs=200)
    nodes = Nodes(tmp_path, DEEPFER, ["train", painted_dataset, "--config", path, "--name", "r"])
    run = nodes.folders[0] / "runs/train/r"
    nodes.until((run / "results.csv").exists)
    import psutil

    workers = psutil.Process(nodes.agents[1].pid).children(recursive=True)
    nodes.agents[1].kill()
    for worker in workers:
        worker.kill()
    assert all(nodes.ends())
    assert "error: another process of this training has gone" in (nodes.folders[0] / "err.txt").read_text()
    assert list((run / "weights").glob("state-*.pt"))


def test_stray_variables_are_no_nodes(tmp_path: Path, painted_dataset: Path) -> None:
    environ = {**os.environ, "WORLD_SIZE": "2"}
    command = [sys.executable, *DEEPFER, "train", str(painted_dataset), "--batch", "128"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "WORLD_SIZE is 2, but RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set" in done.stderr
    assert list(tmp_path.iterdir()) == []
