"""What a video may be in REST: as the command line takes it, each as what it is, within limits that are named."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image as PillowImage

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.errors import SourceTooLargeError
from deepfer_yolo.records import Image
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.serve.video import container_of, label_video
from deepfer_yolo.servers import ServeConfig

TRANSPORT = b"G" + bytes(187)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\0\0\0\x18ftypisom", "mov"),
        (b"\x1a\x45\xdf\xa3" + bytes(20), "matroska"),
        (b"RIFF\0\0\0\0AVI LIST", "avi"),
        (b"RIFF\0\0\0\0WEBPVP8X", "webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"GIF89a" + bytes(20), "gif"),
        (TRANSPORT * 4, "mpegts"),
        ((bytes(4) + TRANSPORT) * 4, "mpegts"),
        (b"G" + bytes(800), None),
        (b"\0\0\0\1\x67\x42", "h264"),
        (b"\0\0\1\x09\x10", "h264"),
        (b"\0\0\1\x06\x05", "h264"),
        (b"\0\0\1\xba\x44", None),
        (b"\0\0\0\1", None),
        (b"#EXTM3U\n", None),
        (b"ffconcat version 1.0\n", None),
        (b"", None),
    ],
)
def test_containers_are_known_by_their_first_bytes(content: bytes, name: str | None) -> None:
    assert container_of(content) == name


@pytest.fixture(scope="module")
def converted(scene: list[Image], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """A function that gives the scene's face, eight frames at 8 a second, as the bytes of a file of a kind."""
    folder = tmp_path_factory.mktemp("formats")
    for index, image in enumerate(scene[:8]):
        marked = image.copy()
        marked[:8, :8] = 20 * index  # no two frames are the same, which a WebP would join
        PillowImage.fromarray(marked).save(folder / f"{index}.png")

    def convert(kind: str) -> bytes:
        target = folder / f"clip.{kind}"
        if kind == "webp":
            first, *rest = [PillowImage.open(folder / f"{index}.png") for index in range(8)]
            first.save(target, save_all=True, append_images=rest, duration=125, lossless=True)
        else:
            coding = [] if kind == "gif" else ["-c:v", "libx264", "-pix_fmt", "yuv420p"]
            container = {"m2ts": ["-mpegts_m2ts_mode", "1", "-f", "mpegts"]}.get(kind, [])
            words = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", "-framerate", "8", "-i", folder / "%d.png"]
            subprocess.run([*words, *coding, *container, target], check=True)
        return target.read_bytes()

    return convert


@pytest.mark.parametrize("kind", ["ts", "m2ts", "h264", "gif", "webp"])
def test_they_are_watched_as_the_command_line_does(
    kind: str, converted: Callable[[str], bytes], server: Any, tmp_path: Path
) -> None:
    from deepfer_yolo.stream.address import parse_source
    from deepfer_yolo.stream.sources import open_source

    content = converted(kind)
    answer = httpx.post(f"{server.url}v1/video", files={"files": (f"a.{kind}", content)}, timeout=60)
    assert answer.status_code == 200, answer.text
    watched = answer.json()
    (tmp_path / f"a.{kind}").write_bytes(content)
    source = open_source(parse_source(str(tmp_path / f"a.{kind}"))[0], StreamConfig())
    times = [grab.pts_s - source.start_s for grab in source.grabs() if grab.pts_s is not None]
    source.close()
    assert [frame["time_s"] for frame in watched["frames"]] == pytest.approx(times, abs=1e-3)
    assert len(times) == 8
    assert times[-1] == pytest.approx(0.875, abs=0.02)
    assert (watched["width"], watched["height"]) == (320, 240)
    assert sum(len(frame["faces"]) for frame in watched["frames"]) >= 6


def test_a_still_webp_is_no_video(server: Any) -> None:
    content = io.BytesIO()
    PillowImage.new("RGB", (64, 64)).save(content, "WEBP")
    answer = httpx.post(f"{server.url}v1/video", files={"files": ("a.webp", content.getvalue())})
    assert answer.status_code == 422
    assert "is a still image" in answer.json()["detail"]


def hevc(folder: Path, size: str, seconds: float) -> bytes:
    """A video of 10-bit HEVC, as phones write it."""
    done = subprocess.run(
        ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate=10",
         "-t", str(seconds), "-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-preset", "ultrafast",
         "-x265-params", "log-level=error", folder / "a.mp4"], check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("this ffmpeg has no HEVC encoder")
    return (folder / "a.mp4").read_bytes()


@pytest.mark.slow  # 4K takes a core some seconds to encode and to watch
def test_4k_in_10_bits_is_watched_within_the_default_limits(server: Any, tmp_path: Path) -> None:
    content = hevc(tmp_path, "3840x2160", 1)
    answer = httpx.post(f"{server.url}v1/video", files={"files": ("a.mp4", content)}, timeout=120)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["width"], len(answer.json()["frames"])) == (3840, 10)


def test_what_passes_a_limit_is_told_which_and_its_key(
    start_server: Callable[..., Any], linear_model: Path, tmp_path: Path
) -> None:
    small = start_server(linear_model, worker_memory_mb=64, workers=1, video_timeout_s=0.05, decode_timeout_s=60)
    content = hevc(tmp_path, "3840x2160", 0.1)

    def ask(server: Any) -> tuple[int, str]:
        answer = httpx.post(f"{server.url}v1/video", files={"files": ("a.mp4", content)}, timeout=60)
        return answer.status_code, answer.json()["detail"]

    assert ask(small) == (422, "decoding took longer than 0.05 s (video_timeout_s)")
    small = start_server(linear_model, worker_memory_mb=64, workers=1)
    assert ask(small) == (422, "decoding it takes more memory than the limit of 64 MB (worker_memory_mb)")
    model = Classifier(linear_model)
    with pytest.raises(SourceTooLargeError, match=r"more than 1,000,000 pixels \(max_megapixels\)"):
        label_video(content, "a", model, ServeConfig(detector="haar", max_megapixels=1))


def test_frames_are_let_go_as_they_are_passed(make_clip_of: Callable[[int], Path]) -> None:
    import gc

    import av

    from deepfer_yolo.stream.address import Address
    from deepfer_yolo.stream.sources import VideoSource

    source = VideoSource(Address("a", "file", str(make_clip_of(40))), StreamConfig())

    def frames() -> set[int]:
        return {id(one) for one in gc.get_objects() if type(one) is av.VideoFrame}

    gc.collect()
    gc.disable()
    before = frames()
    try:
        for n, _ in enumerate(source.grabs()):
            if n == 30:
                assert len(frames() - before) < 20
    finally:
        gc.enable()
        source.close()


@pytest.fixture
def make_clip_of(tmp_path: Path) -> Callable[[int], Path]:
    def make(n: int) -> Path:
        import av

        with av.open(str(tmp_path / "a.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for index in range(n):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), index, np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return tmp_path / "a.mp4"

    return make
