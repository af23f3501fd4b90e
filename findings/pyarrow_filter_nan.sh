#!/usr/bin/env bash
# pyarrow 26.0.1: a filter on a Parquet file is answered from the row group's smallest and largest value where they
# suffice, and those leave NaN out. A group that holds one number and NaN thus loses its NaN rows under `x != 0.5` and
# even under `is_nan()`, while the same filter on the table in memory finds them; with a second number in the group
# the file finds them too.
# Seen: "NaN found by is_nan: file 0, in memory 1, with another value in the group 1; by != 0.5: file 0, in memory 1,
# 1".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyarrow==26.0.1 || exit 69
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

one, two = pa.table({"confidence": [0.5, float("nan")]}), pa.table({"confidence": [0.5, 0.6, float("nan")]})
pq.write_table(one, "one.parquet")
pq.write_table(two, "two.parquet")
column = pc.field("confidence")


def n_nan(table):
    return sum(value != value for value in table["confidence"].to_pylist())


found = []
for condition in (column.is_nan(), column != 0.5):
    tables = (pq.read_table("one.parquet", filters=condition), one.filter(condition),
              pq.read_table("two.parquet", filters=condition))
    found.append([n_nan(table) for table in tables])
print("NaN found by is_nan: file {}, in memory {}, with another value in the group {};".format(*found[0]),
      "by != 0.5: file {}, in memory {}, {}".format(*found[1]))
sys.exit(found != [[0, 1, 1], [0, 1, 1]])
PYTHON
