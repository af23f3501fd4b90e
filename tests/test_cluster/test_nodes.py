"""Ray itself: a cluster of this machine's cores, and nodes on loopback of which one is lost; minutes, since Ray starts
slowly.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepfer_yolo.painted import paint_faces

pytestmark = pytest.mark.slow
pytest.importorskip("ray")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
N = 3000
FER2013_NEAR = "b5fd3eef2ee6c18beac83d7a832339ca14dd94d25c38054bbf7b91bbcbc6dd81"
"""SHA-256 of the groups of near copies in Training and PublicTest."""

SHIM = """
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
static void note(const struct sockaddr *a) {
  char text[64] = "", *file = getenv("SEEN_SOCKETS");
  if (!a || !file || (a->sa_family != AF_INET && a->sa_family != AF_INET6)) return;
  if (a->sa_family == AF_INET) inet_ntop(AF_INET, &((struct sockaddr_in *)a)->sin_addr, text, 64);
  else inet_ntop(AF_INET6, &((struct sockaddr_in6 *)a)->sin6_addr, text, 64);
  FILE *f = fopen(file, "a");
  if (f) { fprintf(f, "%s\\n", text); fclose(f); }
}
int connect(int s, const struct sockaddr *a, socklen_t n) {
  int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
  note(a);
  return next(s, a, n);
}
ssize_t sendto(int s, const void *b, size_t l, int f, const struct sockaddr *a, socklen_t n) {
  ssize_t (*next)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "sendto");
  note(a);
  return next(s, b, l, f, a, n);
}
"""


@pytest.fixture(scope="module")
def nodes() -> ModuleType:
    """`tests/ray_nodes.py`."""
    spec = importlib.util.spec_from_file_location("ray_nodes", Path(__file__).parent.parent / "ray_nodes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 faces, 200 different ones, and a broken file."""
    folder = tmp_path_factory.mktemp("many") / "faces"
    folder.mkdir()
    for i, face in enumerate(paint_faces(3, 200)[0]):
        Image.fromarray(face).save(folder / f"{i:05d}.png")
    for i in range(200, N):
        (folder / f"{i:05d}.png").symlink_to(folder / f"{i % 200:05d}.png")
    (folder / "broken.png").write_bytes(b"x")
    return folder


def shell(*words: object, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Any:
    command = [sys.executable, "-m", "deepfer_yolo", *map(str, words)]
    env = {**(env or os.environ), "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, check=False, timeout=600)


def ray_processes(others: set[Path]) -> list[str]:
    """The command lines of local clusters, but for those in the folders of `others`."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [words for words in found if "deepfer-ray-" in words and not any(str(other) in words for other in others)]


def test_a_cluster_of_this_machine_talks_to_nobody_and_leaves_nothing(
    faces: Path, linear_model: Path, tmp_path: Path
) -> None:
    """Rows equal those of one process; every address that a process connects to is this machine's own."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the library that notes addresses")
    (tmp_path / "shim.c").write_text(SHIM)
    shim = tmp_path / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(shim), str(tmp_path / "shim.c"), "-ldl"], check=True)
    home = tmp_path / "home"
    home.mkdir()
    seen, out = tmp_path / "seen.txt", tmp_path / "rows"
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    env |= {"LD_PRELOAD": str(shim), "SEEN_SOCKETS": str(seen), "HOME": str(home), "TMPDIR": str(tmp_path)}
    before = set(Path("/tmp").glob("deepfer-ray-*"))
    words = ["predict", faces, "-m", linear_model]
    done = shell(*words, "--cluster", "local", "--out", out, "--json", env=env)
    assert done.returncode == 4, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["images"], summary["errors"]) == (N + 1, 1)
    assert sum(summary["labels"].values()) == N
    assert shell(*words, "--json", "--merge", out).stdout == shell(*words, "--json").stdout
    own = set(subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split())
    met = {address.removeprefix("::ffff:") for address in seen.read_text().split()}
    assert any(address.startswith("127.") or address in own for address in met), "the library was not loaded"
    others = {address for address in met if not address.startswith("127.") and address not in own | {"::1", "0.0.0.0"}}
    # Ray asks the system for its own address by connecting a datagram socket to a name server: nothing is sent.
    assert others <= {"8.8.8.8", "2001:4860:4860::8888"}
    assert not (home / ".ray").exists()
    left = set(Path("/tmp").glob("deepfer-ray-*")) - before
    assert not left, "TMPDIR is too long for Ray's sockets, and what it wrote elsewhere must be gone"
    assert not ray_processes(before)
    again = shell(*words, "--cluster", "local", "--out", out)
    assert again.returncode == 1
    assert "is finished" in again.stderr, "a second run would double every row"


