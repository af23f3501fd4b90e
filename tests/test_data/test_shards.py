"""`--shard i/n` and `--merge`: the parts of a job, put together, are what one process finds; wrong sets are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deepfer_yolo.config import AuditConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.audit.parts import audit_part
from deepfer_yolo.data.shards import Parts, Shard
from deepfer_yolo.errors import ConfigError
from deepfer_yolo.painted import paint_faces, paint_frames

Deepfer = Callable[..., Any]
N = 3


def in_parts(deepfer: Deepfer, words: Sequence[object], out: Path, n: int = N) -> None:
    for number in range(1, n + 1):
        done = deepfer(*words, "--shard", f"{number}/{n}", "--out", out)
        assert done.returncode == 0, done.stderr
        assert f"part {number}/{n}:" in done.stderr


@given(st.lists(st.text(), max_size=50), st.integers(1, 60))
def test_each_name_has_one_shard(names: list[str], count: int) -> None:
    shards = [Shard(number, count) for number in range(1, count + 1)]
    assert all(sum(shard.has(name) for shard in shards) == 1 for name in names)


def test_shards_are_the_same_on_every_machine_and_of_one_size() -> None:
    names = [f"train/happy/{i:05d}.png" for i in range(8000)]
    of = [next(number for number in range(1, 5) if Shard(number, 4).has(name)) for name in names]
    assert of[:8] == [1, 1, 4, 2, 3, 4, 3, 1], "parts that were made before must still fit"
    assert np.bincount(of)[1:].min() > 1850, "four standard deviations below 2,000"


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "-1/4", "1/4/4", "1/99999", "١/٤"])
def test_other_texts_are_no_shard(text: str) -> None:
    with pytest.raises(ConfigError, match="--shard takes I/N"):
        Shard.parse(text)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """40 faces in two folders, one of them twice, and a broken file."""
    folder = tmp_path / "mounted" / "here"
    (folder / "inner").mkdir(parents=True)
    for i, face in enumerate(paint_faces(3, 40)[0]):
        Image.fromarray(face).save(folder / ("inner" if i % 3 else ".") / f"{i}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG")
    return folder


@pytest.mark.parametrize("form", ["csv", "jsonl", "table"])
def test_predict(deepfer: Deepfer, faces: Path, linear_model: Path, tmp_path: Path, form: str) -> None:
    words = ["predict", faces, faces / "0.png", "-m", linear_model]
    whole = deepfer(*words, "--format", form)
    in_parts(deepfer, words, tmp_path / "parts")
    merged = deepfer(*words, "--format", form, "--merge", tmp_path / "parts")
    assert merged == whole
    assert whole.returncode == 4
    assert len(whole.stdout.splitlines()) == 42 + (form == "csv")


def test_parts_made_where_the_folder_is_mounted_elsewhere(
    deepfer: Deepfer, faces: Path, linear_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(faces, elsewhere := tmp_path / "mnt")
    in_parts(deepfer, ["predict", elsewhere, "-m", linear_model], tmp_path / "parts")
    words = ["predict", faces, "-m", linear_model, "--json"]
    assert deepfer(*words, "--merge", tmp_path / "parts") == deepfer(*words)


def test_predict_with_faces(deepfer: Deepfer, linear_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(5):
        photo = np.full((200, 400, 3), (90, 110, 130), np.uint8)
        for k, face in enumerate(paint_frames(i, ("happy", "sad"), 1, 140)):
            if k < i % 3:
                photo[30:170, 20 + 190 * k : 160 + 190 * k] = face
        Image.fromarray(photo).save(folder / f"{i}.png")
    words = ["predict", folder, "-m", linear_model, "--faces", "--detector", "haar"]
    whole = deepfer(*words, "--json")
    assert '"faces": 0' in whole.stdout
    assert '"box"' in whole.stdout
    in_parts(deepfer, words, tmp_path / "parts")
    assert deepfer(*words, "--json", "--merge", tmp_path / "parts").stdout == whole.stdout
    assert deepfer(*words[:-2], "--detector", "auto", "--merge", tmp_path / "parts").returncode == 1


def test_more_shards_than_images(deepfer: Deepfer, linear_model: Path, painted_dataset: Path, tmp_path: Path) -> None:
    Image.fromarray(paint_faces(3, 1)[0][0]).save(tmp_path / "one.png")
    words = ["predict", tmp_path / "one.png", "-m", linear_model, "--json"]
    in_parts(deepfer, words[:-1], tmp_path / "parts", 4)
    assert deepfer(*words, "--merge", tmp_path / "parts") == deepfer(*words)
    for command in ("evaluate", "audit"):
        model = ["-m", linear_model] if command == "evaluate" else []
        empty = next(i for i in range(1, 9000) if not deepfer_has(painted_dataset, i, 9000))
        done = deepfer(command, painted_dataset, *model, "--shard", f"{empty}/9000", "--out", tmp_path / command)
        assert done.returncode == 0, done.stderr
        assert f"part {empty}/9000: 0 of" in done.stderr


def deepfer_has(dataset: Path, number: int, count: int) -> bool:
    return any(Shard(number, count).has(path.relative_to(dataset).as_posix()) for path in dataset.rglob("*.png"))


def test_evaluate(deepfer: Deepfer, painted_dataset: Path, linear_model: Path, tmp_path: Path) -> None:
    words = ["evaluate", painted_dataset, "-m", linear_model, "--tta", "flip", "--clean", "--json"]
    whole = deepfer(*words, "--name", "whole")
    in_parts(deepfer, words, tmp_path / "parts")
    merged = deepfer(*words, "--name", "merged", "--merge", tmp_path / "parts")
    assert merged.stdout == whole.stdout
    runs = tmp_path / "runs" / "evaluate"
    for file in ("predictions.csv", "metrics.json"):
        assert (runs / "merged" / file).read_bytes() == (runs / "whole" / file).read_bytes()
    assert "Evaluation of linear" in (runs / "merged" / "report.html").read_text()
    other = deepfer("evaluate", painted_dataset, "-m", linear_model, "--merge", tmp_path / "parts")
    assert other.returncode == 1
    assert "is made with other settings: flip true, not false" in other.stderr
    assert deepfer(*words, "--split", "test", "--merge", tmp_path / "parts").returncode == 1


@pytest.fixture
def copied(painted_dataset: Path, tmp_path: Path) -> Path:
    """A data set with exact and near copies that lie in different parts, and broken images."""
    root = tmp_path / "set"
    shutil.copytree(painted_dataset, root)
    train, val = sorted((root / "train/happy").iterdir()), sorted((root / "val/sad").iterdir())
    for k in range(6):
        shutil.copy(train[k], val[k])
        pixels = np.asarray(Image.open(train[k + 8]))
        Image.fromarray(np.clip(pixels * 1.1, 0, 255).astype(np.uint8)).save(sorted((root / "train/fear").iterdir())[k])
    train[7].write_bytes(b"")
    return root


def split_groups(result: dict[str, Any], kind: str) -> int:
    """How many groups of a finding have images in two parts or more."""
    groups = next(finding["groups"] for finding in result["findings"] if finding["kind"] == kind)
    shards = [Shard(number, N) for number in range(1, N + 1)]
    return sum(sum(any(shard.has(key) for key in group) for shard in shards) > 1 for group in groups)


@pytest.mark.parametrize("with_model", [False, True])
def test_audit(deepfer: Deepfer, copied: Path, linear_model: Path, tmp_path: Path, with_model: bool) -> None:
    words = ["audit", copied]
    if with_model:
        words += ["--with-model", linear_model, "--faces", "--detector", "haar"]
    out = tmp_path / "parts"
    whole = deepfer(*words, "--json", "--quarantine", tmp_path / "a.csv")
    in_parts(deepfer, words, out)
    merged = deepfer(
        *words, "--json", "--quarantine", tmp_path / "b.csv", "--report", tmp_path / "r.html", "--merge", out
    )
    assert merged.stdout == whole.stdout
    assert merged.returncode == whole.returncode == 3
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "r.html").stat().st_size > 20_000
    found = json.loads(whole.stdout)
    kinds = {finding["kind"] for finding in found["findings"]}
    assert {"unreadable", "duplicate", "leak", "near-duplicate"} <= kinds
    assert ("label-error" in kinds, "face-none" in kinds) == (with_model, with_model)
    assert split_groups(found, "duplicate") >= 3
    assert split_groups(found, "near-duplicate") >= 3
    # Thresholds are those of whoever puts the parts together: they were measured, not judged.
    strict = deepfer(*words, "--json", "--no-near", "--fail-on", "never", "--merge", out)
    assert strict.returncode == 0
    assert "near-duplicate" not in strict.stdout


def test_audit_of_a_csv(deepfer: Deepfer, painted_csv: Path, tmp_path: Path) -> None:
    text = painted_csv.read_text().splitlines()
    text[30] = text[30].replace(" ", " x", 1)
    text[40] = "9" + text[40][1:]
    (tmp_path / "bad.csv").write_text("\n".join(text) + "\n")
    in_parts(deepfer, ["audit", tmp_path / "bad.csv"], tmp_path / "parts")
    words = ["audit", tmp_path / "bad.csv", "--json"]
    assert deepfer(*words, "--merge", tmp_path / "parts") == deepfer(*words)


def test_an_audit_of_other_images_is_refused(deepfer: Deepfer, copied: Path, tmp_path: Path) -> None:
    in_parts(deepfer, ["audit", copied / "val"], out := tmp_path / "parts")
    words = ["audit", copied / "val", "--merge", out]
    assert deepfer(*words).returncode == 0
    last = max((copied / "val/surprise").iterdir())
    kept = last.read_bytes()
    last.unlink()
    gone = deepfer(*words)
    last.write_bytes(kept)
    shutil.copy(last, last.with_name("zz.png"))
    new = deepfer(*words)
    for done in (gone, new):
        assert done.returncode == 1
        assert "names other images than the parts were made from" in done.stderr


def test_wrong_sets_of_parts_are_refused_by_name(
    deepfer: Deepfer, faces: Path, linear_model: Path, write_linear_model: Callable[..., Path], tmp_path: Path
) -> None:
    words, out = ["predict", faces, "-m", linear_model], tmp_path / "parts"
    in_parts(deepfer, words, out)
    whole = {path.name: path.read_bytes() for path in out.iterdir()}

    def refused(*also: object, words: Sequence[object] = words) -> str:
        done = deepfer(*words, *also)
        assert done.returncode == 1
        assert done.stdout == ""
        for path in out.iterdir():
            path.unlink()
        for name, content in whole.items():
            (out / name).write_bytes(content)
        assert deepfer(*[*words[:1], faces, "-m", linear_model], "--merge", out).returncode == 4
        return str(done.stderr)

    (out / "2-of-3.json").unlink()
    assert "lacks the parts 2/3" in refused("--merge", out)
    shutil.copy(out / "1-of-3.json", out / "2-of-3.json")
    assert "2-of-3.json: says that it is part 1/3, and so does 1-of-3.json" in refused("--merge", out)
    (out / "2-of-3.json").rename(out / "2-of-4.json")
    assert "it was renamed" in refused("--merge", out)
    shutil.copy(out / "1-of-3.jsonl", out / "2-of-3.jsonl")
    assert "2-of-3.jsonl: is missing, or not what 2-of-3.json was written for" in refused("--merge", out)
    (out / "3-of-3.jsonl").unlink()
    assert "3-of-3.jsonl: is missing" in refused("--merge", out)
    other = write_linear_model(tmp_path / "other.onnx", np.ones((7, 24 * 24 * 3)), np.zeros(7))
    assert "1-of-3.json: is of another model: SHA-256" in refused("--merge", out, words=[*words[:-1], other])
    assert "is of other images: 41 in all, here 42" in refused(
        "--merge", out, words=["predict", faces, faces / "0.png", "-m", linear_model]
    )
    assert "is of other images: 41 in all, here as many" in refused(
        "--merge", out, words=["predict", *sorted(faces.rglob("*.png"), reverse=True), "-m", linear_model]
    )
    assert "parts: holds no parts of a job" in refused("--merge", faces, words=words).replace("here", "parts")
    assert "1-of-3.json: is a part of 3, not of 4" in refused("--shard", "1/4", "--out", out)
    assert "1-of-3.json: is of another model" in refused("--shard", "1/3", "--out", out, words=[*words[:-1], other])
    assert "--shard needs a folder to write into" in refused("--shard", "1/3")
    assert "--out is the folder of --shard or --cluster" in refused("--out", out)
    assert "leave one of them out" in refused("--shard", "1/3", "--out", out, "--merge", out)


def test_a_part_that_is_run_again_takes_its_own_place(
    deepfer: Deepfer, faces: Path, linear_model: Path, tmp_path: Path
) -> None:
    words, out = ["predict", faces, "-m", linear_model], tmp_path / "parts"
    in_parts(deepfer, words, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    in_parts(deepfer, words, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("nonsense", "is no row of a part"),
        ("[" * 50_000, "is no row of a part"),
        ('{"index": 0}', "no answer of this command"),
        ('{"index": 0, "rows": [{"probs": [1, 2]}]}', "no answer of this command"),
        ('{"index": 0, "rows": [{"face": 3}]}', "no answer of this command"),
        ('{"index": 1, "rows": []}', "has no answer to image 0"),
        ('{"index": 0, "rows": []}\n{"index": 0, "rows": []}', "has two answers to image 0"),
        ("", "has answers to 0 images of 1"),
    ],
)
def test_rows_of_strangers(deepfer: Deepfer, linear_model: Path, tmp_path: Path, row: str, why: str) -> None:
    Image.fromarray(paint_faces(3, 1)[0][0]).save(tmp_path / "one.png")
    words, out = ["predict", tmp_path / "one.png", "-m", linear_model], tmp_path / "parts"
    in_parts(deepfer, words, out, 1)
    from deepfer_yolo.files import sha256_of

    before = sha256_of(out / "1-of-1.jsonl")
    (out / "1-of-1.jsonl").write_text(f"{row}\n" if row else "")
    part = out / "1-of-1.json"
    part.write_text(part.read_text().replace(before, sha256_of(out / "1-of-1.jsonl")))
    done = deepfer(*words, "--merge", out)
    assert done.returncode == 1
    assert why in done.stderr
    part.write_text("{}")
    assert "1-of-1.json: is no part of a job" in deepfer(*words, "--merge", out).stderr


@pytest.mark.slow
def test_the_groups_of_fer2013_are_those_of_one_process(shared_dir: Path, tmp_path: Path) -> None:
    """Near copies that lie in different parts are found: hash and thumbnail are what the parts are joined by."""
    source, config = shared_dir / "datasets" / "fer2013_dev.csv.gz", AuditConfig()
    whole = audit(source, config).to_json()
    for number in range(1, N + 1):
        audit_part(source, config, [], Shard(number, N), tmp_path)
    merged = audit(source, config, answers=Parts(tmp_path)).to_json()
    assert merged == whole
    assert split_groups(merged, "near-duplicate") > 1000
    assert split_groups(merged, "near-leak") > 100
