"""Nodes of Ray on this machine's loopback, each in a process group of its own, that can be lost like a machine."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_USAGE_DISABLED": "1", "RAY_worker_niceness": "0"}
START_S = 120.0
ATTEMPTS = 3
"""Ray waits 30 seconds for a node to start, which on a busy machine are too few."""


def environment() -> dict[str, str]:
    """What head, nodes and driver must agree on: a token that stands in no file."""
    return os.environ | QUIET | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def free_port() -> int:
    """A port that is free, and none of those that Ray keeps for its workers (10002 to 19999)."""
    while True:
        with closing(socket.socket()) as found:
            found.bind(("127.0.0.1", 0))
            port = int(found.getsockname()[1])
        if port >= 20000:
            return port


@contextmanager
def node(
    folder: Path, env: Mapping[str, str], address: str = "", around: Sequence[str] = ()
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A node of one core: a head, or one that joins `address`; its address and process. `around` starts the command."""
    home = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # Ray's sockets stand deep in it, and have short names alone
    head = ["--head", f"--port={free_port()}", f"--temp-dir={home}", "--include-dashboard=false"]
    words = [f"--address={address}"] if address else head
    command = [*around, sys.executable, "-m", "ray.scripts.scripts", "start", *words, "--num-cpus=1", "--block"]
    command += ["--disable-usage-stats", "--object-store-memory=200000000"]
    log = folder / f"{'node' if address else 'head'}.log"
    started = _started(command, log, env)
    try:
        for left in reversed(range(ATTEMPTS)):
            if _answers(started, log):
                break
            if not left:
                raise RuntimeError(f"no node: {log.read_text()[-2000:]}")
            lose(started)
            started = _started(command, log, env)
        yield address or f"127.0.0.1:{words[1].partition('=')[2]}", started
    finally:
        lose(started)
        shutil.rmtree(home, ignore_errors=True)


def _started(command: list[str], log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=env, start_new_session=True)


def _answers(started: subprocess.Popen[bytes], log: Path) -> bool:
    """Wait until a node says that it runs; False where it does not."""
    deadline = time.monotonic() + START_S
    while b"runtime started" not in log.read_bytes():
        if started.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def lose(started: subprocess.Popen[bytes]) -> None:
    """End a node with all its processes at once, as the loss of its machine would."""
    for pid in [started.pid, *below(started.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    started.wait()


def below(pid: int) -> list[int]:
    """All processes below one."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [other for child in found for other in below(child)]
