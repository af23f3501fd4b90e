#!/usr/bin/env bash
# label-studio-sdk 2.1.2: `LabelInterface.validate_task(task)` raises TypeError for every task that brings a prediction,
# a valid one too: it calls `validate_prediction()` without its argument. `validate_prediction(prediction)` itself works.
# Exports that are flat (JSON_MIN, CSV) name the annotations of a task with the newest first, so that whoever takes the
# last one of an annotator, as files that are appended to suggest, takes the first opinion; `updated_at` tells.
# Seen: "prediction alone: [], task: TypeError; annotations of JSON_MIN: [2, 1]".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet label-studio-sdk==2.1.2 || exit 69
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys
from pathlib import Path

from label_studio_sdk.converter import Converter
from label_studio_sdk.label_interface import LabelInterface

folder = Path(sys.argv[1])
config = """<View><Image name="image" value="$image"/><Choices name="label" toName="image">
<Choice value="happy"/><Choice value="sad"/></Choices></View>"""
interface = LabelInterface(config)
result = [interface.get_control("label").label(label="sad")._dict()]
prediction = {"model_version": "m", "score": 0.5, "result": result}
alone = interface.validate_prediction(prediction, return_errors=True)
try:
    task = str(interface.validate_task({"data": {"image": "a.png"}, "predictions": [prediction]}))
except TypeError as error:
    task = type(error).__name__
given = [{"id": n, "completed_by": 1, "result": result, "created_at": f"2026-01-0{n}T00:00:00Z",
          "updated_at": f"2026-01-0{n}T00:00:00Z"} for n in (1, 2)]
(folder / "tasks.json").write_text(json.dumps([{"id": 1, "data": {"image": "a.png"}, "annotations": given}]))
Converter(config, str(folder), download_resources=False).convert_to_json_min(
    str(folder / "tasks.json"), str(folder / "min"), is_dir=False
)
order = [row["annotation_id"] for row in json.loads((folder / "min" / "result.json").read_text())]
print(f"prediction alone: {alone}, task: {task}; annotations of JSON_MIN: {order}")
sys.exit(alone != [] or task != "TypeError" or order != [2, 1])
PYTHON
