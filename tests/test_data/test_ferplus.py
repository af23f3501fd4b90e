"""FER+ votes: joined by row, the rules of the paper, a folder of images with votes."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepfer_yolo.config import AuditConfig, ConvertConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.data.ferplus import is_unknown, majority, parse_votes, plurality, votes_text
from deepfer_yolo.emotions import FER2013_CODES, FERPLUS_COLUMNS
from deepfer_yolo.errors import ConfigError, DatasetError


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
