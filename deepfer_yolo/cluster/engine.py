"""A cluster: connected to with no word to anyone else, looked at node by node before any work, left without a trace."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepfer_yolo.errors import ConfigError, DeepferError, explained_imports

PROBE_S = 5.0
"""How long a cluster may take to answer; `ray.init` itself would try a dead address for minutes."""
STORE_BYTES = 500_000_000
"""What a local cluster may keep of images' places and rows on their way."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_USAGE_DISABLED": "1"}
NOBODY = "http://127.0.0.1:9"
PROXIES = {name: NOBODY for kind in ("http", "https") for name in (f"{kind}_proxy", f"{kind.upper()}_PROXY")}
LOCAL = {"RAY_worker_niceness": "0", "no_proxy": "", "NO_PROXY": "", **PROXIES}
"""Workers are niced by 15 else, and lose against whatever runs beside them. With its statistics off Ray 2.60 still asks
the cloud's metadata service where it runs (findings/ray_offline.sh); its own calls ask no proxy.
"""
LONGEST_FOLDER = 20
ATTEMPTS = 3
"""Ray waits 30 seconds for a node to start, which on a busy machine are too few."""
ADDRESS_HINT = "--cluster local starts one on this machine; ray start --head starts one that others join"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that this process is connected to: what it is called, and the processors of each node."""

    name: str
    cpus: tuple[int, ...]

    def workers(self, threads: int) -> tuple[int, int]:
        """How many workers fit into it, and how many processors each takes: `threads`, or all of a node that has fewer.

        One that asked for more than any node has would be waited for in silence.
        """
        each = min(threads, max(self.cpus))
        return sum(cpus // each for cpus in self.cpus), each


@contextmanager
def connected(where: str) -> Iterator[Cluster]:
    """Connect to `auto`, to an address, or to a cluster of this machine's processors that is started and ended here.

    Raises ConfigError where none answers, MissingDependencyError without Ray.
    """
    address = None if where == "local" else address_of(where)
    if address is not None:
        _ask(address)
    new = dict(QUIET)
    home = _short_folder() if address is None else None
    if home is not None:
        # A token of its own, in no file: Ray would write one into the home folder, and its ports are open to others.
        new |= LOCAL | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {key: os.environ.get(key) for key in new}
    os.environ.update(new)
    try:
        with explained_imports():
            import ray
        _init(ray, address, home)
        cpus = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        if not any(cpus):
            raise ConfigError(f"the cluster {where} has no processors to work with", "ray start adds a node")
        yield Cluster(where, tuple(n for n in cpus if n))
    finally:
        with suppress(ImportError):
            import ray

            ray.shutdown()
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
        if home is not None:
            _remove(home)


def _short_folder() -> Path:
    """A new folder for a local cluster, whose sockets stand 65 characters deeper: names of sockets end at 107."""
    usual = tempfile.gettempdir()
    where = usual if len(usual) < LONGEST_FOLDER or not Path("/tmp").is_dir() else "/tmp"  # noqa: S108
    return Path(tempfile.mkdtemp(prefix="deepfer-ray-", dir=where))


def _init(ray: Any, address: str | None, home: Path | None) -> None:
    import logging

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    logging.getLogger("ray").setLevel(logging.ERROR)
    attempts = ATTEMPTS if address is None else 1
    for left in reversed(range(attempts)):
        try:
            if address is not None:
                ray.init(address=address, **quiet)
            else:
                n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
                local = {"num_cpus": n, "include_dashboard": False, "object_store_memory": STORE_BYTES}
                ray.init(address="local", _temp_dir=str(home), **local, **quiet)
            return
        except Exception as error:  # what it raises, where it has waited 30 s in vain, is a plain Exception
            if left:
                ray.shutdown()
                continue
            reason = " ".join(str(error).split())[:300]
            hint = "all nodes and this machine need one RAY_AUTH_MODE and token, and one version of ray and Python"
            raise DeepferError(f"no connection to the cluster {address or 'local'}: {reason}", hint) from None


def address_of(where: str) -> str:
    """HOST:PORT of a cluster; of `auto` what RAY_ADDRESS says, or what was started on this machine."""
    text = where
    if where == "auto":
        text = os.environ.get("RAY_ADDRESS", "")
        file = Path(tempfile.gettempdir()) / "ray" / "ray_current_cluster"
        if not text and file.is_file():
            text = file.read_text(encoding="utf-8")[:200].strip()
        if not text:
            raise ConfigError("--cluster auto finds no cluster: no RAY_ADDRESS, and none started here", ADDRESS_HINT)
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
        raise ConfigError(f"--cluster takes local, auto or HOST:PORT, not '{text}'", ADDRESS_HINT)
    return text


def _ask(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        with closing(socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_S)):
            return
    except OSError as error:
        raise ConfigError(f"no cluster answers at {address}: {error.strerror or error}", ADDRESS_HINT) from None


def _remove(home: Path) -> None:
    """Remove what a local cluster wrote; its last processes may still be writing for a moment."""
    for _ in range(50):
        shutil.rmtree(home, ignore_errors=True)
        if not home.exists():
            return
        time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class _NodeReport:
    """What a node says of itself."""

    host: str
    version: str
    fault: str = ""


def check_nodes(folder: Path, files: list[Path]) -> None:
    """Let every node read what this machine wrote into `folder`, write into it itself, and look at `files`.

    Raises ConfigError that names the node where it cannot, or runs another version.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from deepfer_yolo import __version__

    word = secrets.token_hex(16)
    probe = folder / f".probe-{word[:8]}"
    probe.write_text(word, encoding="utf-8")
    try:
        asked = {}
        for node in ray.nodes():
            if node["Alive"] and node["Resources"].get("CPU", 0):
                here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                task = ray.remote(_look).options(num_cpus=0, scheduling_strategy=here)
                asked[node["NodeManagerAddress"], node["NodeID"]] = task.remote(str(probe), word, [*map(str, files)])
        for (address, node_id), report in asked.items():
            found: _NodeReport = ray.get(report)
            answer = probe.with_name(f"{probe.name}-{node_id}")
            fault = found.fault
            if not fault and (not answer.is_file() or answer.read_text(encoding="utf-8") != word):
                fault = f"what it writes into {folder} is not seen here"
            if not fault and found.version != __version__:
                fault = f"it has deepfer {found.version}, and this machine {__version__}"
            if fault:
                hint = "name an --out, a model and images on a disk that all nodes share, under one path"
                raise ConfigError(f"node {address} ({found.host}): {fault}", hint)
    finally:
        for file in folder.glob(f"{probe.name}*"):
            file.unlink(missing_ok=True)


def _look(probe: str, word: str, files: list[str]) -> _NodeReport:
    import ray

    from deepfer_yolo import __version__

    host, file = socket.gethostname(), Path(probe)
    try:
        if file.read_text(encoding="utf-8") != word:
            return _NodeReport(host, __version__, f"{file.parent} is another folder there")
        file.with_name(f"{file.name}-{ray.get_runtime_context().get_node_id()}").write_text(word, encoding="utf-8")
    except OSError as error:
        return _NodeReport(host, __version__, f"{file.parent} is not there ({error.strerror})")
    missing = [name for name in files if not os.path.lexists(name)]
    return _NodeReport(host, __version__, f"{missing[0]} is not there" if missing else "")
