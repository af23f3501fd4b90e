"""From `--sink KIND=TARGET` to a sink."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    makers: dict[str, Callable[[], Sink]] = {
        "jsonl": lambda: JsonlSink(target, config),
        "csv": lambda: CsvSink(target, config, labels),
        "video": lambda: VideoSink(target, sources, config),
        "snapshots": lambda: SnapshotSink(target, sources, config),
        "webhook": lambda: WebhookSink(target),
        "mqtt": lambda: MqttSink(target, sources),
    }
    return makers[kind]()
