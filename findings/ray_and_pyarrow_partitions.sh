#!/usr/bin/env bash
# Ray 2.60.0 and pyarrow 26.0.1 read one folder of `subject=007/…parquet` differently: Ray, which reads by pyarrow,
# keeps the text "007" of each folder's name; pyarrow's own `read_table` makes a number of it, so that 007 and 7
# become one subject, and text again as soon as one folder's name is no number. A split by subject made with one does
# not fit what the other reads.
# Seen: "subjects: Ray ['007', '7'], pyarrow [7]; beside subject=S01: pyarrow ['007', '7', 'S01']".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[data]==2.60.0" pyarrow==26.0.1 || exit 69
RAY_USAGE_STATS_ENABLED=0 RAY_raylet_start_wait_time_s=120 "$folder/venv/bin/python" - "$folder/faces" 2> "$folder/log" <<'PYTHON'
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import ray

faces = Path(sys.argv[1])


def write(subject):
    (faces / f"subject={subject}").mkdir(parents=True)
    pq.write_table(pa.table({"label": ["happy"]}), faces / f"subject={subject}" / "0.parquet")


def subjects(rows):
    return sorted({row["subject"] for row in rows})


write("007")
write("7")
try:
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False,
             object_store_memory=200_000_000)
except Exception as error:  # on a machine that is too busy
    print("Ray did not start:", error)
    sys.exit(69)
by_ray = subjects(ray.data.read_parquet(str(faces)).take_all())
ray.shutdown()
numbers = subjects(pq.read_table(faces).to_pylist())
write("S01")
texts = subjects(pq.read_table(faces).to_pylist())
print(f"subjects: Ray {by_ray}, pyarrow {numbers}; beside subject=S01: pyarrow {texts}")
sys.exit((by_ray, numbers, texts) != (["007", "7"], [7], ["007", "7", "S01"]))
PYTHON
