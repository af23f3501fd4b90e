"""From `--sink KIND=TARGET` to a sink."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deepfer_yolo.errors import ConfigError, redact
from deepfer_yolo.stream.draw import Look
from deepfer_yolo.stream.sinks.images import SnapshotSink
from deepfer_yolo.stream.sinks.lines import CsvSink, JsonlSink
from deepfer_yolo.stream.sinks.network import MqttSink, WebhookSink
from deepfer_yolo.stream.sinks.targets import FILE_KINDS, files_of, refuse_existing_file, refuse_unwritable
from deepfer_yolo.stream.sinks.video import SUFFIXES, VideoSink
from deepfer_yolo.stream.sinks.window import WindowSink, refuse_without_screen
from deepfer_yolo.stream.sinks.worker import Sink

KINDS = ("jsonl", "csv", "video", "snapshots", "webhook", "mqtt", "prometheus")


@dataclass(frozen=True, slots=True)
class SinkRules:
    """What all sinks of a run share."""

    labels: tuple[str, ...]
    look: Look
    overwrite: bool = False
    max_bytes: int = 100_000_000
    keep: int = 5


def split_sink(text: str) -> tuple[str, str]:
    """Kind and target of `KIND=TARGET`. Raises ConfigError where the kind is unknown or the target is missing."""
    kind, mark, target = text.partition("=")
    if kind not in KINDS or not mark or not target:
        raise ConfigError(
            f"--sink takes KIND=TARGET, not '{redact(text)}'",
            f"kinds: {', '.join(KINDS)}; for example --sink jsonl=out.jsonl",
        )
    return kind, target


def open_sink(text: str, rules: SinkRules) -> Sink:
    """The sink behind `KIND=TARGET`.

    Raises ConfigError for an unknown kind, DeepferError for a file that is there already.
    """
    kind, target = split_sink(text)
    if target == "-" and kind != "jsonl":
        raise ConfigError(
            f"--sink {kind}=- : only jsonl can go to standard output", f"name a target: --sink {kind}=NAME"
        )
    if kind == "video" and Path(target).suffix.lower() not in SUFFIXES:
        raise ConfigError(f"H.264 video cannot be written to '{target}'", f"the name must end in {', '.join(SUFFIXES)}")
    for path in files_of(kind, target, rules.keep):
        why = "" if path == Path(target) else f", which {target} is renamed to once it is full"
        refuse_existing_file(path, overwrite=rules.overwrite, why=why)
    if kind in FILE_KINDS and target != "-":
        refuse_unwritable(Path(target))
    match kind:
        case "jsonl":
            return JsonlSink(target, max_bytes=rules.max_bytes, keep=rules.keep)
        case "csv":
            return CsvSink(target, rules.labels, max_bytes=rules.max_bytes, keep=rules.keep)
        case "video":
            return VideoSink(target, rules.look, overwrite=rules.overwrite)
        case "snapshots":
            refuse_unwritable(Path(target) / "a.jpg")
            return SnapshotSink(target, rules.look, overwrite=rules.overwrite)
        case "webhook":
            return WebhookSink(target)
        case "mqtt":
            return MqttSink(target)
        case _:
            raise ConfigError(f"'{kind}' is not a sink that takes records")


def open_window(rules: SinkRules) -> WindowSink:
    """The sink behind `--show`. Raises DeepferError where there is no screen."""
    refuse_without_screen()
    return WindowSink(rules.look)
