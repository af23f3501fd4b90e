"""From a configuration to a run: the one function behind `deepfer stream`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.faces.detect import open_detector
from deepfer_yolo.faces.smooth import SmoothingRule
from deepfer_yolo.stream.address import parse_sources
from deepfer_yolo.stream.draw import Look
from deepfer_yolo.stream.feeds import FeedRules
from deepfer_yolo.stream.pipeline import Model, Pipeline, RunRules
from deepfer_yolo.stream.scene import SceneRules
from deepfer_yolo.stream.sinks.registry import open_sink
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

    Raises ConfigError, ModelError or SourceError before anything starts; later troubles are states and counters of the summary.
    """
    config = config or StreamConfig()
    addresses = parse_sources(list(sources))
    look = Look(is_anonymous=config.anonymise)
    workers = [SinkWorker(open_sink(text, look)) for text in sinks]
    detectors = [open_detector(config.detector, face_model=config.face_model, size=config.detect_size) for _ in addresses]
    return Pipeline(addresses, model, detectors, workers, rules_of(config), on_tick).run()


def rules_of(config: StreamConfig) -> RunRules:
    """The engine's rules in `config`."""
    read = ReadOptions(config.open_timeout, config.read_timeout, config.rtsp_transport)
    feed = FeedRules(config.policy, config.max_age, config.retries, config.stall, config.frozen, config.max_frames, read)
    smoothing = SmoothingRule(config.smooth, config.margin, config.hold, config.min_confidence)
    return RunRules(feed, SceneRules(config.detect_every, config.lost, smoothing), config.max_seconds, config.fail_fast)
