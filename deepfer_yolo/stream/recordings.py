"""Recordings, one by one, by whoever has a core to spare: what is kept of each, and the lines made of it again.

A recording's records are those of `deepfer stream FILE --sink jsonl=…`, line by line.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepfer_yolo.config import LabelConfig, StreamConfig
from deepfer_yolo.data.shards import Answers, Job, Names, wrong_row
from deepfer_yolo.errors import DeepferError, SourceError
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import digest
from deepfer_yolo.stream.address import Address, parse_sources
from deepfer_yolo.stream.pipeline import Pipeline
from deepfer_yolo.stream.sinks.lines import JsonlSink
from deepfer_yolo.stream.sinks.worker import SinkWorker

OF_RECORDS = (set(LabelConfig.model_fields) - {"threads"}) | {
    "detect_every", "policy", "max_frames", "clock", "lost_s", "smooth_s", "hold_s", "margin", "min_confidence",
}  # fmt: skip
"""Settings that change what is found in a file."""
LARGEST = 2**62


def recordings_of(sources: Sequence[str], cameras: Path | None) -> list[Address]:
    """The files behind some sources. Raises SourceError where one is none: nobody else can read a camera here."""
    found = parse_sources(sources, cameras)
    for address in found:
        if address.kind != "file":
            reason = f"{address.name} is no video file, and a cluster reads those alone"
            raise SourceError(reason, "deepfer stream without --cluster reads it; --shard I/N spreads cameras")
    return found


def job_of(recordings: Sequence[Address], classifier: Classifier, config: StreamConfig) -> Job:
    """What is to be done: the model, the settings that change records, and which recordings."""
    settings = config.model_dump(mode="json", include=OF_RECORDS)
    job = Job(command="stream", model=digest(classifier.path), settings=settings)
    return job.over(Names.of(address.name for address in recordings))


def read_recording(recording: Address, classifier: Classifier, config: StreamConfig) -> dict[str, Any]:
    """What is kept of one recording: its records as lines, how it ended, and how much was in it."""
    config = config.model_copy(update={"max_bytes": LARGEST})
    with tempfile.TemporaryDirectory(prefix="deepfer-") as name:
        file = Path(name) / "records.jsonl"
        sink = SinkWorker(JsonlSink(str(file), config))
        summary = Pipeline([recording], classifier, [sink], config, decoder_threads=1).run()
        if summary.sinks[0].error is not None:
            raise DeepferError(f"records cannot be kept: {summary.sinks[0].error}", f"make room in {name}")
        records = file.read_text(encoding="utf-8").split("\n")[:-1]  # names may hold other ends of lines
    (source,) = summary.sources
    return {
        "source": recording.name,
        "state": source.state,
        "error": source.error,
        "images": source.counters.processed,
        "faces": summary.faces,
        "records": records,
    }


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recording again: why it failed, if it did, and its records as lines of JSON."""

    source: str
    error: str | None
    records: list[str]


def recorded_again(
    recordings: Sequence[Address], classifier: Classifier, config: StreamConfig, answers: Answers
) -> Iterator[Recorded]:
    """What was found in each recording, in their order, from the answers of whoever read them.

    Raises DatasetError where those are of another job, or not whole.
    """
    found = answers.of(job_of(recordings, classifier, config))
    for recording, kept in zip(recordings, found, strict=True):
        records, error = kept.get("records"), kept.get("error")
        if not isinstance(records, list) or not all(isinstance(line, str) for line in records):
            raise wrong_row(recording.name)
        yield Recorded(recording.name, None if error is None else str(error), records)
