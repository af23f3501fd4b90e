"""Clips in the shapes that cameras, phones and recorders write, by the script that lies beside the repository; each has
the value of FFmpeg's own squared, upright copy of it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.faces.detect import YuNetDetector
from deepfer_yolo.records import Image
from deepfer_yolo.stream.address import parse_source
from deepfer_yolo.stream.source_errors import SourceReadError
from deepfer_yolo.stream.sources import VideoSource

pytestmark = pytest.mark.slow  # the clips take ffmpeg ten seconds, each is read whole


@pytest.fixture(scope="module")
def cases(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the clips."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg program to write the clips with")
    folder = tmp_path_factory.mktemp("cases")
    script = shared_dir / "cases" / "media_cases.sh"
    # The script calls python3, which must know numpy.
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    words = ["bash", str(script), str(shared_dir / "media" / "clip_stage.mp4"), str(folder)]
    subprocess.run(words, check=True, capture_output=True, env={"PATH": path})
    return folder


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Every image of a file, at a quarter of its size, its time, and the faces in every fifth."""

    images: list[Image]
    times: list[float]
    boxes: list[np.ndarray]
    clock: str


@pytest.fixture(scope="module")
def see(shared_dir: Path) -> Callable[[Path], Seen]:
    """A function that reads a file, once."""
    detector = YuNetDetector(shared_dir / "models" / "face_detection_yunet_2023mar.onnx", size=320, min_score=0.7)
    known: dict[Path, Seen] = {}

    def read(path: Path) -> Seen:
        if path not in known:
            seen = Seen([], [], [], "")
            source = VideoSource(parse_source(str(path))[0], StreamConfig())
            for index, grab in enumerate(source.grabs()):
                assert grab.image is not None
                assert grab.pts_s is not None
                seen.images.append(grab.image[::4, ::4])
                seen.times.append(grab.pts_s)
                if index % 5 == 0:
                    size = np.array(grab.image.shape[1::-1] * 2)
                    seen.boxes.extend(face.box / size for face in detector.detect(grab.image))
            known[path] = Seen(seen.images, seen.times, seen.boxes, source.clock)
            source.close()
        return known[path]

    return read


def copy_of(path: Path, filters: str) -> Path:
    """The file as FFmpeg shows it, coded without loss."""
    target = path.with_name(f"{path.stem}-copy.mkv")
    tags = ["-colorspace", "bt709", "-color_range", "tv", "-color_primaries", "bt709", "-color_trc", "bt709"]
    words = ["-vf", f"{filters},format=yuv420p", "-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", *tags]
    subprocess.run(["ffmpeg", "-loglevel", "error", "-y", "-i", str(path), *words, str(target)], check=True)
    return target


def even_times(seen: Seen, n: int) -> None:
    """Check that the images ascend at 29.97 a second from the first on."""
    assert len(seen.times) == n
    assert np.diff(seen.times) == pytest.approx(np.full(n - 1, 1 / 29.97), abs=1e-3)


@pytest.mark.parametrize("name", ["pal_16_9", "half_width"])
def test_faces_are_found_as_in_the_squared_picture(name: str, cases: Path, see: Callable[[Path], Seen]) -> None:
    path = cases / f"{name}.mp4"
    ours, theirs = see(path), see(copy_of(path, "scale=trunc(iw*sar/2)*2:ih,setsar=1"))
    assert ours.images[0].shape == theirs.images[0].shape
    assert abs(len(ours.boxes) - len(theirs.boxes)) <= 0.05 * len(theirs.boxes)
    even_times(ours, len(see(cases / "base.mp4").times))


def test_a_selfie_is_upright_and_mirrored(cases: Path, see: Callable[[Path], Seen]) -> None:
    ours, base = see(cases / "selfie.mp4"), see(cases / "base.mp4")
    mirrored = see(copy_of(cases / "base.mp4", "hflip"))
    error = [np.abs(a.astype(int) - b[:, ::-1]).mean() for a, b in zip(ours.images, base.images, strict=True)]
    assert max(error) < 6  # every fourth column of the mirrored image is another one
    assert abs(len(ours.boxes) - len(mirrored.boxes)) <= 0.05 * len(mirrored.boxes)
    assert len(ours.boxes) > 20


def test_b_frames_in_avi_come_in_their_order(cases: Path, see: Callable[[Path], Seen]) -> None:
    ours, base = see(cases / "bframes.avi"), see(cases / "base.mp4")
    even_times(ours, len(base.times))
    error = [np.abs(a.astype(int) - b).mean() for a, b in zip(ours.images, base.images, strict=True)]
    assert max(error) < 6


def test_raw_h264_goes_by_its_own_rate(cases: Path, see: Callable[[Path], Seen]) -> None:
    ours = see(cases / "raw.h264")
    even_times(ours, len(see(cases / "base.mp4").times))
    assert ours.times[-1] == pytest.approx(4.8, abs=0.04)
    assert ours.clock == "derived"


def test_a_song_with_a_cover_holds_no_video(cases: Path) -> None:
    with pytest.raises(SourceReadError, match=r"song\.m4a holds no video") as caught:
        VideoSource(parse_source(str(cases / "song.m4a"))[0], StreamConfig())
    assert caught.value.reason == "no-video"


@pytest.mark.parametrize("span", ["tv", "pc"])
def test_bt709_is_read_as_ffmpeg_reads_it(span: str, cases: Path) -> None:
    path = cases / f"bt709_{span}.mp4"
    source = VideoSource(parse_source(str(path))[0], StreamConfig())
    image = next(source.grabs()).image
    source.close()
    assert image is not None
    words = [
        "ffmpeg",
        "-loglevel",
        "error",
        "-i",
        str(path),
        "-frames:v",
        "1",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    raw = subprocess.run(words, check=True, capture_output=True).stdout
    wanted = np.frombuffer(raw, np.uint8).reshape(image.shape)
    assert np.abs(image.astype(int) - wanted).mean() < 1.5


def test_a_live_stream_of_several_segments_is_read_whole(
    cases: Path, see: Callable[[Path], Seen], run_of: Callable[..., object]
) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(cases / "hls")))
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        run = run_of([f"http://127.0.0.1:{server.server_port}/p.m3u8"], open_timeout_s=60.0, read_timeout_s=60.0)
        summary = run.start().finish(300)  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
    (source,) = summary.sources
    assert (source.counters.processed, source.epochs, summary.exit_code) == (len(see(cases / "base.mp4").times), 1, 0)
    assert run.sink.results[0].frame.time_s == 0.0  # type: ignore[attr-defined]
