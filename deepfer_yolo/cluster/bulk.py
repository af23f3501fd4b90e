"""A job over all workers of a cluster: places in, rows out, what an ended run has finished left as it is."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deepfer_yolo.cluster.engine import Cluster, check_nodes, connected
from deepfer_yolo.cluster.tasks import Task
from deepfer_yolo.data.row_files import CHECKPOINT, ITEMS, LOG, ROWS, SUMMARY, claim, sorted_rows
from deepfer_yolo.data.shards import Job
from deepfer_yolo.errors import DeepferError, require
from deepfer_yolo.files import atomic_path, locked, write_atomic
from deepfer_yolo.records import Json

LARGEST_BLOCK, BLOCKS_A_WORKER = 2048, 8
"""Images that a worker takes at a time: few enough that all end together, and that a lost one costs little."""
TASK_RETRIES = 5
"""An image whose decoder ends its process ends the job after so many workers, where Ray would try for ever."""


@contextmanager
def native_errors_into(file: Path) -> Iterator[None]:
    """Lead what libraries write to file handle 2 into `file`: Ray's C++ warns of what is no fault, past any logger."""
    sys.stderr.flush()
    before, log = os.dup(2), os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)
        os.close(log)


@dataclass(frozen=True, slots=True)
class Done:
    """A finished job; `seconds` from the connection on, of which `start_s` went by before the first image."""

    out: Path
    n: int
    n_before: int
    cluster: Cluster
    n_workers: int
    start_s: float
    seconds: float

    def to_json(self) -> Json:
        """What `summary.json` says of the run."""
        return {
            "images": self.n,
            "images_of_an_earlier_run": self.n_before,
            "nodes": self.cluster.n_nodes,
            "processors": self.cluster.n_cpus,
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
    summarise: Callable[[Any], Json] | None = None,
) -> Done:
    """Do `task` for all items over the cluster `where`, and leave their rows in `out`; `summary.json` is written last.

    A run that was ended goes on. `files` must be there on every node. Raises DeepferError for a folder that is finished
    or another job's, for a cluster that does not answer, and what a worker raised.
    """
    require("ray", "pyarrow")  # Ray itself is imported by `connected`: it reads its environment only then
    import pyarrow as pa

    out = out.absolute()
    busy = DeepferError(f"another run is filling {out}", "wait for it, or name another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(out.parent / f".{out.name}.lock", busy):
        is_begun = claim(out, job)
        with atomic_path(out / ITEMS) as file, pa.OSFile(str(file), "wb") as sink:
            table = pa.table(items)
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=LARGEST_BLOCK)
        began = time.monotonic()
        with native_errors_into(out / LOG), connected(where) as cluster:
            check_nodes(out, [*files])
            n_workers = max(1, cluster.n_cpus // threads - is_begun)  # Ray's own filter of what is done needs one, too
            start_s = time.monotonic() - began
            n_before = _n_rows(out) if is_begun else 0
            _execute(task, job.n, out, n_workers, threads)
        done = Done(out, job.n, n_before, cluster, n_workers, start_s, time.monotonic() - began)
        rows = sorted_rows(out, job.n, ["index", "label", "error"] if summarise else ["index"])
        summary = {"schema_version": 1, "command": job.command, "model": job.model, **done.to_json()}
        summary |= summarise(rows) if summarise else {}
        write_atomic(out / SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
        shutil.rmtree(out / CHECKPOINT, ignore_errors=True)
    return done


def _n_rows(out: Path) -> int:
    """How many images an earlier run has finished, as Ray will count them."""
    import pyarrow.parquet as pq

    return sum(pq.ParquetFile(file).metadata.num_rows for file in (out / CHECKPOINT).glob("*.parquet"))


def _execute(task: Task, n: int, out: Path, n_workers: int, threads: int) -> None:
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.data.checkpoint import CheckpointConfig

    if not n:
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.checkpoint_config = CheckpointConfig("index", str(out / CHECKPOINT), delete_checkpoint_on_success=False)
    size = max(1, min(LARGEST_BLOCK, -(-n // (n_workers * BLOCKS_A_WORKER))))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of retries, which have no other name in 2.60
            places = ray.data.read_datasource(
                _places(n, size), num_cpus=0, concurrency=2, override_num_blocks=-(-n // size)
            )
            found = places.map_batches(
                _Worker,
                fn_constructor_args=(task, str(out / ITEMS)),
                batch_size=None,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=n_workers),
                num_cpus=threads,
                max_task_retries=TASK_RETRIES,
            )
            found.write_parquet(str(out / ROWS), ray_remote_args={"num_cpus": 0}, concurrency=2)
    except Exception as error:
        raise _cause(error) or error from None
    finally:
        context.checkpoint_config = None


def _cause(error: BaseException | None) -> DeepferError | None:
    """The error of ours that a worker raised, which Ray wraps."""
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, DeepferError):
            return error
        error, seen = getattr(error, "cause", None) or error.__cause__ or error.__context__, seen + 1
    return None


def _places(n: int, size: int) -> Any:
    """The places of all items as a source of Ray's, `size` a block: its checkpoints work with sources alone."""
    import numpy as np
    import pyarrow as pa
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    def block(start: int) -> list[Any]:
        return [pa.table({"index": np.arange(start, min(start + size, n), dtype=np.int64)})]

    class Places(Datasource):  # type: ignore[misc]
        def estimate_inmemory_data_size(self) -> int:
            return 8 * n

        def get_read_tasks(self, parallelism: int, *more: Any, **others: Any) -> list[Any]:
            schema = pa.schema({"index": pa.int64()})
            return [
                ReadTask(partial(block, start), BlockMetadata(min(size, n - start), 8 * size, None, None), schema)
                for start in range(0, n, size)
            ]

    return Places()


class _Worker:
    """Looks at the items of a block: what Ray calls in an actor of its own."""

    def __init__(self, task: Task, items: str) -> None:
        import pyarrow as pa

        self._task, self._items = task, pa.ipc.open_file(pa.memory_map(items)).read_all()
        self._schema = pa.schema({"index": pa.int64(), **task.schema()})
        task.start()

    def __call__(self, places: Any) -> Any:
        import pyarrow as pa

        index = places["index"]
        found = self._task.look(self._items.take(index).to_pylist())
        rows = [row | {"index": place} for place, row in zip(index.to_pylist(), found, strict=True)]
        return pa.Table.from_pylist(rows, self._schema)
