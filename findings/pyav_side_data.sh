#!/usr/bin/env bash
# PyAV 18.1.0: a frame whose `side_data` was looked at is freed by the garbage collector alone, since the two name each
# other; the pictures of a video then pile up until its next full run. A container that is made by hand has no such cycle.
# Seen: "frames alive: 2 untouched, 41 after side_data, 2 after SideDataContainer(frame)".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6 || exit 69
"$folder/venv/bin/python" - "$folder/a.mp4" <<'PYTHON'
import gc
import sys

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer

with av.open(sys.argv[1], "w") as container:
    stream = container.add_stream("mpeg4", rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for shade in range(40):
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8), format="rgb24")))
    container.mux(stream.encode())


def alive(look):
    gc.collect()
    gc.disable()
    with av.open(sys.argv[1]) as video:
        for frame in video.decode(video=0):
            look(frame)
        n = sum(isinstance(one, av.VideoFrame) for one in gc.get_objects())
    gc.enable()
    return n


counts = [alive(look) for look in (lambda f: None, lambda f: f.side_data, lambda f: SideDataContainer(f))]
print("frames alive: {} untouched, {} after side_data, {} after SideDataContainer(frame)".format(*counts))
sys.exit(not (counts[0] < 5 and counts[1] >= 40 and counts[2] < 5))
PYTHON
