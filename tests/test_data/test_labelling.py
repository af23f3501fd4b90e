"""Labels of any kind: kept where none is an emotion, asked about where some are, and safe as folders' names."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from PIL import Image as PillowImage

from deepfer_yolo.config import AuditConfig, ConvertConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import open_dataset, read_description
from deepfer_yolo.errors import ConfigError, DatasetError
from deepfer_yolo.painted import paint_faces

FACES = paint_faces(7, 60)[0]
CONFIG = ConvertConfig(group_by="none")
KEEP = ConvertConfig(group_by="none", labels="keep")


def folders(root: Path, *labels: str, n: int = 5) -> Path:
    """A tree of class folders with `n` faces each."""
    for k, label in enumerate(labels):
        (root / label).mkdir(parents=True)
        for i in range(n):
            PillowImage.fromarray(FACES[(k * n + i) % 60]).save(root / label / f"{k}-{i}.png")
    return root


def listed(root: Path, *labels: str) -> Path:
    """A csv that gives five faces each label."""
    lines = ["path,label"]
    for k, label in enumerate(labels):
        for i in range(5):
            PillowImage.fromarray(FACES[k * 5 + i]).save(root / f"{k}-{i}.png")
            lines.append(f'{k}-{i}.png,"{label}"')
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / "labels.csv"


@pytest.mark.parametrize("labels", [("awake", "drowsy"), ("高兴", "悲伤", "愤怒"), ("müde", "süß", "wach")])
def test_labels_of_which_none_is_an_emotion_are_kept(labels: tuple[str, ...], tmp_path: Path) -> None:
    content = convert(folders(tmp_path / "tree", *labels), tmp_path / "out", CONFIG)
    assert content.labels == tuple(sorted(labels))
    assert content.notes[0] == f"no label is an emotion, so all are kept as they are: {', '.join(sorted(labels))}"
    assert open_dataset(tmp_path / "out").counts("train") == dict.fromkeys(sorted(labels), 3)
    assert {path.name for path in (tmp_path / "out" / "val").iterdir()} == set(labels)
    # A set that was converted states its labels: nothing to say the second time.
    assert convert(tmp_path / "out", tmp_path / "again", CONFIG).labels == content.labels
    assert read_description(tmp_path / "again").notes == ()


def test_a_hundred_labels(tmp_path: Path) -> None:
    names = [f"person {i:03d}" for i in range(100)]
    content = convert(folders(tmp_path / "tree", *names, n=3), tmp_path / "out", CONFIG)
    assert content.labels == tuple(names)
    assert content.notes[0].endswith("person 009 and 90 more")
    assert content.counts["train"] == dict.fromkeys(names, 1)


def test_the_kept_labels_of_a_table_and_what_map_and_drop_do_to_them(tmp_path: Path) -> None:
    source = listed(tmp_path, "Awake", "drowsy", "blurry")
    assert convert(source, tmp_path.parent / f"{tmp_path.name}-a", CONFIG).labels == ("Awake", "blurry", "drowsy")
    chosen = CONFIG.model_copy(update={"map": {"awake": "alert"}, "drop": ("BLURRY",)})
    content = convert(source, tmp_path.parent / f"{tmp_path.name}-b", chosen)
    assert content.labels == ("alert", "drowsy")
    assert content.left_out == {"blurry": 5}


def test_emotions_beside_other_labels_are_asked_about(tmp_path: Path) -> None:
    tree = folders(tmp_path / "tree", "Happiness", "bored", "happy")
    for first_known in (tree, folders(tmp_path / "late", "bored", "happy")):
        with pytest.raises(DatasetError, match="label 'bored': not a known emotion") as caught:
            convert(first_known, tmp_path / "out", CONFIG)
        for way in ("--map 'bored=LABEL'", "--drop 'bored'", "--labels keep"):
            assert way in caught.value.message
    assert convert(tree, tmp_path / "keep", KEEP).labels == ("Happiness", "bored", "happy")
    # Without its emotions the rest is a set of other labels.
    assert convert(tree, tmp_path / "rest", ConvertConfig(drop=("happy",), labels="keep")).labels == (
        "Happiness",
        "bored",
    )
    late = ConvertConfig(drop=("happy",), split="train=0.5,val=0.5")
    assert convert(tmp_path / "late", tmp_path / "b", late).labels == ("bored",)


def test_bare_numbers_may_be_codes_and_are_kept_only_when_asked(tmp_path: Path) -> None:
    source = listed(tmp_path, "0", "1")
    out = tmp_path.parent / f"{tmp_path.name}-out"
    with pytest.raises(DatasetError, match=r"label '0': not a known emotion \(5 images\); --map '0=LABEL'"):
        convert(source, out, CONFIG)
    assert convert(source, out, KEEP).labels == ("0", "1")


def test_names_that_folders_cannot_hold_are_written_otherwise_and_said(tmp_path: Path) -> None:
    source = listed(tmp_path, "eyes: open/shut", "con", "wach")
    content = convert(source, tmp_path.parent / f"{tmp_path.name}-out", CONFIG)
    assert [label for label in content.labels if label.startswith("con-")]
    assert set(content.labels) >= {"eyes%3a open%2fshut", "wach"}
    assert "label 'eyes: open/shut' is written 'eyes%3a open%2fshut', which any file system can hold" in content.notes
    escaping = listed(tmp_path, "../../up", "wach")
    content = convert(escaping, tmp_path.parent / f"{tmp_path.name}-up", CONFIG)
    assert all("/" not in label and not label.startswith(".") for label in content.labels)


@pytest.mark.parametrize(("one", "other"), [("Drowsy", "drowsy"), ("a/b", "a%2fb"), ("STRASSE", "straße"), ("x.", "x")])
def test_labels_that_would_share_a_folder_are_refused(one: str, other: str, tmp_path: Path) -> None:
    source, out = listed(tmp_path, one, other), tmp_path.parent / f"{tmp_path.name}-out"
    with pytest.raises(DatasetError, match="would share a folder with the label") as caught:
        convert(source, out, CONFIG)
    assert f"--map '{other}=LABEL'" in caught.value.message
    if one.casefold() != other.casefold():
        assert convert(source, out, CONFIG.model_copy(update={"map": {other: "second"}})).labels[-1] == "second"


def test_no_label_is_called_what_unjudged_faces_are(tmp_path: Path) -> None:
    source, out = listed(tmp_path, "Uncertain", "wach"), tmp_path.parent / f"{tmp_path.name}-out"
    with pytest.raises(DatasetError, match="label 'Uncertain': is what faces are called that cannot be judged"):
        convert(source, out, CONFIG)
    assert convert(source, out, CONFIG.model_copy(update={"drop": ("uncertain",)})).labels == ("wach",)


def test_accents_that_are_stored_in_two_ways_are_one_label(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "müde")
    source = listed(tmp_path, composed, unicodedata.normalize("NFD", "müde"), "wach")
    assert convert(source, tmp_path.parent / f"{tmp_path.name}-out", CONFIG).labels == (composed, "wach")


def test_a_column_of_file_names_is_no_label(tmp_path: Path) -> None:
    rows = "".join(f"{i}.png,face number {i}\n" for i in range(1001))
    (tmp_path / "labels.csv").write_text(f"path,label\n{rows}")
    for config in (CONFIG, KEEP):
        with pytest.raises(DatasetError, match="has more than 1,000 labels, such as face number"):
            convert(tmp_path / "labels.csv", tmp_path.parent / f"{tmp_path.name}-out", config)


def test_keep_and_votes_exclude_each_other(tmp_path: Path, painted_csv: Path) -> None:
    votes = tmp_path / "fer2013new.csv"
    votes.write_text("Usage\n")
    with pytest.raises(ConfigError, match="--labels keep: FER"):
        convert(painted_csv, tmp_path / "out", ConvertConfig(labels="keep", ferplus=votes))


def test_an_audit_reads_kept_labels_too(tmp_path: Path) -> None:
    config = AuditConfig(min_per_class=1)
    kept = audit(folders(tmp_path / "kept", "awake", "drowsy"), config)
    assert "unreadable" not in {finding.kind for finding in kept.findings}
    mixed = audit(folders(tmp_path / "mixed", "bored", "happy"), config)
    assert [finding.count for finding in mixed.findings if finding.kind == "unreadable"] == [5]
