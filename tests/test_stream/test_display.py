"""What is shown while a stream runs, and at its end."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from deepfer_yolo.stream.display import LiveStatus, live_table, summary_table

CAMERA = "testsrc=size=96x64:rate=30"


def printed(table: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    return str(text)


def test_the_table_shows_rate_age_queue_drops_and_stages(
    run_of: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    run = run_of([CAMERA, f"rtsp://127.0.0.1:{free_port()}/x"], slow_s=0.1, retries=0).start()
    run.wait_for(lambda: len(run.sink.results) >= 10)
    run.wait_for(lambda: "failed" in run.sink.states())
    summary, ages = run.pipeline.summary(), run.pipeline.ages_ms()
    shown = printed(live_table(summary, 9.5, ages, {CAMERA: 1}))
    source = summary.sources[0]
    assert f"{summary.wall_s:.0f} s   9.5 frames/s   {summary.faces} faces" in shown
    assert re.search(rf"live +{source.counters.processed} +{source.counters.dropped} +1 +{ages[CAMERA]:.0f}", shown)
    assert "failed (refused)" in shown
    assert re.search(
        rf"classify +{summary.stages['classify'].p50_ms:.1f} +{summary.stages['classify'].p99_ms:.1f}", shown
    )
    run.stop()


def test_the_end_tells_the_counters_and_why_a_source_failed(
    run_of: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    run = run_of([CAMERA, f"rtsp://ann:secret@127.0.0.1:{free_port()}/x"], slow_s=0.1, retries=0).start()
    run.wait_for(lambda: "failed" in run.sink.states())
    run.wait_for(lambda: run.pipeline.summary().sources[0].counters.overwritten > 0)
    summary = run.stop()
    shown = " ".join(printed(summary_table(summary)).split())
    n = summary.sources[0].counters
    assert f"ended {n.captured} {n.processed} {n.dropped} 0" in shown
    assert f"{n.overwritten} overwritten" in shown
    assert "Connection refused (check host and port" in shown
    assert "secret" not in shown


def test_elsewhere_there_is_a_line_and_a_record_a_second(
    run_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("deepfer_yolo.stream.display.EVERY_S", 0.2)
    stats = tmp_path / "new" / "stats.json"
    with LiveStatus(is_table=False, stats=stats) as status:
        assert not stats.exists(), "a run that is refused leaves no file"
        run = run_of([CAMERA])
        run.pipeline._on_tick = status.tick
        began = time.monotonic()
        run.start().wait_for(lambda: len(run.sink.results) >= 3)
        run.wait_for(lambda: stats.exists() and stats.read_text().count("\n") >= 4)
        status.close(run.stop())
        took_s = time.monotonic() - began
    lines = capsys.readouterr().err.splitlines()
    assert 4 <= len(lines) <= took_s / 0.2 + 1
    live = r" +\d+\.\d s  1/1 live +\d+\.\d fps  age \d+ ms  dropped \d+  faces \d+  detect .* ms"
    assert [line for line in lines if re.fullmatch(live, line)], lines
    records = [json.loads(line) for line in stats.read_text().splitlines()]
    assert len(records) == len(lines) + 1
    queues = [record["queue"] for record in records if record["queue"]]
    assert queues, "it was read"
    assert all(queue in ({CAMERA: 0}, {CAMERA: 1}) for queue in queues)
    assert records[-1]["final"] is True


def test_a_terminal_gets_a_table_that_changes(
    run_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("deepfer_yolo.stream.display.EVERY_S", 0.2)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with LiveStatus(is_table=True) as status:
        run = run_of([CAMERA], max_seconds=1.0)
        run.pipeline._on_tick = status.tick
        run.start().finish()
    assert "age ms" in capsys.readouterr().err
