"""From `--sink KIND=TARGET` to a sink, and whether what it writes may be written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.errors import ConfigError, DeepferError, redact
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.stream.sinks.images import SnapshotSink, VideoSink
from deepfer_yolo.stream.sinks.lines import CsvSink, JsonlSink
from deepfer_yolo.stream.sinks.mqtt import MqttSink
from deepfer_yolo.stream.sinks.network import WebhookSink
from deepfer_yolo.stream.sinks.review import ReviewSink
from deepfer_yolo.stream.sinks.worker import Sink

Maker = Callable[[str, Sequence[str], Card, StreamConfig], Sink]

MAKERS: dict[str, Maker] = {
    "jsonl": lambda target, sources, card, config: JsonlSink(target, config),
    "csv": lambda target, sources, card, config: CsvSink(target, config, card.labels),
    "video": lambda target, sources, card, config: VideoSink(target, sources, config),
    "snapshots": lambda target, sources, card, config: SnapshotSink(target, sources, config),
    "review": ReviewSink,
    "webhook": lambda target, sources, card, config: WebhookSink(target),
    "mqtt": lambda target, sources, card, config: MqttSink(target, sources, card.labels),
}
"""Makers by kind: each makes a sink that is not yet open, or raises ConfigError for a target that it cannot have."""
KINDS = (*MAKERS, "prometheus")
"""What `--sink` takes; Prometheus is no sink here, since it reads the pipeline's counters."""


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


def check_outputs(sinks: Sequence[Sink], others: Sequence[Path], sources: Sequence[Path], *, may_exist: bool) -> None:
    """Raise ConfigError where two outputs, of sinks or `others`, share a file.

    Raise DeepferError where a file is there already and none `may_exist`, where it is a source, which writing
    would destroy, or where it cannot be written.
    """
    taken: set[str] = set()
    read = {(found.st_dev, found.st_ino) for found in (path.stat() for path in sources if path.exists())}
    for name, files in [*((sink.name, sink.files) for sink in sinks), *((str(path), [path]) for path in others)]:
        for path in files:
            if path.is_dir():
                raise DeepferError(f"the output's name is that of a folder: {path}", "name a file")
            if path.exists() and path.stat().st_size > 0 and not may_exist:
                why = "" if path == files[0] else f", which {name} may write as well"
                hint = "name another one, or add --overwrite to replace it"
                raise DeepferError(f"the output exists: {path}{why}", hint)
            if path.exists() and (path.stat().st_dev, path.stat().st_ino) in read:
                raise DeepferError(f"the output is a source of this run: {path}", "name another file")
            if os.path.realpath(path) in taken or any(sink.owns(path) and sink.name != name for sink in sinks):
                hint = "give each sink a file of its own"
                raise ConfigError(f"two outputs would write to the same file: {path}", hint)
        taken |= {os.path.realpath(path) for path in files}
        for path in files[:1]:
            _refuse_unwritable(path)
    for sink in sinks:
        if sink.folder is not None:
            _refuse_unwritable(sink.folder / "a.jpg")


def _refuse_unwritable(path: Path) -> None:
    """Raise DeepferError where no file can be written at `path`, whose folders may be missing; leave nothing behind."""
    try:
        folder = next(parent for parent in path.parents if parent.exists())
        if not folder.is_dir():
            raise NotADirectoryError(None, f"{folder} is not a folder")
        if path.is_file():
            path.open("ab").close()
        elif not path.exists():
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        hint = "name another file, or check who owns the folder"
        raise DeepferError(f"nothing can be written to {path}: {error.strerror or error}", hint) from None
