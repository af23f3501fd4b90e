"""Times of files: in the order of presentation, from 0, also where the container stores no such times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.stream.address import parse_source
from deepfer_yolo.stream.source_errors import SourceReadError
from deepfer_yolo.stream.sources import VideoSource

RATE = Fraction(30000, 1001)
BIDIRECTIONAL = {"bf": "2", "g": "12", "preset": "veryfast"}
AS_TOLD = {"avoid_negative_ts": "disabled"}
"""For a container: stamps are written as they are, also below 0."""


def encode(
    container: Any, n: int, rate: Fraction = RATE, coding: dict[str, str] | None = None, codec: str = "libx264"
) -> list[Any]:
    """The packets of `n` frames of a moving bar; its stream is added to the container."""
    import av

    stream = container.add_stream(codec, rate=rate, options=BIDIRECTIONAL if coding is None else coding)
    stream.width, stream.height = 96, 64
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    packets = []
    for index in range(n):
        image = np.full((64, 96, 3), 60, np.uint8)
        image[:, (5 * index) % 80 :][:, :12] = 220
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=stream.pix_fmt)
        frame.pts, frame.time_base = index, 1 / rate
        packets += stream.encode(frame)
    return [*packets, *stream.encode(None)]


def write(path: Path, n: int = 60, change: Callable[[list[Any]], None] | None = None, **how: Any) -> Path:
    """A clip of `n` frames, whose packets `change` may spoil."""
    import av

    with av.open(str(path), "w", options=how.pop("container", {}), format=how.pop("form", None)) as container:
        packets = encode(container, n, **how)
        if change is not None:
            change(packets)
        for packet in packets:
            container.mux(packet)
    return path


def times_of(path: Path) -> list[float]:
    """The times of all frames, as the file's source gives them."""
    source = VideoSource(parse_source(str(path))[0], StreamConfig())
    times = [grab.pts_s for grab in source.grabs() if grab.image is not None]
    source.close()
    assert None not in times
    return [time_s for time_s in times if time_s is not None]


def evenly(n: int, rate: Fraction = RATE) -> Any:
    return pytest.approx([index / float(rate) for index in range(n)], abs=2e-3)


def from_zero(times: Sequence[float]) -> list[float]:
    return [time_s - times[0] for time_s in times]


@pytest.mark.parametrize("suffix", ["avi", "mp4", "mkv", "mov", "ts", "flv", "nut"])
def test_b_frames_come_in_the_order_of_presentation(suffix: str, tmp_path: Path) -> None:
    assert from_zero(times_of(write(tmp_path / f"clip.{suffix}"))) == evenly(60)


def test_b_frames_in_avi_are_one_epoch(run_of: Callable[..., Any], tmp_path: Path) -> None:
    run = run_of([str(write(tmp_path / "clip.avi"))]).start()
    (source,) = run.finish().sources
    assert (source.epochs, source.counters.processed) == (1, 60)
    assert {result.tracks[0].id for result in run.sink.results} == {1}


def test_avi_keeps_its_times_after_packets_that_give_no_frame(tmp_path: Path) -> None:
    def spoil(packets: list[Any]) -> None:
        for index in (14, 15, 16):
            packets[index] = spoilt(packets[index])

    times = times_of(write(tmp_path / "clip.avi", change=spoil))
    assert len(times) < 60
    assert (np.diff(times) >= 0).all()
    # From the next key frame on all is as if nothing had happened.
    assert from_zero(times)[-30:] == pytest.approx([index / float(RATE) for index in range(30, 60)], abs=2e-3)


def spoilt(packet: Any) -> Any:
    """The packet with its stamps, but nothing that a decoder knows."""
    import av

    other = av.Packet(b"\0\0\0\1\x0c\xff\x80" + b"\0" * 8)  # one NAL unit of filler
    other.pts, other.dts, other.duration = packet.pts, packet.dts, packet.duration
    other.time_base, other.stream, other.is_keyframe = packet.time_base, packet.stream, packet.is_keyframe
    return other


@pytest.mark.parametrize("rate", [RATE, Fraction(60), Fraction(25)])
@pytest.mark.parametrize(("form", "codec"), [("h264", "libx264"), ("hevc", "libx265"), ("mpeg2video", "mpeg2video")])
def test_raw_streams_go_by_the_rate_that_they_state(
    form: str, codec: str, rate: Fraction, run_of: Callable[..., Any], tmp_path: Path
) -> None:
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else None
    path = write(tmp_path / f"raw.{form}", rate=rate, form=form, codec=codec, coding=quiet)
    run = run_of([str(path)]).start()
    run.finish()
    assert [result.frame.time_s for result in run.sink.results] == evenly(60, rate)
    assert {result.frame.clock for result in run.sink.results} == {"derived"}
    (live,) = [record for record in run.sink.records if record.get("state") == "live"]
    assert live["reason"] == f"96×64; times derived from the {float(rate):.5g} frames a second that the stream states"