@contextmanager
def two_nodes(nodes: ModuleType, folder: Path) -> Iterator[tuple[str, Any, dict[str, str]]]:
    """Two nodes of one core: the address, the second node, and the environment that they agree on."""
    env = nodes.environment()
    for name in ("head", "other"):
        (folder / name).mkdir()
    with nodes.node(folder / "head", env) as (address, _):  # noqa: SIM117 (the second needs the first)
        with nodes.node(folder / "other", env, address) as (_, second):
            yield address, second, env


@pytest.fixture(scope="module")
def cluster(nodes: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of two nodes that stay, and the environment that they agree on."""
    with two_nodes(nodes, tmp_path_factory.mktemp("nodes")) as (address, _, env):
        yield address, env


def test_a_lost_node_and_an_ended_run_lose_and_double_nothing(
    nodes: ModuleType, faces: Path, linear_model: Path, tmp_path: Path
) -> None:
    with two_nodes(nodes, tmp_path) as (address, second, env):
        lose_and_go_on(nodes, address, second, env, faces, linear_model, tmp_path)


def lose_and_go_on(
    nodes: ModuleType, address: str, second: Any, env: dict[str, str], faces: Path, linear_model: Path, tmp_path: Path
) -> None:
    out, words = tmp_path / "rows", ["predict", faces, "-m", linear_model]
    command = [sys.executable, "-m", "deepfer_yolo", *map(str, words), "--cluster", address, "--out", str(out)]
    env["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
    log = tmp_path / "log.txt"

    def started(blocks: int) -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            run = subprocess.Popen(command, stdout=file, stderr=file, env=env)
        deadline = time.monotonic() + 300
        while len(list((out / "rows").glob("*.parquet"))) < blocks:
            assert run.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        return run

    first = started(3)
    first.send_signal(signal.SIGKILL)
    first.wait()
    other = shell(*words[:-1], "deepfer-n", "--cluster", address, "--out", out, env=env)
    assert "is of another model" in other.stderr
    again = started(len(list((out / "rows").glob("*.parquet"))) + 1)
    nodes.lose(second)
    assert again.wait(300) == 4, log.read_text()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["nodes"] == 2
    assert 0 < summary["images_of_an_earlier_run"] < N
    assert f"{N + 1:,} images ({summary['images_of_an_earlier_run']:,} of an earlier run)" in log.read_text()
    places = np.concatenate([pq.ParquetFile(file).read()["index"].to_numpy() for file in (out / "rows").iterdir()])
    assert sorted(places) == list(range(N + 1))
    assert shell(*words, "--json", "--merge", out).stdout == shell(*words, "--json").stdout


def test_evaluate_and_audit_over_two_nodes(
    cluster: tuple[str, dict[str, str]], painted_dataset: Path, linear_model: Path, tmp_path: Path
) -> None:
    address, env = cluster
    model, over = ["-m", linear_model], ["--cluster", address, "--out"]
    one = shell("evaluate", painted_dataset, *model, "--json", cwd=tmp_path)
    two = shell("evaluate", painted_dataset, *model, "--json", *over, tmp_path / "scores", cwd=tmp_path, env=env)
    assert (two.returncode, two.stdout) == (0, one.stdout), two.stderr
    words = ["audit", painted_dataset, "--with-model", linear_model, "--json"]
    one, two = shell(*words), shell(*words, *over, tmp_path / "audit", env=env)
    assert (two.returncode, two.stdout) == (0, one.stdout), two.stderr
    # What a worker finds wrong is told as by one process.
    shutil.copytree(painted_dataset, tmp_path / "changed")
    image = min((tmp_path / "changed" / "val" / "sad").iterdir())
    shutil.copy(max((tmp_path / "changed" / "val" / "sad").iterdir()), image)
    words = ["evaluate", tmp_path / "changed", *model]
    one, two = shell(*words, cwd=tmp_path), shell(*words, *over, tmp_path / "x", cwd=tmp_path, env=env)
    assert two.returncode == one.returncode == 1
    assert two.stderr == one.stderr
    assert "is not the image that was converted" in two.stderr


def test_parquet_files_and_a_checkpoint_over_two_nodes(
    cluster: tuple[str, dict[str, str]], checkpoint: Path, tmp_path: Path
) -> None:
    """Images in the rows of Hugging Face's files, a broken one among them, looked at by torch."""
    address, env = cluster
    files = []
    for face in paint_faces(3, 130)[0]:
        Image.fromarray(face).save(buffer := io.BytesIO(), "PNG")
        files.append({"bytes": buffer.getvalue(), "path": None})
    files[7]["bytes"] = b"x"
    (tmp_path / "set").mkdir()
    for i, part in enumerate((files[:60], files[60:61], files[61:])):
        pq.write_table(pa.table({"image": part}), tmp_path / "set" / f"train-{i}.parquet", row_group_size=9)
    words = ["predict", tmp_path / "set", "-m", checkpoint, "--json"]
    done = shell(*words, "--cluster", address, "--out", tmp_path / "rows", env=env)
    assert done.returncode == 4, done.stderr
    assert json.loads(done.stdout)["images"] == 130
    one, merged = shell(*words), shell(*words, "--merge", tmp_path / "rows")
    assert merged.stdout == one.stdout
    assert one.stdout.count("\n") == 130
    assert "train-2.parquet#68" in one.stdout


def test_recordings_over_two_nodes_go_on_after_a_kill(
    cluster: tuple[str, dict[str, str]], make_clip: Callable[..., Path], linear_model: Path, tmp_path: Path
) -> None:
    """Each clip is read once, and its records are those of one process; a broken one costs the exit code alone."""
    address, env = cluster
    folder, out = tmp_path / "2026", tmp_path / "rows"
    folder.mkdir()
    clip = make_clip(times=[i / 25 for i in range(400)])
    for i in range(16):
        shutil.copy(clip, folder / f"{i:02d}.mp4")
    (folder / "broken.mp4").write_bytes(b"x")
    words = ["stream", folder, "-m", linear_model, "--detector", "whole"]
    command = [sys.executable, "-m", "deepfer_yolo", *map(str, words), "--cluster", address, "--out", str(out)]
    env["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    while len(list((out / "rows").glob("*.parquet"))) < 2:
        assert first.poll() is None
        time.sleep(0.05)
    first.kill()
    first.wait()
    done = shell(*words, "--cluster", address, "--out", out, "--json", env=env)
    assert done.returncode == 4, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["recordings"], summary["frames"], summary["errors"]) == (17, 6400, 1)
    assert 0 < summary["recordings_of_an_earlier_run"] < 17
    assert shell(*words, "--sink", f"jsonl={tmp_path / 'plain.jsonl'}").returncode == 4
    merged = shell(*words, "--merge", out)
    assert merged.returncode == 4
    assert "1 of 17 recordings could not be read" in merged.stderr
    assert by_source(merged.stdout) == by_source((tmp_path / "plain.jsonl").read_text())


def by_source(lines: str) -> dict[str, list[Any]]:
    """The records of each source, without the id of the run."""
    found: dict[str, list[Any]] = {}
    for line in map(json.loads, lines.splitlines()):
        found.setdefault(line["source"], []).append(line | {"run": ""})
    return found


def test_fer2013_has_the_same_findings_in_parts_and_over_a_cluster(shared_dir: Path, tmp_path: Path) -> None:
    """Copies and near copies that lie in different parts and blocks among them."""
    source = shared_dir / "datasets" / "fer2013_dev.csv.gz"
    if not source.is_file():
        pytest.skip("needs the FER2013 csv in shared/")
    words = ["audit", source, "--json"]
    one = shell(*words)
    for number in (1, 2, 3):
        assert shell(*words, "--shard", f"{number}/3", "--out", tmp_path / "parts").returncode == 0
    assert shell(*words, "--merge", tmp_path / "parts").stdout == one.stdout
    over = shell(*words, "--cluster", "local", "--out", tmp_path / "rows")
    assert over.stdout == one.stdout, over.stderr
    findings = json.loads(one.stdout)["findings"]
    near = {finding["kind"]: finding["groups"] for finding in findings if finding["kind"].startswith("near-")}
    assert hashlib.sha256(json.dumps(near).encode()).hexdigest() == FER2013_NEAR


def test_a_node_that_does_not_share_the_folder_is_named(
    nodes: ModuleType, faces: Path, linear_model: Path, tmp_path: Path
) -> None:
    env = nodes.environment()
    for name in ("head", "other", "shared"):
        (tmp_path / name).mkdir()
    hide = f'mount -t tmpfs none {tmp_path / "shared"} && exec "$@"'
    around = ["unshare", "--mount", "sh", "-c", hide, "sh"]
    if subprocess.run([*around, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount")
    with nodes.node(tmp_path / "head", env) as (address, _), nodes.node(tmp_path / "other", env, address, around):
        words = ["predict", faces, "-m", linear_model, "--cluster", address, "--out", tmp_path / "shared" / "rows"]
        done = shell(*words, env=env)
    assert done.returncode == 1
    assert "shared/rows is not there (No such file or directory)" in done.stderr
    assert "error: node " in done.stderr
    assert not list((tmp_path / "shared" / "rows" / "rows").iterdir()), "before any work"


def test_a_block_that_ends_its_worker_ends_the_job_in_words(linear_model: Path, tmp_path: Path) -> None:
    code = tmp_path / "run.py"
    code.write_text(f"""
import os, signal
from pathlib import Path
from deepfer_yolo.cli.options import open_classifier
from deepfer_yolo.cluster import bulk, tasks
from deepfer_yolo.config import PredictConfig
from deepfer_yolo.data.shards import Job
from deepfer_yolo.errors import DeepferError

class Crashing(tasks.PredictTask):
    def look(self, items):
        with open({str(tmp_path / "tries.txt")!r}, "a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGSEGV)

def main():
    bulk.TASK_RETRIES = 1
    task = Crashing(lambda: open_classifier(Path({str(linear_model)!r})), PredictConfig())
    try:
        bulk.run(task, {{"path": ["a.png"]}}, Job(command="predict", n=1), Path("rows"), "local")
    except DeepferError as error:
        print(error.message)

main()
""")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    done = subprocess.run(
        [sys.executable, str(code)], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "a block of items ended its worker each time it was looked at\n"
    assert done.stderr == ""
    assert (tmp_path / "tries.txt").read_text() == "xx"
    assert "A worker died" in (tmp_path / "rows" / "ray.log").read_text()


def test_the_model_is_opened_once_a_worker_that_is_as_nice_as_we_are(
    linear_model: Path, faces: Path, tmp_path: Path
) -> None:
    log, code = tmp_path / "opened.txt", tmp_path / "run.py"
    code.write_text(f"""
import os
from pathlib import Path
from deepfer_yolo.cluster import bulk, tasks
from deepfer_yolo.config import PredictConfig
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.stream.batch import named_images
from deepfer_yolo.stream.parts import job_of

def main():
    def opening():
        with open({str(log)!r}, "a") as file:
            file.write(f"{{os.getpid()}} {{os.nice(0)}}\\n")
        return Classifier(Path({str(linear_model)!r}))
    images, config = list(named_images([{str(faces)!r}])), PredictConfig()
    job = job_of(images, Classifier(Path({str(linear_model)!r})), config)
    done = bulk.run(tasks.PredictTask(opening, config), tasks.predict_items(images), job, Path("rows"), "local")
    print(done.n_workers)

main()
""")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    done = subprocess.run(
        [sys.executable, str(code)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    opened, niceness = zip(*map(str.split, log.read_text().splitlines()), strict=True)
    assert len(opened) == len(set(opened)) == int(done.stdout)
    assert {*map(int, niceness)} == {os.nice(0)}, "Ray nices its workers by 15"
    n_blocks = len(list((tmp_path / "rows" / "rows").iterdir()))
    assert n_blocks > 2 * len(opened)
