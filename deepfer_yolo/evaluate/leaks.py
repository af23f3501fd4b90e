"""Whether models have learned the pictures that are to judge them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepfer_yolo.data.dataset import Dataset
from deepfer_yolo.data.leaks import LeakGuard
from deepfer_yolo.runtime.classifier import Classifier


def check_models(
    models: Mapping[str, Classifier], dataset: Dataset, split: str, *, allow: bool, whole: Dataset | None = None
) -> tuple[dict[str, Any], list[str]]:
    """What each model has learned of `split`, for the run's record, and lines to show; see `LeakGuard.check`. Raises LeakError."""
    return LeakGuard(dataset, whole).check({name: model.card.learned for name, model in models.items()}, [split], allow=allow)