def test_a_raw_stream_without_a_rate_says_what_was_assumed(run_of: Callable[..., Any], tmp_path: Path) -> None:
    run = run_of([str(write(tmp_path / "raw.mjpeg", codec="mjpeg", coding={}))]).start()
    run.finish()
    assert [result.frame.time_s for result in run.sink.results] == evenly(60, Fraction(25))
    (live,) = [record for record in run.sink.records if record.get("state") == "live"]
    assert live["reason"].endswith("no times and no rate in the file: 25 frames a second assumed")


@pytest.mark.parametrize("suffix", ["ts", "mpg"])
def test_files_start_at_zero_unless_their_own_stamps_are_asked_for(
    suffix: str, run_of: Callable[..., Any], tmp_path: Path
) -> None:
    path = str(write(tmp_path / f"clip.{suffix}", codec="libx264" if suffix == "ts" else "mpeg2video"))
    told = {}
    for clock in ("start", "pts"):
        run = run_of([path], clock=clock).start()
        run.finish()
        told[clock] = [result.frame.time_s for result in run.sink.results]
    # FFmpeg's MPEG reader gives the last two frames one stamp.
    assert told["start"][:-1] == evenly(59)
    assert told["pts"][0] > 0.05
    assert from_zero(told["pts"]) == pytest.approx(told["start"])


def test_players_count_an_mpeg_stream_from_its_start_and_other_files_from_zero(tmp_path: Path) -> None:
    def later(packets: list[Any]) -> None:
        for packet in packets:
            packet.pts, packet.dts = packet.pts + 15, packet.dts + 15

    starts = {}
    for suffix in ("ts", "mp4"):
        path = write(tmp_path / f"clip.{suffix}", change=later)
        source = VideoSource(parse_source(str(path))[0], StreamConfig())
        starts[suffix] = (source.start_s, next(source.grabs()).pts_s)
        source.close()
    assert starts["ts"][0] == pytest.approx(starts["ts"][1])
    assert starts["mp4"] == (0.0, pytest.approx(0.5, abs=0.01))


def test_a_wrong_stamp_does_not_end_all_tracks(run_of: Callable[..., Any], tmp_path: Path) -> None:
    def swap(packets: list[Any]) -> None:
        packets[20].pts, packets[21].pts = packets[21].pts, packets[20].pts
        for packet in packets:
            packet.dts -= 5

    path = write(tmp_path / "clip.mkv", change=swap, coding={"bf": "0"}, container=AS_TOLD)
    run = run_of([str(path)]).start()
    (source,) = run.finish().sources
    times = [result.frame.time_s for result in run.sink.results]
    assert source.epochs == 1
    assert (np.diff(times) >= 0).all()
    assert times[-1] == pytest.approx(59 / float(RATE), abs=2e-3)


def test_joined_recordings_are_epochs(run_of: Callable[..., Any], tmp_path: Path) -> None:
    part = write(tmp_path / "part.ts").read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(part + part)
    run = run_of([str(path)]).start()
    (source,) = run.finish().sources
    assert (source.epochs, source.counters.processed) == (2, 120)
    second = [result.frame.time_s for result in run.sink.results if result.epoch == 1]
    assert second == evenly(60)


def two_videos(path: Path, second: Any) -> Path:
    """A file of two videos, the second of 48 × 32, of the disposition `second`."""
    import av

    with av.open(str(path), "w") as container:
        packets = encode(container, 12)
        other = container.add_stream("mjpeg", rate=RATE)
        other.width, other.height, other.pix_fmt = 48, 32, "yuvj420p"
        other.disposition = second
        image = av.VideoFrame(48, 32, "yuvj420p")
        for packet in [*packets, *other.encode(image), *other.encode(None)]:
            container.mux(packet)
    return path


def test_the_default_video_is_read_and_a_cover_never(tmp_path: Path) -> None:
    import av
    from av.stream import Disposition

    def size(path: Path) -> tuple[int, ...]:
        source = VideoSource(parse_source(str(path))[0], StreamConfig())
        image = next(source.grabs()).image
        source.close()
        assert image is not None
        return image.shape[:2]

    assert size(two_videos(tmp_path / "default.mkv", Disposition.default)) == (32, 48)
    assert size(two_videos(tmp_path / "plain.mkv", Disposition(0))) == (64, 96)
    assert size(two_videos(tmp_path / "cover.mp4", Disposition.attached_pic)) == (64, 96)

    song = tmp_path / "song.mp4"
    with av.open(str(song), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 48, 32, "yuvj420p", Disposition.attached_pic
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        image = av.VideoFrame(48, 32, "yuvj420p")
        for packet in [*sound.encode(silence), *sound.encode(None), *cover.encode(image), *cover.encode(None)]:
            container.mux(packet)
    with pytest.raises(SourceReadError, match=r"song\.mp4 holds no video, only: audio, a cover picture") as caught:
        size(song)
    assert caught.value.reason == "no-video"
