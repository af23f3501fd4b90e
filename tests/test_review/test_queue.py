"""Which images come up, in which order and why; what an earlier audit found is read, not looked for again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from deepfer_yolo.config import AuditConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.audit.label_errors import Predictions
from deepfer_yolo.data.corrections import Corrections
from deepfer_yolo.data.dataset import Dataset, Row, fingerprint, open_dataset, read_description, register
from deepfer_yolo.data.decisions import Decision
from deepfer_yolo.errors import DatasetError, DeepferError
from deepfer_yolo.review import doubts as module
from deepfer_yolo.review.doubts import Answers, Doubt, Doubts, find_doubts
from deepfer_yolo.review.queue import CONFLICT, Entry, build, check_choice
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import digest
from deepfer_yolo.servers import ReviewConfig

NOBODY = Corrections(Path("c.csv"), (), "")


@pytest.fixture
def copied(painted_dataset: Path, tmp_path: Path) -> Dataset:
    """The painted data set in which the first training image stands a second time under another label."""
    folder = tmp_path / "copied"
    shutil.copytree(painted_dataset, folder)
    dataset = open_dataset(folder)
    row = dataset.rows("train")[0]
    other = next(label for label in dataset.labels if label != row.label)
    twin = replace(row, path=f"train/{other}/twin.png", label=other, votes="sad:3 happy:7")
    shutil.copy(dataset.path(row), folder / twin.path)
    register([*dataset.all_rows, twin], read_description(folder), folder)
    return open_dataset(folder)


def answers_of(model: Path) -> Answers:
    return Answers("linear", (digest(model),), Classifier(model))


def queue(dataset: Dataset, doubts: Doubts, decided: Corrections = NOBODY, **settings: object) -> tuple[Entry, ...]:
    return build(dataset, doubts, ReviewConfig.model_validate(settings), decided)


def test_an_exact_conflict_comes_first_with_its_copy_beside_it(copied: Dataset) -> None:
    entries = queue(copied, find_doubts(copied, ReviewConfig()))
    twins = entries[:2]
    assert [entry.row.path.endswith("twin.png") for entry in twins] in ([True, False], [False, True])
    for entry, other in zip(twins, twins[::-1], strict=True):
        assert entry.copies[0] == (other.row, True)
        assert "conflict" in entry.why
        assert set(entry.kinds) >= {"conflicts", "duplicates"}
        assert entry.probs == {}
    assert next(entry for entry in entries if entry.row.path.endswith("twin.png")).votes == {"sad": 3, "happy": 7}
    assert all(entry.row.split == "train" for entry in entries)


def test_label_errors_come_as_the_audit_ranks_them_with_the_models_answer(copied: Dataset, linear_model: Path) -> None:
    classifier = Classifier(linear_model)
    doubts = find_doubts(copied, ReviewConfig(), answers_of(linear_model))
    entries = queue(copied, doubts, only="label-errors")
    found = audit(copied.root, AuditConfig(fail_on="never"), classifier=classifier)
    ranked = [key for finding in found.findings if finding.kind == "label-error" for (key,) in finding.groups]
    rows = {row.path: row for row in copied.all_rows}
    assert len(ranked) > 5
    expected = [path for path in ranked if rows[path].split == "train"]
    assert [entry.row.path for entry in entries][: len(expected)] == expected
    assert entries[0].why[0].startswith("label-error: the model: ")
    for entry in entries:
        assert sum(entry.probs.values()) == pytest.approx(1, abs=1e-3)
        assert entry.probs == pytest.approx(dict(zip(classifier.labels, found.probs[entry.row.path], strict=True)))
    held_out = queue(copied, doubts, only="label-errors", held_out=True)
    assert [entry.row.path for entry in held_out] == [path for path in ranked if rows[path].split != "train"]


def test_the_answers_of_other_programs_rank_and_show_as_a_models_do(copied: Dataset, linear_model: Path) -> None:
    by_model = find_doubts(copied, ReviewConfig(), answers_of(linear_model))
    assert by_model.probs
    said = Predictions(by_model.labels, by_model.probs)
    by_file = find_doubts(copied, ReviewConfig(), Answers("predictions", ("00",), predictions=said))
    assert [entry.row for entry in queue(copied, by_file)] == [entry.row for entry in queue(copied, by_model)]
    assert queue(copied, by_file, only="uncertain")[0].probs == queue(copied, by_model, only="uncertain")[0].probs


def test_filters_limits_and_kinds_of_doubt(copied: Dataset, linear_model: Path) -> None:
    doubts = find_doubts(copied, ReviewConfig(), answers_of(linear_model))
    uncertain = queue(copied, doubts, only="uncertain")
    assert len(uncertain) == len(copied.rows("train"))
    margins = [sorted(entry.probs.values())[-1] - sorted(entry.probs.values())[-2] for entry in uncertain]
    assert margins == sorted(margins)
    assert [entry.row for entry in queue(copied, doubts, only="uncertain", limit=3)] == [e.row for e in uncertain[:3]]
    assert {entry.row.label for entry in queue(copied, doubts, only="all", label=("sad", "fear"))} == {"sad", "fear"}
    assert [entry.row for entry in queue(copied, doubts, only="all", split="val", held_out=True)] == copied.rows("val")
    assert all("conflicts" in entry.kinds for entry in queue(copied, doubts, only="conflicts"))


def test_what_reviewers_disagree_on_comes_first_of_all(copied: Dataset) -> None:
    row = copied.rows("train")[7]
    said = [Decision(row.path, row.sha256, "train", row.label, new, who) for new, who in (("sad", "A"), ("fear", "B"))]
    entries = queue(copied, find_doubts(copied, ReviewConfig()), Corrections(Path("c.csv"), tuple(said), ""))
    assert entries[0].row == row
    assert entries[0].why[0] == f"{CONFLICT}: A says sad, B says fear"
    assert entries[0].is_conflict


def test_a_second_review_reads_what_the_first_found_unless_something_changed(
    copied: Dataset, linear_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEEPFER_CACHE", str(tmp_path / "cache"))
    config = ReviewConfig()
    first = find_doubts(copied, config, answers_of(linear_model))
    calls: list[int] = []
    monkeypatch.setattr(module, "audit", lambda *words, **more: calls.append(1) or audit(*words, **more))
    again = find_doubts(copied, config, answers_of(linear_model))
    assert not calls
    assert queue(copied, again) == queue(copied, first)
    find_doubts(copied, config)
    find_doubts(copied, ReviewConfig(near=False), answers_of(linear_model))
    assert len(calls) == 2
    register(copied.all_rows[:-1], read_description(copied.root), copied.root)
    find_doubts(open_dataset(copied.root), config, answers_of(linear_model))
    assert len(calls) == 3
    for file in (Path(module.cache_dir()) / "review").glob("*.zip"):
        file.write_bytes(file.read_bytes()[:50])
    find_doubts(copied, config)
    assert len(calls) == 4


def test_a_large_group_of_copies_stays_small() -> None:
    paths = tuple(f"train/sad/{number}.png" for number in range(3000))
    copies = Doubts((Doubt("near-duplicate", (paths,), ()),)).copies()
    assert len(copies) == 3000
    assert max(map(len, copies.values())) == module.MAX_COPIES


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"split": "val"}, "held out"),
        ({"split": "train", "held_out": True}, "not held out"),
        ({"blind": True, "label": ("sad",)}, "--blind hides the label"),
        ({"only": "uncertain"}, "needs a model"),
        ({"split": "test", "held_out": True}, "has no images in test"),
        ({"label": ("sat",)}, r"'sat' is no label of FER2013 \(did you mean 'sad'\?\)"),
    ],
)
def test_choices_that_make_no_sense_are_clear_errors(
    painted_dataset: Path, settings: dict[str, object], words: str
) -> None:
    whole = open_dataset(painted_dataset)
    dataset = replace(whole, all_rows=tuple(row for row in whole.all_rows if row.split != "test"))
    with pytest.raises(DeepferError, match=words):
        check_choice(dataset, ReviewConfig.model_validate(settings), has_answers=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": "undo"}, "has a label 'undo'"),
        ({"path": "train/sad/a\nb.png"}, "control characters"),
        ({"sha256": ""}, "has no SHA-256"),
    ],
)
def test_data_sets_whose_names_cannot_stand_in_the_file_are_refused(change: dict[str, str], words: str) -> None:
    row = replace(Row("train/sad/a.png", "train", "sad", sha256="0" * 64), **change)
    dataset = Dataset(Path("set"), "set", (row.label,), fingerprint([row]), (row,))
    with pytest.raises(DatasetError, match=words) as error:
        check_choice(dataset, ReviewConfig(), has_answers=True)
    assert isinstance(error.value, DeepferError)
    assert "\n" not in error.value.message
