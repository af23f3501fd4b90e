"""A job over all workers of a cluster: places in, rows out, what an ended run has finished left as it is."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.cluster.engine import Cluster, check_nodes, connected
from deepfer_yolo.cluster.tasks import Task
from deepfer_yolo.data.row_files import CHECKPOINT, ITEMS, LOG, ROWS, SUMMARY, claim, sorted_rows
from deepfer_yolo.data.shards import Job
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.errors import DatasetError, DeepferError, require
from deepfer_yolo.files import atomic_path, locked, write_atomic
from deepfer_yolo.records import Json

SMALLEST_BLOCK, BLOCKS_A_WORKER, ITEMS_A_PIECE = 64, 8, 2048
"""Items that a worker takes at a time: few enough that all end together, and that a lost one costs little."""
LOOK_S = 1.0
"""How often it is seen how many blocks are finished."""
MARK = "error of deepfer: "
Progress = Callable[[int, int], None]
Places = NDArray[np.int64]
"""Places of images in the list of all."""
TASK_RETRIES = 20
"""Ray would try for ever a block whose decoder ends its worker, in a new process each time. A lost node costs a try."""


@contextmanager
def said_into(file: Path) -> Iterator[None]:
    """Lead what libraries say into `file`: Ray's C++ warns on file handle 2 of what is no fault, past any logger, and
    its driver prints on standard output that a worker was lost.
    """
    sys.stderr.flush()
    before, log = os.dup(2), os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 2)
    try:
        with os.fdopen(os.dup(log), "a", encoding="utf-8") as text, redirect_stdout(text):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)
        os.close(log)


@dataclass(frozen=True, slots=True)
class Done:
    """A finished job; `seconds` from the connection on, of which `start_s` went by before the first item. `what` they
    are is `images` or `recordings`.
    """

    out: Path
    what: str
    n: int
    n_before: int
    cluster: Cluster
    n_workers: int
    start_s: float
    seconds: float

    def to_json(self) -> Json:
        """What `summary.json` says of the run."""
        return {
            self.what: self.n,
            f"{self.what}_of_an_earlier_run": self.n_before,
            "nodes": len(self.cluster.cpus),
            "processors": sum(self.cluster.cpus),
            "workers": self.n_workers,
            "start_s": round(self.start_s, 2),
            "seconds": round(self.seconds, 2),
        }


def run(
    task: Task,
    items: dict[str, list[Any]],
    job: Job,
    out: Path,
    where: str,
    *,
    threads: int = 1,
    files: Iterable[Path] = (),
    counted: Sequence[str] = (),
    summarise: Callable[[Any], Json] = lambda rows: {},
    progress: Progress | None = None,
) -> Done:
    """Do `task` for all items over the cluster `where`, and leave their rows in `out`; `summary.json` is written last.

    A run that was ended goes on. `files` must be there on every node; `summarise` makes what the summary says of the
    columns `counted`; `progress` is told how many of how many items are done. Raises DeepferError for a folder that is
    finished or another job's, for a cluster that does not answer, and what a worker raised.
    """
    require("ray", "pyarrow")  # Ray itself is imported by `connected`: it reads its environment only then
    import pyarrow as pa

    out = out.absolute()
    busy = DeepferError(f"another run is filling {out}", "wait for it, or name another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(out.parent / f".{out.name}.lock", busy):
        table = _table(items)
        is_begun = claim(out, job)
        with atomic_path(out / ITEMS) as file, pa.ipc.new_file(str(file), table.schema) as writer:
            writer.write_table(table, max_chunksize=ITEMS_A_PIECE)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        began = time.monotonic()
        with said_into(out / LOG), connected(where) as cluster:
            check_nodes(out, [*files])
            n_workers, each = cluster.workers(threads)
            places = _unfinished(out, job.n) if is_begun else np.arange(job.n)
            start_s, n_before = time.monotonic() - began, job.n - len(places)
            size = min(task.most, max(SMALLEST_BLOCK, -(-len(places) // (n_workers * BLOCKS_A_WORKER))))
            with _watched(out / ROWS, n_before, job.n, size, progress):
                _execute(task, places, out, size, each)
        done = Done(out, task.what, job.n, n_before, cluster, n_workers, start_s, time.monotonic() - began)
        rows = sorted_rows(out, job.n, ["index", *counted])
        summary = {"schema_version": 1, "command": job.command, "model": job.model, **done.to_json()}
        summary |= summarise(rows)
        write_atomic(out / SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
        shutil.rmtree(out / CHECKPOINT, ignore_errors=True)
    return done


def _table(items: dict[str, list[Any]]) -> Any:
    """The items as a table of pyarrow. Raises DatasetError for a name that no column of text can hold."""
    import pyarrow as pa

    try:
        return pa.table(items)
    except UnicodeEncodeError as error:
        hint = "rename it; without --cluster it is read as it is"
        raise DatasetError("has a name whose bytes are no text", hint, path=printable(str(error.object))) from None


def _unfinished(out: Path, n: int) -> Places:
    """The places of which no earlier run has finished the rows; files that one was writing when it ended are removed.

    Each run has checkpoints of its own. With those of another Ray would put a filter before the workers, which waits
    for a processor and a gigabyte that may not be there: on a small cluster for ever.
    """
    import ray
    from ray.data import DataContext
    from ray.data.checkpoint import IdColumnCheckpointManager

    finished = [np.empty(0, np.int64)]
    for folder in sorted((out / CHECKPOINT).glob("*")):
        manager = IdColumnCheckpointManager(_checkpoints(folder), DataContext.get_current())
        found, _ = manager.load_checkpoint(str(out / ROWS))
        finished += [] if found is None else [ray.get(found).astype(np.int64)]
    return np.setdiff1d(np.arange(n), np.concatenate(finished))


def _checkpoints(folder: Path) -> Any:
    from ray.data.checkpoint import CheckpointConfig

    return CheckpointConfig("index", str(folder), delete_checkpoint_on_success=False)


@contextmanager
def _watched(rows: Path, n_before: int, n: int, size: int, progress: Progress | None) -> Iterator[None]:
    """Tell `progress` while the body runs: of `n` items `n_before` are done, then `size` a file more in `rows`."""
    if progress is None:
        yield
        return
    earlier, ended = len(os.listdir(rows)), threading.Event()  # noqa: PTH208 (a month of recordings is many files)

    def watch() -> None:
        while not ended.wait(LOOK_S):
            n_files = len(os.listdir(rows)) - earlier  # noqa: PTH208
            progress(min(n, n_before + n_files * size), n)

    progress(n_before, n)
    watching = threading.Thread(target=watch, name="progress", daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()
    progress(n, n)


def _execute(task: Task, places: Places, out: Path, size: int, each: int) -> None:
    import ray
    from ray.data import DataContext

    if not len(places):
        return
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.checkpoint_config = _checkpoints(out / CHECKPOINT / f"{time.time_ns()}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of retries, which have no other name in 2.60
            # Reading, looking and writing become one task, where all ask for the same. Apart, each has processes of its
            # own, which come and go, and cost more to start than their blocks take.
            alike = {"num_cpus": each, "max_retries": TASK_RETRIES}
            n_blocks = -(-len(places) // size)
            source = ray.data.read_datasource(
                _source(places, size), override_num_blocks=n_blocks, ray_remote_args=alike
            )
            look = partial(_look, task, str(out / ITEMS))
            found = source.map_batches(look, batch_size=None, batch_format="pyarrow", **alike)
            found.write_parquet(str(out / ROWS), ray_remote_args=alike)
    except Exception as error:
        raise _cause(error) or _crash(error, out) or error from None
    finally:
        context.checkpoint_config = None


@contextmanager
def _errors_spelt_out() -> Iterator[None]:
    """Put an error of ours into the text of one of Python's: of the chain Ray brings back but the text."""
    try:
        yield
    except DeepferError as error:
        raise RuntimeError(MARK + json.dumps([error.message, error.hint])) from error


