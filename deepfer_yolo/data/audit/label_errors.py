"""Likely label errors: what a model says of every image, weighed by how labels of each kind are mistaken for others.

The answers must be held out: of a model that has not learned from the image it answers for. `deepfer train --folds`
writes such answers of a whole data set; a model that has learned an image may have learned its wrong label, too.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.audit.findings import Finding
from deepfer_yolo.data.audit.inspection import InspectedImage
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.emotions import meeting
from deepfer_yolo.errors import DatasetError, explained_imports
from deepfer_yolo.records import Probs

Floats = NDArray[np.float64]
LEAST_CONFUSION = 0.01
"""What is believed of any two labels at least: a hundredth of the images of one bear the other. Where hardly any label
is wrong, counts alone would call each mistake impossible."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Probabilities of `labels` by image, the keys as in the audit; and a remark on where they come from."""

    labels: tuple[str, ...]
    probs: Mapping[str, Probs]
    remark: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """All images, the likeliest label error first; `right` (n,) is the probability of each label, given what the model
    says; `n_wrong` how many labels are estimated to be wrong.
    """

    order: NDArray[np.int64]
    right: Floats
    n_wrong: int


def rank(given: NDArray[np.int64], probs: Floats) -> Ranking:
    """Rank by the probability that label `given` (n,) is right, after answers (n, C) of a model that had not seen it.

    By Bayes' rule: p(true | image, label) ~ p(true | image) p(label | true). The first is the model's answer, the
    second is counted by confident learning (Northcutt et al., JAIR 2021): a label that others are often mistaken for
    weighs little. cleanlab's own orders look at the answer alone.
    """
    with explained_imports():
        from cleanlab.count import estimate_joint
    probs = probs / probs.sum(axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes of few images: the finding `few` says so
        joint = np.asarray(estimate_joint(given, probs), np.float64)  # (labels, true labels)
    mistaken = np.maximum(joint / np.maximum(joint.sum(axis=0), 1e-12), LEAST_CONFUSION)
    weighed = probs * mistaken[given]
    right = weighed[np.arange(len(given)), given] / weighed.sum(axis=1)
    return Ranking(np.argsort(right, kind="stable"), right, round(len(given) * (1 - float(joint.trace()))))


def likely_errors(images: Sequence[InspectedImage], predictions: Predictions) -> list[Finding]:
    """The finding of likely label errors, the likeliest first; none where no label is likely wrong.

    Raises DatasetError where the answers are of other labels, or not of every image.
    """
    labels, present = predictions.labels, {image.label for image in images}
    names = meeting(present, labels)
    if unknown := sorted(present - names.keys()):
        reason = f"the model does not know the labels {', '.join(unknown)}"
        raise DatasetError(reason, f"it knows {', '.join(labels)}; convert with --drop or --map")
    if len(present) < 2:
        reason = "label errors can be ranked among two labels or more, and all images bear one"
        raise DatasetError(reason, "leave out --with-model and --predictions")
    if missing := [image.key for image in images if image.key not in predictions.probs]:
        reason = f"{len(missing):,} of {len(images):,} images have no answer, such as '{printable(missing[0])}'"
        raise DatasetError(reason, "name the answers to every image, of each shard")
    probs = np.stack([predictions.probs[image.key] for image in images]).astype(np.float64)
    given = np.array([labels.index(names[image.label]) for image in images])
    ranking = rank(given, probs)
    worst = ranking.order[: ranking.n_wrong].tolist()
    if not worst:
        return []
    notes = (
        f"the model: {labels[int(probs[i].argmax())]} {probs[i].max():.2f}, its label {probs[i][given[i]]:.2f}, "
        f"right with {ranking.right[i]:.2f}"
        for i in worst
    )
    message = "; ".join(filter(None, ("likely by confident learning, the likeliest first", predictions.remark)))
    return [Finding("label-error", "note", len(worst), message, tuple((images[i].key,) for i in worst), tuple(notes))]
