"""From a configuration to a run: the one function behind `deepfer stream`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.faces.detect import open_detector
from deepfer_yolo.faces.smooth import SmoothingRule
from deepfer_yolo.runtime.backends.protocol import Model
from deepfer_yolo.stream.address import Address, parse_sources
from deepfer_yolo.stream.draw import Look
from deepfer_yolo.stream.metrics import MetricsServer
from deepfer_yolo.stream.pipeline import TICK_S, Pipeline, RunRules
from deepfer_yolo.stream.reader import FeedRules
from deepfer_yolo.stream.scene import SceneRules
from deepfer_yolo.stream.sinks.registry import SinkRules, open_sink, open_window, split_sink
from deepfer_yolo.stream.sinks.targets import files_of, refuse_clashes
from deepfer_yolo.stream.sinks.window import REFRESH_S
from deepfer_yolo.stream.sinks.worker import SinkWorker
from deepfer_yolo.stream.sources import ReadOptions
from deepfer_yolo.stream.status import Summary


def run_stream(
    sources: Sequence[str],
    model: Model,
    sinks: Sequence[str] = ("jsonl=-",),
    config: StreamConfig | None = None,
    *,
    on_tick: Callable[[Pipeline], None] | None = None,
) -> Summary:
    """Read all sources to their end or a limit, and send what is found to the sinks (`KIND=TARGET`).

    Raises ConfigError, ModelError or SourceError before anything starts; later troubles are states and counters of the
    summary.
    """
    config = config or StreamConfig()
    addresses = parse_sources(list(sources))
    refuse_bad_outputs(sinks, addresses, config)
    rules = SinkRules(
        model.card.labels, Look(is_anonymous=config.anonymise), config.overwrite, config.max_bytes, config.keep
    )
    servers = [MetricsServer(target) for kind, target in map(split_sink, sinks) if kind == "prometheus"]
    opened = [open_sink(text, rules) for text in sinks if split_sink(text)[0] != "prometheus"]
    window = open_window(rules) if config.show else None
    opened += [window] if window is not None else []
    detectors = [open_detector(config, "video") for _ in addresses]

    def tick(pipeline: Pipeline) -> None:
        if on_tick is not None:
            on_tick(pipeline)
        if window is not None:
            window.refresh()

    pipeline = Pipeline(addresses, model, detectors, [SinkWorker(sink) for sink in opened], rules_of(config), tick)
    try:
        for server in servers:
            server.start(pipeline)
        return pipeline.run()
    finally:
        for server in servers:
            server.close()
        if window is not None:
            window.shut()


def refuse_bad_outputs(
    sinks: Sequence[str], addresses: Sequence[Address], config: StreamConfig, others: Sequence[Path] = ()
) -> None:
    """Raise ConfigError where two outputs share a file, DeepferError where one is a source's; `others` are files that
    are written besides.
    """
    outputs = [files_of(*split_sink(text), config.keep) for text in sinks]
    refuse_clashes(
        [*outputs, *([path] for path in others)], [address.target for address in addresses if address.kind == "file"]
    )


def rules_of(config: StreamConfig) -> RunRules:
    """The engine's rules in `config`."""
    read = ReadOptions(
        config.open_timeout_s,
        config.read_timeout_s,
        config.rtsp_transport,
        tuple(config.allow_host),
        config.input_option,
    )
    feed = FeedRules(
        config.policy, config.max_age_s, config.retries, config.stall_s, config.frozen_s, config.max_frames, read
    )
    smoothing = SmoothingRule(config.smooth_s, config.margin, config.hold_s, config.min_confidence)
    scene = SceneRules(config.min_score, config.detect_every, config.lost_s, smoothing)
    return RunRules(feed, scene, config.max_seconds, config.fail_fast, REFRESH_S if config.show else TICK_S)
