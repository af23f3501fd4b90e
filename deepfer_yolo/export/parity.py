"""Two models proven equal on the same images: what they are fed, then what they answer, so that the stage is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import ParityConfig, ScoringConfig
from deepfer_yolo.data.dataset import Row, load_images, open_dataset
from deepfer_yolo.emotions import difference, meeting
from deepfer_yolo.errors import DatasetError, ParityError, listed
from deepfer_yolo.evaluate.answers import read_answers
from deepfer_yolo.evaluate.intervals import at_least
from deepfer_yolo.evaluate.metrics import ece, reliability
from deepfer_yolo.evaluate.predictions import columns
from deepfer_yolo.painted import paint_faces
from deepfer_yolo.records import Image, Json, Probs, plain
from deepfer_yolo.runtime.causes import Cause, Probe, find_cause, model_probes, program_probes
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.golden import check_probs
from deepfer_yolo.runtime.preprocess import to_inputs

PAINTED_SEED = 500
PAINTED_N = 512
BATCH = 64
N_LISTED = 5
N_PROBED = 256


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Images with their names. `truth` is int64 indices into the labels, or None for painted ones, which prove no
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


def choose_sample(folder: Path | None, split: str, labels: Sequence[str], limit: int) -> Sample:
    """Real images of `folder`, or painted ones for None."""
    return paint_sample(min(PAINTED_N, limit)) if folder is None else load_sample(folder, split, labels, limit)


def load_sample(folder: Path, split: str, labels: Sequence[str], limit: int, seed: int = 0) -> Sample:
    """At most `limit` images of one split, each label in its share of the split.

    Raises DatasetError for a label the model does not know.
    """
    dataset = open_dataset(folder)
    rows = dataset.rows(split)
    present = sorted({row.label for row in rows})
    met = meeting(present, labels)
    if unknown := [label for label in present if label not in met]:
        raise DatasetError(
            f"{folder}: the model does not know the label {listed(unknown)}: the data set has {listed(present, 20)}; "
            f"the model knows {listed(labels, 20)}",
            "convert the data with --map OLD=NEW, or --drop OLD",
        )
    chosen = stratify(rows, limit, seed)
    truth = np.array([labels.index(met[row.label]) for row in chosen], np.int64)
    origin = f"{len(chosen):,} of {len(rows):,} images of {dataset.name}, split {split}"
    images, names = tuple(load_images(dataset, chosen)), tuple(row.path for row in chosen)
    return Sample(images, names, truth, origin, tuple(row.sha256 for row in rows if row.sha256))


def paint_sample(n: int = PAINTED_N, seed: int = PAINTED_SEED) -> Sample:
    """Painted faces, for when there is no data set: they prove equal arithmetic, not equal accuracy."""
    faces, labels = paint_faces(seed, n)
    images = tuple(np.repeat(face[:, :, None], 3, axis=2) for face in faces)
    names = tuple(f"painted {i} ({label})" for i, label in enumerate(labels))
    return Sample(images, names, None, f"{n} painted faces (no data set named)")


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


@dataclass(frozen=True, slots=True)
class Limits:
    """What a precision must reach.

    `max_diff` None leaves the probabilities free and looks at what they decide instead.
    """

    max_diff: float | None
    min_agreement: float
    min_accuracy_diff: float = -inf
    max_recall_loss: float = inf
    max_ece_rise: float = inf


_BY_DECISIONS = Limits(None, 0.98, min_accuracy_diff=-0.01, max_recall_loss=0.03, max_ece_rise=0.02)
LIMITS = {"fp32": Limits(1e-4, 1.0), "fp16": Limits(5e-3, 0.998), "bf16": _BY_DECISIONS, "int8": _BY_DECISIONS}


@dataclass(frozen=True, slots=True)
class Difference:
    """Two answers to one image; `margin` is how far the two best labels are apart in the reference."""

    picture: str
    reference: str
    candidate: str
    diff: float
    margin: float


@dataclass(frozen=True, slots=True)
class Decisions:
    """What two models make of labelled images: accuracy, its difference with a paired 95 % interval, the recall that
    each label loses, and calibration error.
    """

    accuracy_reference: float
    accuracy_candidate: float
    accuracy_diff: float
    accuracy_diff_interval: tuple[float, float]
    recall_loss: dict[str, float]
    worst_class: str
    ece_reference: float
    ece_candidate: float

    @property
    def worst_loss(self) -> float:
        """The recall that the worst class loses."""
        return self.recall_loss[self.worst_class]


@dataclass(frozen=True, slots=True)
class Parity:
    """How `candidate` differs from `reference`.

    Differences are of probabilities; rates and accuracies are shares, not percent. `agreement_at_least` is the lower
    end of the agreement's exact 95 % interval, `one_answer` the label that the reference gives to every image.
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
    agreement_at_least: float
    one_answer: str | None
    n_disagree: int
    ties: tuple[Difference, ...]
    worst: tuple[Difference, ...]
    decisions: Decisions | None
    failures: tuple[str, ...]
    cause: Cause | None = None

    @property
    def passed(self) -> bool:
        """Whether the precision's limits were all kept."""
        return not self.failures

    @property
    def notes(self) -> tuple[str, ...]:
        """What the images could show at all, as sentences."""
        bound = f"{self.n:,} images bound the true agreement at {self.agreement_at_least:.2%} or more (95 %, exact)"
        if self.one_answer is None:
            return (bound,)
        same = f"{self.reference} answers {self.one_answer} on every image: that labels agree shows nothing here"
        return (bound, same)

    def to_json(self) -> Json:
        """All of it, and whether it passed."""
        shown: Json = plain(self) | {"passed": self.passed}
        return shown

    def require(self) -> None:
        """Raise ParityError that names every limit missed, where one was."""
        if self.failures:
            worst = self.worst[0]
            missed = "; ".join(self.failures)
            raise ParityError(
                f"{self.candidate} does not answer like {self.reference} on {self.pictures}: {missed}",
                f"worst image: {worst.picture} ({worst.reference} became {worst.candidate}, |Δp| {worst.diff:.2e})",
            )


