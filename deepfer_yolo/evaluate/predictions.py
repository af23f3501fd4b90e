"""A classifier over one split of a data set: its probabilities, the labels, and which image each row is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import ScoringConfig
from deepfer_yolo.data.dataset import MANIFEST, Dataset, Row, csv_bytes, load_images
from deepfer_yolo.data.shards import Answers, Job, Names, Part, Shard, check_folder, write_part, wrong_row
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.emotions import difference, meeting
from deepfer_yolo.errors import DatasetError, listed
from deepfer_yolo.evaluate.metrics import Floats, Ints, Tally, check_scores, tally, total
from deepfer_yolo.records import Image, JsonValue, Probs
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import digest

PREDICTIONS = "predictions.csv"
OnProgress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a model says about a split.

    `targets` (n,) index `labels`, which are the columns of `probs` (n, C); rows as in the manifest. Without `has_probs`
    only the labels answered are known, and `probs` are 0 and 1.
    """

    rows: tuple[Row, ...]
    labels: tuple[str, ...]
    targets: NDArray[np.int64]
    probs: Probs
    has_probs: bool = True

    @property
    def paths(self) -> list[str]:
        """The images' paths, relative to the data set."""
        return [row.path for row in self.rows]

    @property
    def subjects(self) -> list[str]:
        """Who is in each image, empty where the manifest does not say."""
        return [row.subject for row in self.rows]

    def checked(self) -> tuple[Floats, Ints]:
        """`probs` in float64 with rows that sum to 1 exactly, and `targets`; see `check_scores`."""
        return check_scores(self.probs, self.targets, self.labels)

    def summed(self) -> Tally:
        """What the headline metrics are computed from."""
        return total(tally(*self.checked()))


def predictions_csv(scores: Scores, *, with_labels: bool = True) -> bytes:
    """`path,label` and one column a label with its probability, or `answer` where that is all that is known; rows as in
    the manifest. `with_labels` says whether the column `label` stands there.
    """
    about = ("path", "label") if with_labels else ("path",)
    said = (
        [f"{p:.6f}" for p in probs.tolist()] if scores.has_probs else [scores.labels[int(probs.argmax())]]
        for probs in scores.probs
    )
    rows = ((*(getattr(row, name) for name in about), *cells) for row, cells in zip(scores.rows, said, strict=True))
    return csv_bytes((*about, *(scores.labels if scores.has_probs else ("answer",))), rows)


def score_dataset(
    classifier: Classifier,
    dataset: Dataset,
    config: ScoringConfig,
    on_progress: OnProgress | None = None,
    *,
    labels: Sequence[str] | None = None,
    flip: bool = False,
    answers: Answers | None = None,
) -> Scores:
    """Run `classifier` over the images of `config.split`, in the manifest's order; labels are matched by name.

    `labels` (None: see `common_labels`) keeps images and columns of these labels only, in this order, and scales each
    row back to 1. With `flip` the probabilities are averaged over each image and its mirror image; with `answers` they
    are taken from there. Raises DatasetError for an empty split, other labels or missing files, ModelError for values
    that are no probabilities.
    """
    labels, rows = rows_to_score(classifier, dataset, config, labels)
    targets = np.array([labels.index(row.label) for row in rows], np.int64)
    if answers is None:
        probs = model_probs(classifier, dataset, rows, config, on_progress, flip=flip)
    else:
        probs = probs_of(answers.of(job_of(classifier, dataset, rows, config, flip=flip)), rows, classifier)
    return Scores(rows, labels, targets, columns(probs, classifier.labels, labels))


def rows_to_score(
    classifier: Classifier, dataset: Dataset, config: ScoringConfig, labels: Sequence[str] | None = None
) -> tuple[tuple[str, ...], tuple[Row, ...]]:
    """The labels that a model is scored on, and the images of the split that bear one of them."""
    labels = tuple(labels or common_labels([classifier.labels], dataset.labels, config.labels))
    rows = tuple(row for row in dataset.rows(config.split) if row.label in labels)
    if not rows:
        raise DatasetError(
            f"{dataset.root}: no image of the '{config.split}' split bears one of the labels {', '.join(labels)}",
            "name another --split",
        )
    return labels, rows


def model_probs(
    classifier: Classifier,
    dataset: Dataset,
    rows: Sequence[Row],
    config: ScoringConfig,
    on_progress: OnProgress | None = None,
    *,
    flip: bool = False,
) -> Probs:
    """The model's probabilities of `rows`, (n, C) in its own order."""
    check_files(dataset, rows)
    images = load_images(dataset, rows, config.workers)
    probs = predict_all(classifier, images, config.batch, counting(on_progress, len(rows)), flip=flip)
    check_scores(probs, np.zeros(len(rows), np.int64), classifier.labels, [row.path for row in rows])
    return probs


