"""From `--sink KIND=TARGET` to a sink."""

from __future__ import annotations

from collections.abc import Sequence

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.errors import ConfigError, redact
from deepfer_yolo.stream.sinks.lines import CsvSink, JsonlSink
from deepfer_yolo.stream.sinks.network import MqttSink, WebhookSink
from deepfer_yolo.stream.sinks.snapshots import SnapshotSink
from deepfer_yolo.stream.sinks.video import VideoSink
from deepfer_yolo.stream.sinks.worker import Sink

KINDS = ("jsonl", "csv", "video", "snapshots", "webhook", "mqtt", "prometheus")


def split_sink(text: str) -> tuple[str, str]:
    """Kind and target of `KIND=TARGET`. Raises ConfigError where the kind is unknown or the target is missing."""
    kind, _, target = text.partition("=")
    if kind not in KINDS or not target:
        raise ConfigError(
            f"--sink takes KIND=TARGET, not '{redact(text)}'",
            f"kinds: {', '.join(KINDS)}; for example --sink jsonl=out.jsonl",
        )
    if target == "-" and kind != "jsonl":
        hint = f"name a target: --sink {kind}=NAME"
        raise ConfigError(f"--sink {kind}=- : only jsonl can go to standard output", hint)
    return kind, target


def make_sink(kind: str, target: str, sources: Sequence[str], labels: tuple[str, ...], config: StreamConfig) -> Sink:
    """The sink of a kind, not yet open. Raises ConfigError for a target that it cannot have."""
    match kind:
        case "jsonl":
            return JsonlSink(target, config)
        case "csv":
            return CsvSink(target, config, labels)
        case "video":
            return VideoSink(target, sources, config)
        case "snapshots":
            return SnapshotSink(target, sources, config)
        case "webhook":
            return WebhookSink(target)
        case "mqtt":
            return MqttSink(target, sources)
        case _:
            raise ConfigError(f"'{kind}' is not a sink that takes records")