def compare(
    reference: Classifier, candidate: Classifier, sample: Sample, precision: str | None = None, *, explain: bool = False
) -> Parity:
    """Run both models on `sample` and hold the difference against the limits of `precision` (the candidate's card by
    default). With `explain` a failure's cause is looked for.

    Labels meet by name (see `meeting`), in any order. Raises ParityError where the two do not have the same.
    """
    if differs := difference(reference.labels, candidate.labels, (str(reference.path), str(candidate.path))):
        raise ParityError(
            differs, f"if only their names differ: deepfer card {candidate.path} --overwrite --labels A,B,…"
        )
    precision = precision or candidate.card.precision
    expected, actual, input_diff = _run_both(reference, candidate, sample)
    names = (str(reference.path), str(candidate.path))
    found = judge(expected, actual, sample, precision, names, reference.labels, input_diff)
    if found.passed or not explain or input_diff:
        return found

    def in_order(answers: Callable[[], Probs]) -> Probs:
        return columns(answers(), candidate.labels, reference.labels)

    def probes(images: Sequence[Image]) -> Iterator[Probe]:
        for probe in model_probes(candidate, to_inputs(images, candidate.card.input)):
            yield replace(probe, answers=partial(in_order, probe.answers))

    return _explained(found, expected, actual, sample, reference.labels, probes)


def compare_answers(reference: Classifier, file: Path, folder: Path, settings: ParityConfig) -> Parity:
    """Hold the answers of another program, a csv as `evaluate --predictions` reads it, against the model that it is
    meant to run; a failure's cause is looked for in how the program may prepare images.

    Raises DatasetError for a file without probabilities.
    """
    dataset = open_dataset(folder)
    scores, _ = read_answers([file], dataset, ScoringConfig(split=settings.split))
    if not scores.has_probs:
        raise DatasetError("holds labels alone", "write the probabilities: path,prob_angry,prob_happy,…", path=file)
    if differs := difference(reference.labels, scores.labels, (str(reference.path), str(file))):
        raise ParityError(differs, "let the program write one prob_LABEL for each label of the model")
    place = {row.path: i for i, row in enumerate(scores.rows)}
    rows = stratify(scores.rows, settings.pictures, seed=0)
    chosen = np.array([place[row.path] for row in rows])
    actual = columns(scores.probs[chosen], scores.labels, reference.labels)
    met = meeting(scores.labels, reference.labels)
    truth = np.array([reference.labels.index(met[row.label]) for row in rows], np.int64)
    origin = f"{len(rows):,} of {len(scores.rows):,} images of {dataset.name}, split {settings.split}"
    sample = Sample(tuple(load_images(dataset, rows)), tuple(row.path for row in rows), truth, origin)
    precision = settings.precision or reference.card.precision
    names = (str(reference.path), str(file))
    expected = reference.predict_images(sample.images)
    found = judge(expected, actual, sample, precision, names, reference.labels)
    if found.passed:
        return found
    return _explained(
        found, actual, expected, sample, reference.labels, lambda images: program_probes(reference, images)
    )


def _explained(
    found: Parity,
    wanted: Probs,
    actual: Probs,
    sample: Sample,
    labels: tuple[str, ...],
    probes: Callable[[Sequence[Image]], Iterator[Probe]],
) -> Parity:
    """`found` with the cause of its failure, looked for on N_PROBED of the images at most."""
    part = np.linspace(0, len(sample) - 1, min(len(sample), N_PROBED)).astype(int).tolist()
    images, names = (tuple(values[i] for i in part) for values in (sample.images, sample.names))
    few = replace(sample, images=images, names=names, truth=None if sample.truth is None else sample.truth[part])

    def passes(answers: Probs) -> bool:
        return judge(wanted[part], answers, few, found.precision, (found.reference, found.candidate), labels).passed

    return replace(found, cause=find_cause(wanted[part], actual[part], probes(images), passes))


