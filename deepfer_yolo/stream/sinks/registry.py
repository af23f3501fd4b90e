"""From `--sink KIND=TARGET` to a sink."""

from __future__ import annotations

from deepfer_yolo.errors import ConfigError
from deepfer_yolo.stream.draw import Look
from deepfer_yolo.stream.sinks.lines import JsonlSink
from deepfer_yolo.stream.sinks.video import VideoSink
from deepfer_yolo.stream.sinks.worker import Sink

KINDS = ("jsonl", "video")


def open_sink(text: str, look: Look) -> Sink:
    """The sink behind `KIND=TARGET`. Raises ConfigError where the kind is unknown or the target is missing."""
    kind, mark, target = text.partition("=")
    if kind not in KINDS or not mark or not target:
        raise ConfigError(f"--sink takes KIND=TARGET, not '{text}'", f"kinds: {', '.join(KINDS)}; for example --sink jsonl=out.jsonl")
    if kind == "jsonl":
        return JsonlSink(target)
    return VideoSink(target, look)
