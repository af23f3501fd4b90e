"""Stock `yolo classify train`, and how many images a second each epoch had, its validation and checkpoint left out.

python docs/gpu/stock.py RATES.json key=value…    the keys of `yolo classify train`

Ultralytics reads results.csv with polars, a wheel of 45 MB, for nothing but a record inside the checkpoint; where
polars is not there, an empty module stands in for it, and the record stays empty.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
import types
from pathlib import Path
from typing import Any

import yaml

os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", ULTRALYTICS_SKIP_REQUIREMENTS_CHECKS="1")
if importlib.util.find_spec("polars") is None:
    sys.modules["polars"] = types.ModuleType("polars")  # what fails there is taken as no record


def main() -> None:
    """Train, and write the rates after every epoch."""
    from ultralytics import YOLO

    path, *words = sys.argv[1:]
    settings: dict[str, Any] = {key: yaml.safe_load(value) for key, value in (word.split("=", 1) for word in words)}
    rates: list[float] = []
    began = [0.0]

    def begin(trainer: Any) -> None:
        began[0] = time.perf_counter()

    def end(trainer: Any) -> None:
        rates.append(len(trainer.train_loader.dataset) / (time.perf_counter() - began[0]))
        Path(path).write_text(json.dumps(rates))

    model = YOLO(settings.pop("model"), task="classify")
    model.add_callback("on_train_epoch_start", begin)
    model.add_callback("on_train_epoch_end", end)
    model.train(**settings)


if __name__ == "__main__":
    main()