def job_of(
    classifier: Classifier, dataset: Dataset, rows: Sequence[Row], config: ScoringConfig, *, flip: bool = False
) -> Job:
    """What all parts of a scoring have in common."""
    settings: dict[str, JsonValue] = {"dataset": dataset.fingerprint, "split": config.split}
    settings |= {"flip": flip, "provider": classifier.provider}
    job = Job(command="evaluate", model=digest(classifier.path), settings=settings)
    return job.over(Names.of(row.path for row in rows))


def score_part(
    classifier: Classifier,
    dataset: Dataset,
    config: ScoringConfig,
    shard: Shard,
    out: Path,
    on_progress: OnProgress | None = None,
    *,
    flip: bool = False,
) -> Part:
    """Run `classifier` over the images of one shard, and write its probabilities into `out`."""
    _, rows = rows_to_score(classifier, dataset, config)
    job = job_of(classifier, dataset, rows, config, flip=flip)
    check_folder(out, shard, job)
    places = [place for place, row in enumerate(rows) if shard.has(row.path)]
    own = [rows[place] for place in places]
    probs = model_probs(classifier, dataset, own, config, on_progress, flip=flip).tolist() if own else []
    return write_part(
        out, shard, job, ({"index": place, "probs": row} for place, row in zip(places, probs, strict=True))
    )


def probs_of(answers: Iterable[Mapping[str, Any]], rows: Sequence[Row], classifier: Classifier) -> Probs:
    """The probabilities of all images (n, C) out of the answers to them."""
    probs = np.empty((len(rows), len(classifier.labels)), np.float32)
    for place, (row, found) in enumerate(zip(rows, answers, strict=True)):
        try:
            probs[place] = np.array(found["probs"], np.float32).reshape(probs.shape[1])
        except (KeyError, TypeError, ValueError):
            raise wrong_row(row.path) from None
    check_scores(probs, np.zeros(len(rows), np.int64), classifier.labels, [row.path for row in rows])
    return probs


def predict_all(
    classifier: Classifier, images: Iterator[Image], batch: int, advance: Callable[[int], None], *, flip: bool = False
) -> Probs:
    """Probabilities of all images; `advance` is called with the number of images after each batch."""
    parts = []
    while chunk := list(islice(images, batch)):
        probs = classifier.predict_images([*chunk, *map(mirrored, chunk)] if flip else chunk)
        parts.append(probs.reshape(-1, len(chunk), probs.shape[1]).mean(0))
        advance(len(chunk))
    return np.concatenate(parts)


def counting(on_progress: OnProgress | None, total: int) -> Callable[[int], None]:
    """A function that adds up what it is called with and hands it on."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, total)

    return advance


def mirrored(image: Image) -> Image:
    """The image with left and right exchanged."""
    return np.ascontiguousarray(image[:, ::-1])


MAP_HINT = "convert the data with --map OLD=NEW, so that labels bear the model's names"
INTERSECT_HINT = f"add --labels intersect to score the labels that both know, or {MAP_HINT}"


def common_labels(
    models: Sequence[Sequence[str]],
    dataset: Sequence[str],
    rule: str = "same",
    hint: str = INTERSECT_HINT,
    who: str = "the model",
) -> tuple[str, ...]:
    """The labels to score on: those of every model and of the data set (see `meeting`), called as the data set does, in
    the first model's order.

    Raises DatasetError where the sets differ and `rule` is "same", or fewer than two are left.
    """
    for model in models:
        if rule == "same" and (differs := difference(model, dataset, (who, "the data set"))):
            raise DatasetError(differs, hint)
    names = [meeting(dataset, model) for model in models]
    shared = tuple(label for label in meeting(models[0], dataset).values() if all(label in known for known in names))
    if len(shared) < 2:
        known = "; ".join(f"a model {listed(model, 20)}" for model in models)
        message = f"fewer than two labels in common: the data set knows {listed(dataset, 20)}; {known}"
        raise DatasetError(message, MAP_HINT)
    return shared


def columns(probs: Probs, known: Sequence[str], wanted: Sequence[str]) -> Probs:
    """The columns of the labels `wanted` out of `known`, which meet by name, each row scaled back to 1; where nothing
    is left, uniform.
    """
    names = meeting(wanted, known)
    order = [known.index(names[label]) for label in wanted]
    if order == list(range(len(known))):
        return probs
    part = probs[:, order]
    if len(order) == len(known):
        return part
    left = part.sum(1, keepdims=True)
    return np.where(left > 0, part / np.where(left > 0, left, 1), np.float32(1 / len(wanted))).astype(np.float32)


def check_files(dataset: Dataset, rows: Iterable[Row]) -> None:
    """Raise one DatasetError for all the images that the manifest names and that are not there."""
    missing = [printable(row.path) for row in rows if not dataset.path(row).is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DatasetError(
            f"{dataset.root}/{MANIFEST} names files that are not there: {', '.join(missing[:3])}{more}",
            "convert the source again, or put the files back",
        )
