"""Faces, tracks, epochs and last time of one clip in the kinds of files that cameras, phones and recorders write, each
against FFmpeg's own squared, upright and tone-mapped copy of the same file.

    python tests/benchmarks/file_kinds.py clip.mp4 --face-model face_detection_yunet_2023mar.onnx [--seconds 4.8]

Needs the ffmpeg program with zscale and libx265. The copies are coded without loss: at crf 16 a tenth of the faces at
the edge of the least score come or go. `overlap` is the share of the copy's faces found at the same place and time.
"""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MODEL = Path(__file__).parent.parent.parent / "deepfer_yolo" / "models" / "deepfer-n.onnx"
H264 = "-c:v libx264 -preset veryfast -crf 16 -pix_fmt yuv420p"
LOSSLESS = "-c:v libx264 -preset ultrafast -qp 0"
X265 = "-c:v libx265 -preset ultrafast -crf 14 -x265-params log-level=none"
BT709 = "-colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv"
TO_HDR = (
    "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt2020:t={transfer}:m=bt2020nc:r=tv:npl=203,format=yuv420p10le"
)
TO_SDR = (
    "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,tonemap=mobius,zscale=t=bt709:m=bt709:r=tv,format=yuv420p"
)
HDR_TAGS = "-colorspace bt2020nc -color_primaries bt2020 -color_trc {transfer} -color_range tv"
KINDS: dict[str, tuple[str, str]] = {
    "plain.mp4": ("", H264),
    "b-frames.avi": ("", H264 + " -bf 2"),
    "mpeg4.avi": ("", "-c:v mpeg4 -q:v 2 -bf 2"),
    "pal 64:45.mp4": ("scale=720:576,setsar=64/45", H264),
    "ntsc 8:9.mpg": ("scale=720:360,setsar=8/9", "-c:v mpeg2video -q:v 2"),
    "half width.mp4": ("scale=320:360,setsar=2/1", H264),
    "half height.mp4": ("scale=640:180,setsar=1/2", H264),
    "bt709 full.mp4": (
        "scale=out_color_matrix=bt709:out_range=pc,format=yuv420p",
        H264 + " " + BT709.replace("tv", "pc"),
    ),
    "bt2020 10-bit.mp4": ("scale=out_color_matrix=bt2020,format=yuv420p10le", X265 + " -colorspace bt2020nc"),
    "hlg.mp4": (TO_HDR.format(transfer="arib-std-b67"), f"{X265} {HDR_TAGS.format(transfer='arib-std-b67')}"),
    "pq.mp4": (TO_HDR.format(transfer="smpte2084"), f"{X265} {HDR_TAGS.format(transfer='smpte2084')}"),
    "raw.h264": ("", H264),
    "raw.hevc": ("", X265),
    "clip.ts": ("", H264),
    "clip.flv": ("", H264),
    "clip.webm": ("", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 3M"),
    "motion jpeg.mkv": ("", "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p"),
}
TURNS = {"turned 90": (0, 1, -1, 0), "turned 180": (-1, 0, 0, -1), "turned 270": (0, -1, 1, 0), "selfie": (-1, 0, 0, 1),
         "upside down": (1, 0, 0, -1), "transposed": (0, 1, 1, 0), "transverse": (0, -1, -1, 0)}  # fmt: skip
UNDO = {"turned 90": "transpose=2", "turned 180": "hflip,vflip", "turned 270": "transpose=1", "selfie": "hflip",
        "upside down": "vflip", "transposed": "transpose=0", "transverse": "transpose=3"}  # fmt: skip
"""What FFmpeg's filters do to the clip, so that the matrix of the same name brings it upright again."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a stream told of one file."""

    boxes: dict[float, Any]
    tracks: int
    epochs: int
    last_s: float

    @property
    def faces(self) -> int:
        """All faces of all frames."""
        return sum(map(len, self.boxes.values()))


def read(path: Path, model: Any, face_model: Path) -> Reading:
    """Run `deepfer stream` over a file."""
    from deepfer_yolo.config import StreamConfig
    from deepfer_yolo.stream.session import run_stream

    out = path.with_suffix(".jsonl")
    config = StreamConfig(detector="yunet", face_model=face_model, overwrite=True)
    summary = run_stream([str(path)], model, [f"jsonl={out}"], config)
    records = [json.loads(line) for line in out.read_text().splitlines()]
    boxes, states = defaultdict(list), [record for record in records if record["kind"] == "state"]
    for record in records:
        if record["kind"] == "face":
            boxes[round(record["time_s"], 2)].append(record["box"])
    tracks = {record["track"] for record in records if record["kind"] == "face"}
    return Reading(boxes, len(tracks), summary.sources[0].epochs, states[-1]["time_s"])


def found_again(ours: Reading, reference: Reading) -> float:
    """The share of the reference's faces that lie at the same place (IoU at least 0.5) at the same time."""
    from deepfer_yolo.faces.track import overlap

    n = 0
    for time_s, boxes in reference.boxes.items():
        near = [box for other, found in ours.boxes.items() if abs(other - time_s) < 0.017 for box in found]
        if near:
            n += int((overlap(np.array(boxes, float), np.array(near, float)).max(axis=1) >= 0.5).sum())
    return n / max(1, reference.faces)


def ffmpeg(*words: str) -> None:
    """Run ffmpeg, quietly."""
    subprocess.run(["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *words], check=True)


def write(source: Path, path: Path, kind: str) -> None:
    """The clip as a file of one kind."""
    if kind in TURNS:
        ffmpeg("-i", str(source), "-an", "-vf", UNDO[kind], *H264.split(), str(path))
        content = bytearray(path.read_bytes())
        start = content.find(b"tkhd") + 4
        start += 40 if content[start] == 0 else 52
        a, b, c, d = (0x10000 * value for value in TURNS[kind])
        struct.pack_into(">9i", content, start, a, b, 0, c, d, 0, 0, 0, 0x40000000)
        path.write_bytes(content)
        return
    filters, coding = KINDS[kind]
    ffmpeg("-i", str(source), "-an", *(["-vf", filters] if filters else []), *coding.split(), str(path))


def copy(path: Path, kind: str, rate: str) -> Path:
    """FFmpeg's own squared, upright, tone-mapped copy; it turns and mirrors by itself."""
    square = "scale='if(gt(sar,1),trunc(iw*sar/2+0.5)*2,iw)':'if(lt(sar,1),trunc(ih/sar/2+0.5)*2,ih)',setsar=1"
    tones = [TO_SDR] if kind in ("hlg.mp4", "pq.mp4") else ["scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"]
    target = path.with_name(path.stem + " copy.mp4")
    asked = ["-r", rate] if kind.startswith("raw.") else []
    words = ["-vf", ",".join([*tones, square, "format=yuv420p"]), *LOSSLESS.split(), *BT709.split(), str(target)]
    ffmpeg(*asked, "-i", str(path), "-an", *words)
    return target


def main() -> None:
    """Print one row a kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--face-model", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--seconds", type=float, default=4.8)
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    from deepfer_yolo.runtime.classifier import Classifier

    model = Classifier(options.model)
    kinds = options.only or [*KINDS, *TURNS]
    print(f"{'kind':18} {'faces':>11} {'tracks':>8} {'epochs':>8} {'last s':>15}  overlap    (file / ffmpeg's copy)")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = folder / "source.mp4"
        ffmpeg("-i", str(options.clip), "-t", str(options.seconds), "-an", *H264.split(), *BT709.split(), str(source))
        probe = ["ffprobe", "-v", "error", "-show_entries", "stream=r_frame_rate", "-of", "csv=p=0", str(source)]
        rate = subprocess.run(probe, check=True, capture_output=True, text=True).stdout.strip()
        for kind in kinds:
            path = folder / (kind if kind in KINDS else f"{kind}.mp4")
            write(source, path, kind)
            ours = read(path, model, options.face_model)
            theirs = read(copy(path, kind, rate), model, options.face_model)
            pairs = [f"{getattr(ours, key)}/{getattr(theirs, key)}" for key in ("faces", "tracks", "epochs")]
            last = f"{ours.last_s:.3f}/{theirs.last_s:.3f}"
            row = f"{kind:18} {pairs[0]:>11} {pairs[1]:>8} {pairs[2]:>8} {last:>15}"
            print(f"{row}  {100 * found_again(ours, theirs):6.1f} %", flush=True)


if __name__ == "__main__":
    main()
