#!/usr/bin/env bash
# datasets 5.2.0: `to_parquet()` of an image folder writes no image: the bytes are null and the path is absolute, after a
# plain `map` too, so that the file is of use on that machine alone. `embed_table_storage` puts the bytes inside.
# Seen: "bytes inside: plain False, after map False, embedded True; path absolute: True".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pillow==13.0.0 pyarrow==26.0.1 || exit 69
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import datasets
import pyarrow.parquet as pq
from PIL import Image

datasets.disable_progress_bars()
folder = Path(sys.argv[1])
for label in ("angry", "happy"):
    (folder / "faces" / label).mkdir(parents=True)
    Image.new("L", (48, 48), len(label)).save(folder / "faces" / label / "0.png")
faces = datasets.load_dataset("imagefolder", data_dir=str(folder / "faces"), split="train")
embed = faces.with_format("arrow").map(datasets.table.embed_table_storage, batched=True).with_format(None)
cells = []
for name, version in (("plain", faces), ("mapped", faces.map(lambda row: row)), ("embedded", embed)):
    version.to_parquet(folder / f"{name}.parquet")
    cells.append(pq.read_table(folder / f"{name}.parquet").column("image")[0].as_py())
inside = [cell["bytes"] is not None for cell in cells]
is_absolute = Path(cells[0]["path"]).is_absolute()
print("bytes inside: plain {}, after map {}, embedded {}; path absolute: {}".format(*inside, is_absolute))
sys.exit(inside != [False, False, True] or not is_absolute)
PYTHON
