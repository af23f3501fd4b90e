"""From a configuration to a run: the one function behind `deepfer stream`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.data.shards import Shard
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.errors import redact
from deepfer_yolo.files import write_atomic
from deepfer_yolo.runtime.backends.protocol import Model
from deepfer_yolo.stream.address import Address, parse_sources
from deepfer_yolo.stream.file_names import as_line
from deepfer_yolo.stream.metrics import MetricsServer
from deepfer_yolo.stream.pipeline import Pipeline
from deepfer_yolo.stream.records import Summary
from deepfer_yolo.stream.resume import check_resume, left_to_do
from deepfer_yolo.stream.sinks.images import WindowSink
from deepfer_yolo.stream.sinks.registry import MAKERS, check_outputs, split_sink
from deepfer_yolo.stream.sinks.worker import SinkWorker


def run_stream(
    sources: Sequence[str],
    model: Model,
    sinks: Sequence[str] = ("jsonl=-",),
    config: StreamConfig | None = None,
    *,
    on_tick: Callable[[Pipeline], None] | None = None,
    others: Sequence[Path] = (),
    failed: Path | None = None,
    cameras: Path | None = None,
    shard: Shard | None = None,
) -> Summary:
    """Read all sources to their end or a limit, and send what is found to the sinks (`KIND=TARGET`).

    `others` are files that the caller writes besides; `failed` gets a list of the sources that failed. A file of
    `cameras` names further sources; of a `shard`, only those are read that belong to it. Raises ConfigError, ModelError
    or SourceError before anything starts; later troubles are states and counters of the summary.
    """
    config = config or StreamConfig()
    addresses = parse_sources(sources, cameras, shard)
    split = [split_sink(text) for text in sinks]
    servers = [MetricsServer(target) for kind, target in split if kind == "prometheus"]
    names = [address.name for address in addresses]
    made = [MAKERS[kind](target, names, model.card, config) for kind, target in split if kind in MAKERS]
    inputs = [Path(address.target) for address in addresses if address.kind == "file"]
    check_resume(made, config, addresses)
    besides = [*others, *([failed] if failed is not None else [])]
    check_outputs(made, besides, inputs, may_exist=config.overwrite or config.resume)
    left = left_to_do(addresses, made) if config.resume else addresses
    window = WindowSink(config) if config.show else None
    made += [window] if window is not None else []

    def tick(pipeline: Pipeline) -> None:
        if on_tick is not None:
            on_tick(pipeline)
        if window is not None:
            window.refresh()

    workers = [SinkWorker(sink) for sink in made]
    n_done, needs_sinks = len(addresses) - len(left), not servers and not others
    pipeline = Pipeline(left, model, workers, config, tick, needs_sinks=needs_sinks, n_done=n_done)
    try:
        for server in servers:
            server.start(pipeline)
        return pipeline.run()
    finally:
        for server in servers:
            server.close()
        if window is not None:
            window.shut()
        if failed is not None:
            write_atomic(failed, failed_list(left, pipeline.summary()).encode("utf-8", "surrogateescape"))


def failed_list(addresses: Sequence[Address], summary: Summary) -> str:
    """The sources that failed, one a line behind a comment that says why, to be given back as `@FILE`."""
    lines: list[str] = []
    for address, source in zip(addresses, summary.sources, strict=True):
        if source.has_failed:
            lines.append(f"# {printable(source.error or '')}")
            lines.append(_as_line(address) or f"# a list cannot hold it: {printable(address.name)}")
    return "".join(f"{line}\n" for line in lines)


def _as_line(address: Address) -> str | None:
    """The line of a list that names this source; None where no line can, or where it would show a password."""
    if address.is_file:
        return as_line(address.target)
    return address.target if address.is_live and redact(address.target) == address.target else None
