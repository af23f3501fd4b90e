"""The tables of an evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from deepfer_yolo.config import ScoringConfig
from deepfer_yolo.data.dataset import Row
from deepfer_yolo.evaluate.evaluation import DataUsed, Evaluation, ModelFile, measure
from deepfer_yolo.evaluate.predictions import Scores
from deepfer_yolo.evaluate.subsets import take
from deepfer_yolo.evaluate.tables import summary_table


def test_votes_and_clean_stand_side_by_side() -> None:
    # Seven of ten right; the votes of all but the last four images agree with the label.
    rows = tuple(Row(f"{i}.png", "test", "sad", votes="sad:8 happy:2" if i < 6 else "") for i in range(10))
    probs = np.where(np.arange(10)[:, None] < 7, [0.1, 0.9], [0.8, 0.2]).astype(np.float32)
    scores = Scores(rows, ("happy", "sad"), np.ones(10, np.int64), probs)
    all_images, clean = (measure(part, ScoringConfig()) for part in (scores, take(scores, [6, 7, 8, 9])))
    model, data = ModelFile("m", Path("m.onnx"), "0", 1.0, "cpu"), DataUsed("d", Path("d"), "f", "test")
    result = Evaluation(model, data, scores, "none", None, None, all_images, clean, {}, None)
    header, table = summary_table(result)
    assert header[1::2] == ("all 10", "clean 4")
    found = {row[0].strip(): row[1:] for row in table}
    assert found["agrees with most votes"] == ["100.0", "54.1–100.0", "–", ""]
    assert found["votes for its answer"] == ["80.0", "n 6", "–", ""]
    assert [found["top-1, surest 90%"][i] for i in (0, 2)] == ["77.8", "25.0"]
    assert len(summary_table(replace(result, clean=None))[0]) == 3
