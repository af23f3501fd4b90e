"""Two models proven equal on the same pictures: first what they are fed, then what they answer, so that the right stage
is blamed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.dataset import Row, load_images, open_dataset
from deepfer_yolo.errors import DatasetError, ParityError
from deepfer_yolo.evaluate.metrics import ece, reliability
from deepfer_yolo.painted import paint_faces
from deepfer_yolo.records import Image, Probs
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.golden import check_probs
from deepfer_yolo.runtime.preprocess import to_inputs

PAINTED_SEED = 500
PAINTED_N = 512


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Pictures with their names. `truth` is int64 indices into the labels, or None for painted ones, which prove no
    accuracy.

    `hashes` are the SHA-256 of every file of the split, so that none of them is calibrated on.
    """

    images: tuple[Image, ...]
    names: tuple[str, ...]
    truth: NDArray[np.int64] | None
    origin: str
    hashes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)


def load_pictures(folder: Path, split: str, labels: Sequence[str], limit: int, seed: int = 0) -> Pictures:
    """At most `limit` pictures of one split, each label in its share of the split.

    Raises DatasetError for a label the model does not know.
    """
    dataset = open_dataset(folder)
    rows = dataset.rows(split)
    unknown = sorted({row.label for row in rows} - set(labels))
    if unknown:
        raise DatasetError(
            f"{folder}: the model does not know the label {', '.join(unknown)}", f"its labels: {', '.join(labels)}"
        )
    chosen = stratify(rows, limit, seed)
    index = {label: i for i, label in enumerate(labels)}
    truth = np.array([index[row.label] for row in chosen], np.int64)
    origin = f"{len(chosen):,} of {len(rows):,} pictures of {dataset.name}, split {split}"
    images, names = tuple(load_images(dataset, chosen)), tuple(row.path for row in chosen)
    return Pictures(images, names, truth, origin, tuple(row.sha256 for row in rows if row.sha256))


def choose_pictures(folder: Path | None, split: str, labels: Sequence[str], limit: int) -> Pictures:
    """Real pictures of `folder`, or painted ones for None."""
    return paint_pictures(min(PAINTED_N, limit)) if folder is None else load_pictures(folder, split, labels, limit)


def paint_pictures(n: int = PAINTED_N, seed: int = PAINTED_SEED) -> Pictures:
    """Painted faces, for when there is no data set: they prove equal arithmetic, not equal accuracy."""
    faces, labels = paint_faces(seed, n)
    images = tuple(np.repeat(face[:, :, None], 3, axis=2) for face in faces)
    return Pictures(
        images,
        tuple(f"painted {i} ({label})" for i, label in enumerate(labels)),
        None,
        f"{n} painted faces (no data set named)",
    )


