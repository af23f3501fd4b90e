#!/usr/bin/env bash
# Ray 2.60.0: `ray.data.read_images` of a folder leaves out .webp without a word; gives the indices of a palette PNG
# as if they were grey, so a white image may come as zeros; does not turn a photo by its EXIF tag; and where images
# differ in channels, a grey one comes as (1, height, width), channels first, beside (height, width, 3). `mode="RGB"`
# mends the palette and the channels.
# Seen: "read: alpha.png (48, 48, 4), grey.png (1, 48, 48), photo.jpg (32, 64, 3); white palette image: 0; with mode
# RGB: 255".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[data]==2.60.0" pillow==13.0.0 numpy==2.4.6 pyarrow==26.0.1 || exit 69
RAY_USAGE_STATS_ENABLED=0 RAY_raylet_start_wait_time_s=120 "$folder/venv/bin/python" - "$folder" 2> "$folder/log" <<'PYTHON'
import sys
from pathlib import Path

import ray
from PIL import Image

mixed, palette = Path(sys.argv[1], "mixed"), Path(sys.argv[1], "palette")
mixed.mkdir()
palette.mkdir()
Image.new("RGBA", (48, 48)).save(mixed / "alpha.png")
Image.new("L", (48, 48)).save(mixed / "grey.png")
Image.new("RGB", (48, 48)).save(mixed / "new.webp")
turn = Image.Exif()
turn[0x112] = 6
Image.new("RGB", (64, 32)).save(mixed / "photo.jpg", exif=turn)
white = Image.new("P", (48, 48), 0)
white.putpalette([255, 255, 255])
white.save(palette / "white.png")

try:
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False,
             object_store_memory=200_000_000)
except Exception as error:  # on a machine that is too busy
    print("Ray did not start:", error)
    sys.exit(69)
rows = ray.data.read_images(str(mixed), include_paths=True, override_num_blocks=1).take_all()
shapes = dict(sorted((Path(row["path"]).name, row["image"].shape) for row in rows))
plain, rgb = (int(ray.data.read_images(str(palette), mode=mode).take(1)[0]["image"].max()) for mode in (None, "RGB"))
ray.shutdown()
print("read:", ", ".join(f"{name} {shape}" for name, shape in shapes.items()) + ";",
      f"white palette image: {plain}; with mode RGB: {rgb}")
expected = {"alpha.png": (48, 48, 4), "grey.png": (1, 48, 48), "photo.jpg": (32, 64, 3)}
sys.exit(not (shapes == expected and (plain, rgb) == (0, 255)))
PYTHON