def _run_both(reference: Classifier, candidate: Classifier, sample: Sample) -> tuple[Probs, Probs, int]:
    """Both models' answers, and the largest difference in grey steps (0 to 255) between what the two are fed."""
    expected, actual, input_diff = [], [], 0
    for start in range(0, len(sample), BATCH):
        images = sample.images[start : start + BATCH]
        left = to_inputs(images, reference.card.input)
        right = left if candidate.card.input == reference.card.input else to_inputs(images, candidate.card.input)
        step = int(np.abs(left.astype(np.int16) - right).max()) if left.shape == right.shape else 255
        input_diff = max(input_diff, step)
        expected.append(reference.predict(left))
        actual.append(candidate.predict(right))
    matched = columns(np.concatenate(actual), candidate.labels, reference.labels)
    return np.concatenate(expected), matched, input_diff


def judge(
    expected: Probs,
    actual: Probs,
    sample: Sample,
    precision: str,
    names: tuple[str, str],
    labels: tuple[str, ...],
    input_diff: int = 0,
) -> Parity:
    """The difference of two sets of answers, float32 (n, C) each, to the same images."""
    check_probs(expected, names[0])
    check_probs(actual, names[1])
    limits = LIMITS[precision]
    diff = np.abs(expected.astype(np.float64) - actual).max(1)
    changed = expected.argmax(1) != actual.argmax(1)
    # A label may flip within the allowed difference where two probabilities lie closer than twice that.
    ranked = np.sort(expected, axis=1)
    margin = ranked[:, -1] - ranked[:, -2]
    tied = changed & (margin <= 2 * (limits.max_diff or 0.01))
    excused = tied if precision == "fp32" else np.zeros_like(tied)

    def difference(i: int) -> Difference:
        old, new = labels[expected[i].argmax()], labels[actual[i].argmax()]
        return Difference(sample.names[i], old, new, float(diff[i]), float(margin[i]))

    n_agree = len(sample) - int((changed & ~excused).sum())
    found = Parity(
        *names,
        precision,
        sample.origin,
        n=len(sample),
        input_diff=input_diff,
        max_diff=float(diff.max()),
        mean_diff=float(diff.mean()),
        agreement=n_agree / len(sample),
        agreement_at_least=at_least(n_agree, len(sample)),
        one_answer=labels[expected[0].argmax()] if len(np.unique(expected.argmax(1))) == 1 else None,
        n_disagree=int(changed.sum()),
        ties=tuple(difference(i) for i in np.flatnonzero(tied).tolist()),
        worst=tuple(difference(i) for i in np.argsort(-diff, kind="stable")[:N_LISTED].tolist()),
        decisions=None if sample.truth is None else _decisions(expected, actual, sample.truth, labels),
        failures=(),
    )
    return replace(found, failures=tuple(_failures(found, limits)))


def _decisions(expected: Probs, actual: Probs, truth: NDArray[np.int64], labels: tuple[str, ...]) -> Decisions:
    left, right = expected.argmax(1) == truth, actual.argmax(1) == truth
    gain = right.astype(np.float64) - left
    half = 1.96 * float(gain.std(ddof=1)) / len(gain) ** 0.5 if len(gain) > 1 else 1.0
    mean = float(gain.mean())
    losses = {label: 0.0 - float(gain[truth == i].mean()) for i, label in enumerate(labels) if (truth == i).any()}
    return Decisions(
        accuracy_reference=float(left.mean()),
        accuracy_candidate=float(right.mean()),
        accuracy_diff=mean,
        accuracy_diff_interval=(mean - half, mean + half),
        recall_loss=losses,
        worst_class=max(losses, key=lambda label: losses[label]),
        ece_reference=ece(reliability(expected.astype(np.float64), truth)),
        ece_candidate=ece(reliability(actual.astype(np.float64), truth)),
    )


def _failures(found: Parity, limits: Limits) -> Iterator[str]:
    if found.input_diff:
        yield f"preprocessing: the inputs differ by up to {found.input_diff} of 255"
    if limits.max_diff is not None and found.max_diff > limits.max_diff:
        yield f"max |Δp| {found.max_diff:.2e} > {limits.max_diff:.0e}"
    if found.agreement < limits.min_agreement:
        yield f"top-1 agreement {found.agreement:.2%} < {limits.min_agreement:.1%}"
    decided = found.decisions
    if decided is None:
        return
    low, rise = decided.accuracy_diff_interval[0], decided.ece_candidate - decided.ece_reference
    if low < limits.min_accuracy_diff:
        yield f"accuracy may fall by {-low:.2%} (lower end of the interval) > {-limits.min_accuracy_diff:.0%}"
    if decided.worst_loss > limits.max_recall_loss:
        yield f"recall of {decided.worst_class} falls by {decided.worst_loss:.2%} > {limits.max_recall_loss:.0%}"
    if rise > limits.max_ece_rise:
        yield f"calibration error rises by {rise:.3f} > {limits.max_ece_rise}"