def stratify(rows: Sequence[Row], limit: int, seed: int) -> list[Row]:
    """`limit` rows in manifest order, each label in its share rounded up; all of them where there are not more."""
    if len(rows) <= limit:
        return list(rows)
    by_label: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        by_label.setdefault(row.label, []).append(i)
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in sorted(by_label):
        members = by_label[label]
        share = min(len(members), -(-len(members) * limit // len(rows)))
        chosen += random.permutation(members)[:share].tolist()
    return [rows[i] for i in sorted(chosen)]


BATCH = 64
N_LISTED = 5


@dataclass(frozen=True, slots=True)
class Line:
    """What a precision must reach.

    `max_diff` None leaves the probabilities free and looks at what they decide instead.
    """

    max_diff: float | None
    min_agreement: float
    min_accuracy_diff: float | None = None
    max_recall_loss: float | None = None
    max_ece_rise: float | None = None


LINES = {
    "fp32": Line(1e-4, 1.0),
    "fp16": Line(5e-3, 0.998),
    "bf16": Line(None, 0.98, min_accuracy_diff=-0.01, max_recall_loss=0.03, max_ece_rise=0.02),
    "int8": Line(None, 0.98, min_accuracy_diff=-0.01, max_recall_loss=0.03, max_ece_rise=0.02),
}


@dataclass(frozen=True, slots=True)
class Parity:
    """How `candidate` differs from `reference`.

    Differences are of probabilities; rates and accuracies are shares, not percent.
    """

    reference: str
    candidate: str
    precision: str
    pictures: str
    n: int
    input_diff: int
    max_diff: float
    mean_diff: float
    agreement: float
    n_disagree: int
    ties: tuple[dict[str, Any], ...]
    worst: tuple[dict[str, Any], ...]
    decisions: dict[str, Any] | None
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every passing line of the precision was met."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """For JSON output."""
        return asdict(self) | {"passed": self.passed}


def compare(reference: Classifier, candidate: Classifier, pictures: Pictures, precision: str | None = None) -> Parity:
    """Run both models on `pictures` and hold the difference against the lines of `precision` (the candidate's card by
    default).

    Raises ParityError where the two do not even have the same labels.
    """
    if reference.labels != candidate.labels:
        raise ParityError(f"the labels differ: {', '.join(reference.labels)} against {', '.join(candidate.labels)}")
    precision = precision or candidate.card.precision
    expected, actual, input_diff = _run_both(reference, candidate, pictures)
    return judge(
        expected, actual, pictures, precision, (str(reference.path), str(candidate.path)), reference.labels, input_diff
    )


def judge(
    expected: Probs,
    actual: Probs,
    pictures: Pictures,
    precision: str,
    names: tuple[str, str],
    labels: tuple[str, ...],
    input_diff: int = 0,
) -> Parity:
    """The difference of two sets of answers, float32 (n, C) each, to the same pictures."""
    check_probs(expected, names[0])
    check_probs(actual, names[1])
    diff = np.abs(expected.astype(np.float64) - actual).max(1)
    changed = expected.argmax(1) != actual.argmax(1)
    line = LINES[precision]
    # A label may flip within the allowed difference where two probabilities lie closer than twice that.
    margin = np.sort(expected, axis=1)[:, -1] - np.sort(expected, axis=1)[:, -2]
    tied = changed & (margin <= 2 * (line.max_diff or 0.01))
    excused = tied if precision == "fp32" else np.zeros_like(tied)

    def describe(i: int) -> dict[str, Any]:
        return {
            "picture": pictures.names[i],
            "reference": labels[expected[i].argmax()],
            "candidate": labels[actual[i].argmax()],
            "diff": float(diff[i]),
            "margin": float(margin[i]),
        }

    decisions = None if pictures.truth is None else _decisions(expected, actual, pictures.truth, labels)
    agreement = 1 - float((changed & ~excused).mean())
    failures = _failures(line, float(diff.max()), agreement, input_diff, decisions)
    order = np.argsort(-diff, kind="stable")[:N_LISTED]
    return Parity(
        *names,
        precision,
        pictures.origin,
        len(pictures),
        input_diff,
        float(diff.max()),
        float(diff.mean()),
        agreement,
        int(changed.sum()),
        tuple(describe(int(i)) for i in np.flatnonzero(tied)),
        tuple(describe(int(i)) for i in order),
        decisions,
        tuple(failures),
    )


def _run_both(reference: Classifier, candidate: Classifier, pictures: Pictures) -> tuple[Probs, Probs, int]:
    """Both models' answers, and the largest difference in grey steps (0 to 255) between what the two are fed."""
    expected, actual, input_diff = [], [], 0
    for start in range(0, len(pictures), BATCH):
        images = pictures.images[start : start + BATCH]
        left = to_inputs(images, reference.card.input)
        right = left if candidate.card.input == reference.card.input else to_inputs(images, candidate.card.input)
        step = int(np.abs(left.astype(np.int16) - right).max()) if left.shape == right.shape else 255
        input_diff = max(input_diff, step)
        expected.append(reference.predict(left))
        actual.append(candidate.predict(right))
    return np.concatenate(expected), np.concatenate(actual), input_diff


def _decisions(expected: Probs, actual: Probs, truth: NDArray[np.int64], labels: tuple[str, ...]) -> dict[str, Any]:
    """Accuracy, its difference with a paired 95 % interval, recall by class and calibration error of both."""
    left, right = expected.argmax(1) == truth, actual.argmax(1) == truth
    gain = right.astype(np.float64) - left
    half = 1.96 * float(gain.std(ddof=1)) / len(gain) ** 0.5 if len(gain) > 1 else 1.0
    mean = float(gain.mean())
    losses = {label: 0.0 - float(gain[truth == i].mean()) for i, label in enumerate(labels) if (truth == i).any()}
    worst = max(losses, key=lambda label: losses[label])
    return {
        "accuracy_reference": float(left.mean()),
        "accuracy_candidate": float(right.mean()),
        "accuracy_diff": mean,
        "accuracy_diff_interval": [mean - half, mean + half],
        "recall_loss": losses,
        "worst_class": worst,
        "ece_reference": ece(reliability(expected.astype(np.float64), truth)),
        "ece_candidate": ece(reliability(actual.astype(np.float64), truth)),
    }


def _failures(
    line: Line, max_diff: float, agreement: float, input_diff: int, decisions: dict[str, Any] | None
) -> list[str]:
    failures = []

    def need(ok: bool, text: Callable[[], str]) -> None:
        if not ok:
            failures.append(text())

    need(input_diff == 0, lambda: f"preprocessing: the inputs differ by up to {input_diff} of 255")
    need(line.max_diff is None or max_diff <= line.max_diff, lambda: f"max |Δp| {max_diff:.2e} > {line.max_diff:.0e}")
    need(agreement >= line.min_agreement, lambda: f"top-1 agreement {agreement:.2%} < {line.min_agreement:.1%}")
    if decisions is None:
        return failures
    low, rise = decisions["accuracy_diff_interval"][0], decisions["ece_candidate"] - decisions["ece_reference"]
    worst = decisions["worst_class"]
    loss = decisions["recall_loss"][worst]
    limit = line.min_accuracy_diff
    need(
        limit is None or low >= limit,
        lambda: f"accuracy may fall by {-low:.2%} (lower end of the interval) > {-(limit or 0):.0%}",
    )
    need(
        line.max_recall_loss is None or loss <= line.max_recall_loss,
        lambda: f"recall of {worst} falls by {loss:.2%} > {line.max_recall_loss:.0%}",
    )
    need(
        line.max_ece_rise is None or rise <= line.max_ece_rise,
        lambda: f"calibration error rises by {rise:.3f} > {line.max_ece_rise}",
    )
    return failures


def require(parity: Parity) -> Parity:
    """`parity` itself where it passed; raises ParityError that names every line it missed."""
    if not parity.passed:
        worst = parity.worst[0]
        raise ParityError(
            f"{parity.candidate} does not answer like {parity.reference} on {parity.pictures}: "
            + "; ".join(parity.failures),
            f"worst picture: {worst['picture']} ({worst['reference']} became {worst['candidate']}, |Δp| {worst['diff']:.2e})",
        )
    return parity
