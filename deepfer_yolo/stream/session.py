"""From a configuration to a run: the one function behind `deepfer stream`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.runtime.backends.protocol import Model
from deepfer_yolo.stream.address import parse_sources
from deepfer_yolo.stream.metrics import MetricsServer
from deepfer_yolo.stream.pipeline import Pipeline
from deepfer_yolo.stream.records import Summary
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
) -> Summary:
    """Read all sources to their end or a limit, and send what is found to the sinks (`KIND=TARGET`).

    `others` are files that the caller writes besides. Raises ConfigError, ModelError or SourceError before anything
    starts; later troubles are states and counters of the summary.
    """
    config = config or StreamConfig()
    addresses = parse_sources(list(sources))
    split = [split_sink(text) for text in sinks]
    servers = [MetricsServer(target) for kind, target in split if kind == "prometheus"]
    names = [address.name for address in addresses]
    made = [MAKERS[kind](target, names, model.card.labels, config) for kind, target in split if kind in MAKERS]
    inputs = [Path(address.target) for address in addresses if address.kind == "file"]
    check_outputs(made, others, inputs, overwrite=config.overwrite)
    window = WindowSink(config) if config.show else None
    made += [window] if window is not None else []

    def tick(pipeline: Pipeline) -> None:
        if on_tick is not None:
            on_tick(pipeline)
        if window is not None:
            window.refresh()

    workers = [SinkWorker(sink) for sink in made]
    pipeline = Pipeline(addresses, model, workers, config, tick, needs_sinks=not servers and not others)
    try:
        for server in servers:
            server.start(pipeline)
        return pipeline.run()
    finally:
        for server in servers:
            server.close()
        if window is not None:
            window.shut()
