"""The loss, with its answers to imbalance and to a teacher, and the soft targets that people's votes make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.data.dataset import Dataset, Row
from deepfer_yolo.data.ferplus import clear_winner, parse_votes
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.recipe import TrainConfig

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From logits (b, C) and target probabilities (b, C) to one number."""
Votes = Mapping[str, int]


def make_loss(config: TrainConfig, counts: torch.Tensor) -> Loss:
    """The loss that `config` names, for a training split with `counts` (C,) images a class."""
    weights = class_weights(config.class_weights, counts)
    prior = (
        config.logit_tau * (counts / counts.sum()).log() if config.loss == "logit_adjust" else torch.zeros(len(counts))
    )
    gamma = config.focal_gamma if config.loss == "focal" else 0.0

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        # Logit adjustment (Menon et al., 2021): the network learns what is left once the class frequencies are known.
        log_probs = (logits + prior.to(logits.device)).log_softmax(1)
        terms = targets * weights.to(logits.device)
        if gamma:
            terms = terms * (1 - log_probs.exp()).pow(gamma)  # Lin et al., 2017
        return -(terms * log_probs).sum(1).mean()

    return loss


def class_weights(kind: str, counts: torch.Tensor) -> torch.Tensor:
    """Weights (C,) whose mean over the images is 1: equal, by the inverse count, or by its square root."""
    power = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[kind]
    weights = counts.double().pow(-power)
    return (weights * counts.sum() / (weights * counts).sum()).float()


def softened(answers: Sequence[torch.Tensor], temperature: float) -> torch.Tensor:
    """What teachers say together, probabilities (b, C) at `temperature`, from the logits (b, C) of each."""
    mean = torch.stack([logits.float().log_softmax(1) for logits in answers]).mean(0)
    return (mean / temperature).softmax(1)


def distillation(student: torch.Tensor, wanted: torch.Tensor, temperature: float) -> torch.Tensor:
    """How far the student's logits (b, C) are from the teachers' softened answers (Hinton et al., 2015)."""
    gap = wanted * (wanted.clamp_min(1e-9).log() - (student / temperature).log_softmax(1))
    return gap.sum(1).mean() * temperature**2


def hard_labels(rows: Sequence[Row], dataset: Dataset) -> list[int]:
    """The class index of each image's label."""
    index = {label: number for number, label in enumerate(dataset.labels)}
    return [index[row.label] for row in rows]


def judged_labels(rows: Sequence[Row], dataset: Dataset, judge: str) -> tuple[list[Row], list[int]]:
    """The images that can be judged, and the class index of each: its label or, by votes, their clear winner.

    Raises DatasetError where votes are to judge and no image has a winner among the labels.
    """
    if judge == "label":
        return list(rows), hard_labels(rows, dataset)
    winners = [clear_winner(parse_votes(row.votes)) if row.votes else None for row in rows]
    kept = [(row, winner) for row, winner in zip(rows, winners, strict=True) if winner in dataset.labels]
    if not kept:
        raise DatasetError(
            f"{dataset.root}: no image to judge by has a clear winner of votes",
            "convert it with votes (deepfer convert --help), or use judge: label",
        )
    return [row for row, _ in kept], [dataset.labels.index(str(winner)) for _, winner in kept]


def voted_targets(config: TrainConfig, rows: Sequence[Row], dataset: Dataset) -> torch.Tensor | None:
    """The targets (n, C) that `config` makes of votes; None where the labels alone count.

    Raises DatasetError where no image has votes.
    """
    if not (config.votes or config.vote_evidence):
        return None
    votes = [parse_votes(row.votes) if row.votes else {} for row in rows]
    names = set(dataset.labels) if config.votes else set().union(*votes)
    if not any(given.get(name) for given in votes for name in names):
        raise DatasetError(
            f"{dataset.root} has no votes in its manifest",
            "convert it with votes (deepfer convert --help), or leave votes off",
        )
    labels = hard_labels(rows, dataset)
    own = (
        soft_labels(votes, labels, dataset.labels, config.label_votes)
        if config.votes
        else torch.eye(len(dataset.labels))[labels]
    )
    evidence = config.vote_evidence
    return torch.lerp(own, vote_evidence(votes, labels, len(dataset.labels)), evidence) if evidence else own


def soft_labels(
    votes: Sequence[Votes], labels: Sequence[int], names: Sequence[str], label_votes: float = 0
) -> torch.Tensor:
    """Shares (n, C) of each image's votes for the labels `names`; its own label where nobody voted for any of them.

    The label itself counts as `label_votes` more, where at least one annotator agrees with it.
    """
    shares = torch.eye(len(names))[labels]
    for share, given, label in zip(shares, votes, labels, strict=True):
        counts = torch.tensor([float(given.get(name, 0)) for name in names])
        counts[label] += label_votes * (counts[label] > 0)
        if counts.sum() > 0:
            share.copy_(counts / counts.sum())
    return shares


def vote_evidence(votes: Sequence[Votes], labels: Sequence[int], n_classes: int) -> torch.Tensor:
    """What each image's votes say about its label in this data set: probabilities (n, C), one-hot where nobody voted.

    A multinomial logistic regression from the shares of the votes, of all names, to the labels, fitted on these rows.
    Ten FER+ votes and a hurried original label err in different ways: on PublicTest the votes alone have an accuracy of
    66.6 % by the original labels, a network that has 67.4 % and the votes together 70.5 %.
    """
    from sklearn.linear_model import LogisticRegression

    names = sorted(set().union(*votes))
    counts = np.array([[given.get(name, 0) for name in names] for given in votes], np.float64)
    voted = counts.sum(1) > 0
    truth = np.array(labels)
    said = np.eye(n_classes)[truth]
    if len(np.unique(truth[voted])) > 1:
        shares = counts[voted] / counts[voted].sum(1, keepdims=True)
        fitted = LogisticRegression(max_iter=1000).fit(shares, truth[voted])
        said[voted] = 0
        said[np.ix_(voted, fitted.classes_)] = fitted.predict_proba(shares)
    return torch.from_numpy(said).float()
