"""What convert can be told: new splits, FER+ votes, label maps, quarantine lists."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from deepfer_yolo.config import AuditConfig, ConvertConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import fingerprint, open_dataset, read_quarantine, write_quarantine
from deepfer_yolo.data.ferplus import is_unknown, majority, parse_votes, plurality, votes_text
from deepfer_yolo.data.splits import assign_splits, parse_shares
from deepfer_yolo.emotions import EMOTIONS, FER2013_CODES, FERPLUS_COLUMNS
from deepfer_yolo.errors import ConfigError, DatasetError
from deepfer_yolo.painted import paint_faces

SHARES = "train=0.8,val=0.1,test=0.1"


@pytest.fixture
def unsplit(tmp_path: Path) -> Path:
    """70 faces in class folders, each with one brighter copy."""
    faces, labels = paint_faces(5, 70)
    for index, (face, label) in enumerate(zip(faces, labels, strict=True)):
        folder = tmp_path / "tree" / EMOTIONS[label]
        folder.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(face).save(folder / f"{index}.png")
        PillowImage.fromarray(np.clip(face * 1.05, 0, 255).astype(np.uint8)).save(folder / f"{index}-again.png")
    return tmp_path / "tree"


def test_copies_stay_together_and_labels_are_stratified(unsplit: Path, tmp_path: Path) -> None:
    content = convert(unsplit, tmp_path / "out", ConvertConfig(seed=3))
    assert content.options["split"] == SHARES
    dataset = open_dataset(tmp_path / "out")
    by_face = {row.source_id.replace("-again", ""): set() for row in dataset.all_rows}
    for row in dataset.all_rows:
        by_face[row.source_id.replace("-again", "")].add(row.split)
    assert all(len(splits) == 1 for splits in by_face.values())
    counts = Counter(row.split for row in dataset.all_rows)
    assert abs(counts["val"] - 14) <= 4
    assert abs(counts["test"] - 14) <= 4
    assert not (tmp_path / "out" / "unsplit").exists()
    assert all((tmp_path / "out" / row.path).is_file() for row in dataset.all_rows)
    torn = convert(unsplit, tmp_path / "torn", ConvertConfig(seed=3, group_by="none"))
    assert torn.fingerprint != content.fingerprint
    assert convert(unsplit, tmp_path / "again", ConvertConfig(seed=3)).fingerprint == content.fingerprint
    assert convert(unsplit, tmp_path / "other", ConvertConfig(seed=4)).fingerprint != content.fingerprint


def test_subjects_stay_together() -> None:
    random = np.random.default_rng(0)
    subjects = random.integers(0, 40, 800)
    labels = [EMOTIONS[index] for index in random.integers(0, 7, 800)]
    splits = assign_splits(labels, subjects, parse_shares(SHARES), 1)
    assert all(
        len({split for split, subject in zip(splits, subjects, strict=True) if subject == who}) == 1
        for who in range(40)
    )
    shares = Counter(splits)
    assert abs(shares["train"] / 800 - 0.8) < 0.04
    for split in ("train", "val", "test"):
        of_happy = sum(s == split and label == "happy" for s, label in zip(splits, labels, strict=True)) / shares[split]
        assert abs(of_happy - labels.count("happy") / 800) < 0.08


def test_a_copy_under_two_subjects_keeps_both_in_one_split(tmp_path: Path) -> None:
    faces, labels = paint_faces(5, 70)
    by_subject_alone = assign_splits([EMOTIONS[label] for label in labels], np.arange(70) // 7, parse_shares(SHARES), 0)
    first, copy = by_subject_alone.index("train"), by_subject_alone.index("val")
    faces[copy] = faces[first]
    lines = ["path,label,subject"]
    for index, (face, label) in enumerate(zip(faces, labels, strict=True)):
        PillowImage.fromarray(face).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{EMOTIONS[label]},s{index // 7}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    splits: dict[str, dict[str, set[str]]] = {}
    for group_by in ("auto", "subject"):
        target = tmp_path.parent / f"{tmp_path.name}-{group_by}"
        convert(tmp_path / "labels.csv", target, ConvertConfig(group_by=group_by))
        splits[group_by] = {}
        for row in open_dataset(target).all_rows:
            splits[group_by].setdefault(row.subject, set()).add(row.split)
        assert all(len(found) == 1 for found in splits[group_by].values())
    one, other = f"s{first // 7}", f"s{copy // 7}"
    assert splits["auto"][one] == splits["auto"][other]
    assert splits["subject"][one] != splits["subject"][other]


@pytest.mark.parametrize(
    "text",
    [
        "train=0.8",
        "train=0.8,val=0.3",
        "train=x,val=0.5",
        "train=0.5,dev=0.5",
        "train=0.5,train=0.5",
        "half",
        "train=1.5,val=-0.5",
    ],
)
def test_bad_shares(text: str) -> None:
    with pytest.raises(ConfigError, match="--split"):
        parse_shares(text)


def test_too_few_groups_and_unknown_subjects(unsplit: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 groups of images cannot be divided"):
        assign_splits(["happy", "sad"] * 5, np.array([0, 1] * 5), parse_shares(SHARES), 0)
    with pytest.raises(ConfigError, match="140 of 140 images have no subject, such as angry/"):
        convert(unsplit, tmp_path / "out", ConvertConfig(group_by="subject"))
    assert not (tmp_path / "out").exists()


def test_map_and_drop(painted_csv: Path, tmp_path: Path) -> None:
    content = convert(
        painted_csv,
        tmp_path / "out",
        ConvertConfig(map={"happy": "positive", "surprise": "positive"}, drop=("disgust",)),
    )
    assert content.labels == ("angry", "fear", "neutral", "positive", "sad")
    assert content.counts["train"]["positive"] == 40
    assert content.left_out == {"disgust": 32}
    assert convert(tmp_path / "out", tmp_path / "again", ConvertConfig()).labels == content.labels
    with pytest.raises(DatasetError, match="--map or --drop 'joy': no image bears this label"):
        convert(painted_csv, tmp_path / "no", ConvertConfig(map={"joy": "positive"}))
    with pytest.raises(ConfigError, match="cannot be the name of a folder"):
        convert(painted_csv, tmp_path / "no", ConvertConfig(map={"happy": "../x"}))


@pytest.fixture
def ferplus(painted_csv: Path, tmp_path: Path) -> Path:
    """Votes that agree with the label, but: row 0 all for sad, row 1 unknown, row 2 split, row 3 single votes."""
    lines = ["Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"]
    for index, line in enumerate(painted_csv.read_text().splitlines()[1:]):
        code, _, usage = line.split(",")
        label = FER2013_CODES[int(code)]
        votes = dict.fromkeys(FERPLUS_COLUMNS, 0) | {label: 9, "contempt": 1}
        special: dict[int, dict[str, int]] = {
            0: {"sad": 10},
            1: {"unknown": 7, "happy": 3},
            2: {"sad": 5, "fear": 5},
            3: dict.fromkeys(FERPLUS_COLUMNS, 1),
        }
        votes = dict.fromkeys(FERPLUS_COLUMNS, 0) | special[index] if index in special else votes
        lines.append(f"{usage},fer{index:07d}.png,{','.join(str(votes[column]) for column in FERPLUS_COLUMNS)}")
    path = tmp_path / "fer2013new.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_ferplus_labels(painted_csv: Path, ferplus: Path, tmp_path: Path) -> None:
    content = convert(painted_csv, tmp_path / "majority", ConvertConfig(labels="ferplus-majority", ferplus=ferplus))
    assert content.left_out == {"no FER+ majority": 3}
    rows = {row.source_id: row for row in open_dataset(tmp_path / "majority").all_rows}
    assert rows["0"].label == "sad"
    assert not rows["0"].votes
    assert "1" not in rows
    assert "2" not in rows
    content = convert(painted_csv, tmp_path / "votes", ConvertConfig(labels="ferplus-votes", ferplus=ferplus))
    rows = {row.source_id: row for row in open_dataset(tmp_path / "votes").all_rows}
    assert rows["1"].label == "happy"
    assert rows["1"].votes == "happy:3 unknown:7"
    assert len(rows) == 224
    content = convert(
        painted_csv, tmp_path / "known", ConvertConfig(labels="original", ferplus=ferplus, drop_unknown=True)
    )
    assert content.left_out == {"FER+ unknown or not a face": 2}
    finding = next(
        f
        for f in audit(tmp_path / "votes", AuditConfig(near_correlation=0.98)).findings
        if f.kind == "vote-disagreement"
    )
    assert finding.groups[0] == (rows["1"].path,)
    assert finding.notes[0] == "unknown, 7 votes"


def test_ferplus_of_other_rows_is_refused(painted_csv: Path, ferplus: Path, tmp_path: Path) -> None:
    lines = ferplus.read_text().splitlines(keepends=True)
    ferplus.write_text("".join(lines[:100]))
    with pytest.raises(DatasetError, match="row 99 is not in"):
        convert(painted_csv, tmp_path / "out", ConvertConfig(labels="ferplus-votes", ferplus=ferplus))
    ferplus.write_text("".join([lines[0], *reversed(lines[1:])]))
    with pytest.raises(DatasetError, match="not the same rows"):
        convert(painted_csv, tmp_path / "out", ConvertConfig(labels="ferplus-votes", ferplus=ferplus))
    with pytest.raises(ConfigError, match="need the FER\\+ file"):
        convert(painted_csv, tmp_path / "out", ConvertConfig(labels="ferplus-votes"))
    ferplus.write_text(lines[0] + "Training,x,1,2,3\nTrainin,x,1,1,1,1,1,1,1,1,1,1\nTraining,x,a,1,1,1,1,1,1,1,1,1\n")
    with pytest.raises(DatasetError, match="3 problems"):
        convert(painted_csv, tmp_path / "out", ConvertConfig(ferplus=ferplus))


def test_vote_rules() -> None:
    none = dict.fromkeys(FERPLUS_COLUMNS, 0)
    assert majority(none | {"happy": 6, "sad": 4}) == "happy"
    assert majority(none | {"happy": 5, "sad": 5}) is None
    assert (
        majority(none | {"happy": 4, "sad": 3, "fear": 1, "angry": 1, "neutral": 1}) == "happy"
    )  # single votes are noise
    assert majority(none | {"unknown": 9, "sad": 1}) is None
    assert plurality(none | {"sad": 4, "fear": 4, "unknown": 2}, "sad") == "sad"
    assert plurality(none | {"sad": 4, "fear": 4}, "happy") == "fear"
    assert plurality(none | {"not-a-face": 10}, "sad") is None
    assert is_unknown(none | {"not-a-face": 5, "sad": 5})
    assert parse_votes(votes_text(none | {"not-a-face": 5, "sad": 5})) == {"sad": 5, "not-a-face": 5}
    with pytest.raises(DatasetError, match="votes must be"):
        parse_votes("sad:x")


def test_quarantine_from_audit_to_convert(painted_dataset: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for split in ("train", "val", "test"):
        shutil.copytree(painted_dataset / split, tree / split)
    happy = sorted((tree / "train" / "happy").iterdir())
    held_out = sorted((tree / "val" / "happy").iterdir())[0]
    shutil.copy(happy[0], held_out)  # a leak: the copy in train goes
    shutil.copy(happy[1], happy[2])  # a copy: one goes
    fear, angry = sorted((tree / "train" / "fear").iterdir())[0], sorted((tree / "train" / "angry").iterdir())[0]
    shutil.copy(fear, angry)  # two labels: both go
    happy[3].write_text("broken")
    result = audit(tree, AuditConfig(near_correlation=0.98))
    file = tmp_path / "leave-out.csv"
    assert write_quarantine(file, result.to_quarantine()) == 5
    gone = {path.relative_to(tree).as_posix() for path in (happy[0], happy[2], happy[3], fear, angry)}
    assert read_quarantine(file) == gone
    content = convert(tree, tmp_path / "out", ConvertConfig(exclude=file))
    assert content.left_out == {"excluded": 5}
    rows = open_dataset(tmp_path / "out").all_rows
    assert len(rows) == 219
    assert not gone & {row.source_id for row in rows}
    assert audit(tmp_path / "out", AuditConfig(near_correlation=0.98, min_per_class=1)).findings == ()


def test_a_bad_row_of_a_csv_can_be_left_out(painted_csv: Path, tmp_path: Path) -> None:
    source = tmp_path / "bad.csv"
    source.write_text(painted_csv.read_text() + "3,1 2 3,Training\n")
    assert write_quarantine(tmp_path / "q.csv", audit(source, AuditConfig(near_correlation=0.98)).to_quarantine()) == 1
    assert read_quarantine(tmp_path / "q.csv") == {"bad.csv, line 226"}
    content = convert(source, tmp_path / "out", ConvertConfig(exclude=tmp_path / "q.csv"))
    assert content.left_out == {"excluded": 1}
    assert sum(content.counts["train"].values()) == 140


def test_a_list_for_another_data_set_is_refused(painted_dataset: Path, painted_csv: Path, tmp_path: Path) -> None:
    file = tmp_path / "leave-out.csv"
    dataset = open_dataset(painted_dataset)
    write_quarantine(file, [(dataset.all_rows[0].path, "blank", "why"), ("val/happy/none.png", "blank", "why")])
    with pytest.raises(DatasetError, match="1 of 2 images that are not in this data set"):
        dataset.without(file)
    with pytest.raises(DatasetError, match="2 of 2"):
        convert(painted_csv, tmp_path / "out", ConvertConfig(exclude=file))
    write_quarantine(file, [(dataset.all_rows[0].path, "blank", "why")])
    rest = dataset.without(file)
    assert len(rest.all_rows) == 223
    assert rest.fingerprint == fingerprint(dataset.all_rows[1:]) != dataset.fingerprint
    assert dataset.without(None) is dataset
    untouched = dataset.without(file, splits=["test"])
    assert (untouched.all_rows, untouched.fingerprint) == (dataset.all_rows, dataset.fingerprint)
    (tmp_path / "no.csv").write_text("a,b\n")
    with pytest.raises(DatasetError, match="the first column must be 'picture'"):
        read_quarantine(tmp_path / "no.csv")