def _cause(error: Exception) -> DeepferError | None:
    """The error of ours that a worker raised."""
    found = re.search(rf"{MARK}(\[.*\])", str(error))
    return DeepferError(*json.loads(found[1])) if found else None


def _crash(error: Exception, out: Path) -> DeepferError | None:
    """The error for a block that no worker outlives: a decoder that crashes, or more memory than there is."""
    from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

    if not isinstance(error, NodeDiedError | OutOfMemoryError | WorkerCrashedError):
        return None
    why = "for want of memory" if isinstance(error, OutOfMemoryError) else "each time it was looked at"
    reason = f"a block of items ended its worker {why}"
    return DeepferError(reason, f"{out / LOG} says more; once it is mended, the same command goes on")


def _source(places: Places, size: int) -> Any:
    """The places as a source of Ray's, `size` a block: its checkpoints work with sources alone."""
    import pyarrow as pa
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    def block(part: Places) -> list[Any]:
        return [pa.table({"index": part})]

    class Source(Datasource):  # type: ignore[misc]
        def estimate_inmemory_data_size(self) -> int:
            return places.nbytes

        def get_read_tasks(self, parallelism: int, *more: Any, **others: Any) -> list[Any]:
            schema = pa.schema({"index": pa.int64()})
            parts = [places[start : start + size] for start in range(0, len(places), size)]
            return [
                ReadTask(partial(block, part), BlockMetadata(len(part), part.nbytes, None, None), schema)
                for part in parts
            ]

    return Source()


class _Worker:
    """What a process of the cluster keeps from block to block: the model, and the list of all items."""

    def __init__(self, task: Task, items: str) -> None:
        import pyarrow as pa

        self._task, self._items = task, pa.ipc.open_file(pa.memory_map(items)).read_all()
        self._schema = pa.schema({"index": pa.int64(), **task.schema()})
        with _errors_spelt_out():
            task.start()

    def __call__(self, places: Any) -> Any:
        import pyarrow as pa

        index = places["index"]
        with _errors_spelt_out():
            found = self._task.look(self._items.take(index).to_pylist())
            rows = [row | {"index": place} for place, row in zip(index.to_pylist(), found, strict=True)]
        return pa.Table.from_pylist(rows, self._schema)


_workers: dict[str, _Worker] = {}


def _look(task: Task, items: str, places: Any) -> Any:
    """Look at the items of a block: what Ray calls, in a process that has done so before or has not."""
    if items not in _workers:
        _workers[items] = _Worker(task, items)
    return _workers[items](places)
