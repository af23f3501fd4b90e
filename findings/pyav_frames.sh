#!/usr/bin/env bash
# What PyAV's frames and containers say, and what they do not, about the picture that a person sees. Fails where that
# has changed: then deepfer_yolo/stream/pixels.py and frame_times.py may become shorter.
# 1. `frame.rotation` loses mirrors: left-right and top-bottom mirrors read as 180 and 0; the display matrix tells.
# 2. B-frames in AVI get stamps in the order of decoding: pts is always dts + 1, and frames come out of order by pts.
# 3. `average_rate` of raw H.264 is 25 whatever the stream states; `codec_context.framerate` tells.
# 4. `reformat(dst_color_trc=…)` maps HLG to an ordinary range, though its help says that it only tags; the first frame
#    takes seconds.
# 5. cv2.cvtColor of I420 is BT.601 in limited range, whatever the frame says.
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2) and OpenCV 4.14.0: "1. rotation {'plain': 0, 'left-right': 180, 'top-bottom': 0}",
# "2. pts - dts {1}, ascending False", "3. average_rate 25, framerate 60", "4. HLG 128 becomes 144 in 2.6 s",
# "5. red 200, 40, 40 in BT.709: OpenCV [186  24  42], PyAV [199  39  40]".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6 opencv-python-headless==4.14.0.94 || exit 69
cd "$folder"
"$folder/venv/bin/python" - <<'END'
import time
from fractions import Fraction

import av
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter

print("PyAV", av.__version__, "FFmpeg", av.ffmpeg_version_info, "OpenCV", cv2.__version__)


def write(path, matrix=None, rate=25, form=None):
    with av.open(path, "w", format=form) as container:
        stream = container.add_stream("libx264", rate=rate, options={"bf": "2", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        if matrix:
            a, b, c, d = (65536 * value for value in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for index in range(50):
            image = np.full((64, 96, 3), 60, np.uint8)
            image[:, 5 * index % 80 :][:, :12] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def check(what, is_as_expected):
    print(what, "as expected" if is_as_expected else "CHANGED")
    if not is_as_expected:
        raise SystemExit(1)


turns = {}
for name, matrix in {"plain": None, "left-right": (-1, 0, 0, 1), "top-bottom": (1, 0, 0, -1)}.items():
    with av.open(write("m.mp4", matrix)) as container:
        turns[name] = abs(next(container.decode(video=0)).rotation)
check(f"1. rotation {turns}:", turns == {"plain": 0, "left-right": 180, "top-bottom": 0})

with av.open(write("b.avi")) as container:
    stamps = [(packet.pts, packet.dts) for packet in container.demux(video=0) if packet.dts is not None]
with av.open("b.avi") as container:
    times = [frame.time for frame in container.decode(video=0)]
steps = {pts - dts for pts, dts in stamps}
check(f"2. pts - dts {steps}, ascending {times == sorted(times)}:", len(steps) == 1 and times != sorted(times))

with av.open(write("r.h264", rate=60, form="h264")) as container:
    stream = container.streams.video[0]
    check(f"3. average_rate {stream.average_rate}, framerate {stream.codec_context.framerate}:",
          stream.average_rate == 25 and stream.codec_context.framerate == 60)

grey = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 128, np.uint8), format="rgb24").reformat(format="yuv420p10le")
grey.colorspace, grey.color_range, grey.color_trc, grey.color_primaries = 9, 1, ColorTrc.ARIB_STD_B67, 9
began = time.process_time()
mapped = VideoReformatter().reformat(
    grey, format="rgb24", dst_color_trc=ColorTrc.BT709, dst_color_primaries=ColorPrimaries.BT709).to_ndarray()
spent_s = time.process_time() - began
check(f"4. HLG 128 becomes {mapped[32, 32, 1]} in {spent_s:.1f} s:", abs(int(mapped[32, 32, 1]) - 143) < 6 and spent_s > 0.5)

red = av.VideoFrame.from_ndarray(np.full((64, 64, 3), (200, 40, 40), np.uint8), format="rgb24")
frame = red.reformat(format="yuv420p", dst_colorspace=1)
frame.colorspace, frame.color_range = 1, 1
opencv, pyav = cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_I420)[32, 32], frame.to_ndarray(format="rgb24")[32, 32]
check(f"5. red 200, 40, 40 in BT.709: OpenCV {opencv}, PyAV {pyav}:", abs(int(opencv[1]) - 40) > 8 and abs(int(pyav[1]) - 40) < 5)
END
