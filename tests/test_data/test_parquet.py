"""Parquet data sets: splits, names of labels, images embedded or not, and files that nobody should trust."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from deepfer_yolo.config import AuditConfig, ConvertConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import load_images, open_dataset
from deepfer_yolo.data.layouts import parquet
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import DatasetError, MissingDependencyError, install_line

if find_spec("pyarrow") is None:
    pytest.skip("pyarrow is not installed", allow_module_level=True)

import pyarrow as pa
from pyarrow.parquet import write_table

CONFIG = ConvertConfig(group_by="none", val=0)
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
README = """---
license: mit
dataset_info:
- config_name: default
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': angry
          '1': disgust
          '2': fear
          '3': happy
          '4': neutral
          '5': sad
          '6': surprise
---
# Faces
"""


def table(paint: ModuleType, **columns: object) -> pa.Table:
    """Twenty faces and their labels as words, with `columns` besides or instead; None leaves one out."""
    cells = pa.array([{"bytes": paint.encoded(face), "path": None} for face in paint.FACES[:20]], IMAGE)
    standard = {"image": cells, "label": pa.array(paint.NAMES[:20])}
    return pa.table({name: column for name, column in (standard | columns).items() if column is not None})


def refused(table: pa.Table, tmp_path: Path, what: str, compression: str = "snappy") -> DatasetError:
    write_table(table, tmp_path / "train.parquet", compression=compression)
    with pytest.raises(DatasetError, match=what) as caught:
        convert(tmp_path / "train.parquet", tmp_path / "out", CONFIG)
    assert not (tmp_path / "out").exists()
    assert caught.value.hint
    return caught.value


def test_pixels_ids_and_names_are_those_of_the_rows(paint: ModuleType, tmp_path: Path) -> None:
    paint.write_parquet(tmp_path / "train.parquet", range(20))
    content = convert(tmp_path / "train.parquet", tmp_path / "out", CONFIG)
    dataset = open_dataset(tmp_path / "out")
    assert content.counts == {"train": dict(sorted(Counter(paint.NAMES[:20]).items()))}
    for index, (row, pixels) in enumerate(zip(dataset.all_rows, load_images(dataset, dataset.all_rows), strict=True)):
        assert row.source_id == f"train.parquet/{index + 1}"
        assert row.path == f"train/{paint.NAMES[index]}/{index}.png"
        assert np.array_equal(pixels[:, :, 0], paint.FACES[index])


def test_a_val_is_taken_from_train(paint: ModuleType, tmp_path: Path) -> None:
    """By groups of images that belong together, of which the rows of one file are none."""
    paint.write_parquet(tmp_path / "in/train.parquet", range(60))
    paint.write_parquet(tmp_path / "in/test.parquet", range(60, 70))
    counts = convert(tmp_path / "in", tmp_path / "out", ConvertConfig()).counts
    assert 4 <= sum(counts["val"].values()) <= 10
    assert sum(counts["train"].values()) + sum(counts["val"].values()) == 60
    assert sum(counts["test"].values()) == 10


@pytest.mark.parametrize("place", ["in", "in/data", "in/data/train-0.parquet"])
@pytest.mark.parametrize("folder", ["data", "default/train"])
def test_names_of_the_readme_count_where_the_schema_has_none(
    paint: ModuleType, folder: str, place: str, tmp_path: Path
) -> None:
    paint.write_parquet(tmp_path / "in" / folder / "train-0.parquet", range(20), names=None)
    (tmp_path / "in/README.md").write_text(README)
    (tmp_path / "in/.gitattributes").write_text("*.parquet filter=lfs")
    content = convert(tmp_path / place.replace("data", folder), tmp_path / "out", CONFIG)
    assert content.counts["train"] == dict(sorted(Counter(paint.NAMES[:20]).items()))
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in (tmp_path / "in").rglob("*"):
            archive.write(path, path.relative_to(tmp_path))
    content = convert(tmp_path / "in.zip", tmp_path / "out", CONFIG, overwrite=True)
    assert content.counts["train"] == dict(sorted(Counter(paint.NAMES[:20]).items()))
    assert content.licence == "mit"


def test_names_in_another_order_count_file_by_file(paint: ModuleType, tmp_path: Path) -> None:
    paint.write_parquet(tmp_path / "in/train.parquet", range(20))
    paint.write_parquet(tmp_path / "in/test.parquet", range(20), names=EMOTIONS[::-1])
    counts = convert(tmp_path / "in", tmp_path / "out", CONFIG).counts
    assert counts["train"]["angry"] == counts["test"]["surprise"] == paint.NAMES[:20].count("angry")


def test_other_labels_than_emotions_are_kept(paint: ModuleType, tmp_path: Path) -> None:
    paint.write_parquet(tmp_path / "train.parquet", range(20), names=[f"mood of {name}" for name in EMOTIONS])
    content = convert(tmp_path / "train.parquet", tmp_path / "out", CONFIG)
    assert content.labels == tuple(f"mood of {name}" for name in EMOTIONS)


def test_numbers_without_names_ask_for_a_map(paint: ModuleType, tmp_path: Path) -> None:
    paint.write_parquet(tmp_path / "train.parquet", range(20), names=None)
    with pytest.raises(DatasetError, match=r"labels are numbers without names: 0 \(\d images\), 1 \(") as caught:
        convert(tmp_path / "train.parquet", tmp_path / "out", CONFIG)
    assert caught.value.hint is not None
    assert "--map 0=angry" in caught.value.hint
    assert not (tmp_path / "out").exists()
    with pytest.raises(DatasetError, match="numbers without names"):
        audit(tmp_path / "train.parquet", AuditConfig())
    names = {str(code): name for code, name in enumerate(EMOTIONS)}
    content = convert(tmp_path / "train.parquet", tmp_path / "out", ConvertConfig(map=names, val=0))
    assert content.counts["train"] == dict(sorted(Counter(paint.NAMES[:20]).items()))
    keep = ConvertConfig(labels="keep", val=0)
    assert convert(tmp_path / "train.parquet", tmp_path / "kept", keep).labels == tuple("0123456")
    (tmp_path / "text").mkdir()
    refused(table(paint, label=pa.array([str(n) for n in paint.LABELS[:20]])), tmp_path / "text", "labels are numbers")


def test_paths_without_bytes_are_refused_and_never_followed(paint: ModuleType, tmp_path: Path) -> None:
    real = paint.save(tmp_path / "private.png", paint.FACES[0])
    cells = pa.array([{"bytes": None, "path": str(real)}] * 20, IMAGE)
    error = refused(table(paint, image=cells), tmp_path, "row 1: holds no image, only the path '.*never followed")
    assert error.hint is not None
    assert "embed_table_storage" in error.hint
    some = pa.array([{"bytes": paint.encoded(paint.FACES[0]), "path": None}, *cells.to_pylist()[1:]], IMAGE)
    refused(table(paint, image=some), tmp_path, "row 2: holds no image, only the path")
    untyped = pa.array([{"bytes": None, "path": str(real)}] * 20)
    assert pa.types.is_null(untyped.type.field("bytes").type)
    refused(table(paint, image=untyped), tmp_path, "only the path")


@pytest.mark.parametrize("name", ["img", "pixel_values", "anything"])
def test_other_names_of_the_image(paint: ModuleType, name: str, tmp_path: Path) -> None:
    cells = table(paint).column("image")
    write_table(table(paint, image=None, **{name: cells}), tmp_path / "train.parquet")
    assert convert(tmp_path / "train.parquet", tmp_path / "out", CONFIG).labels == EMOTIONS


def test_images_as_plain_bytes_and_labels_as_categories(paint: ModuleType, tmp_path: Path) -> None:
    cells = pa.array([paint.encoded(face, "JPEG") for face in paint.FACES[:20]], pa.large_binary())
    labels = pa.array(paint.NAMES[:20]).dictionary_encode()
    write_table(table(paint, image=cells, label=None, Emotion=labels), tmp_path / "train.parquet")
    assert convert(tmp_path / "train.parquet", tmp_path / "out", CONFIG).labels == EMOTIONS


def test_split_and_subject_may_be_columns(paint: ModuleType, tmp_path: Path) -> None:
    usage = pa.array(["Training"] * 10 + ["PublicTest"] * 5 + ["PrivateTest"] * 5)
    more = {"Usage": usage, "subject": pa.array(range(20))}
    write_table(table(paint, **more), tmp_path / "faces.parquet")
    content = convert(tmp_path / "faces.parquet", tmp_path / "out", CONFIG)
    assert {split: sum(counts.values()) for split, counts in content.counts.items()} == {
        "train": 10,
        "val": 5,
        "test": 5,
    }
    assert open_dataset(tmp_path / "out").all_rows[0].subject == "0"
    (tmp_path / "other").mkdir()
    refused(table(paint, **more), tmp_path / "other", "row 11: split is 'PublicTest', and its file's name says train")
    refused(table(paint, split=pa.array(["holdout"] * 20)), tmp_path / "other", "split is 'holdout'")


def test_one_label_column_tells_or_it_is_asked(paint: ModuleType, tmp_path: Path) -> None:
    numbers = pa.array(paint.LABELS[:20].astype(int))
    write_table(table(paint, label=numbers, emotion=pa.array(paint.NAMES[:20])), tmp_path / "train.parquet")
    assert convert(tmp_path / "train.parquet", tmp_path / "out", CONFIG).labels == EMOTIONS
    (tmp_path / "x").mkdir()
    two = table(paint, emotion=pa.array(paint.NAMES[:20]))
    refused(two, tmp_path / "x", "several columns may be the label: label, emotion")
    cells = table(paint).column("image")
    refused(table(paint, image=None, a=cells, b=cells), tmp_path / "x", "several columns may be the image: a, b")
    refused(
        table(paint, label=None, caption=pa.array(["x"] * 20)), tmp_path / "x", "no column .* label among: image, c"
    )
    refused(table(paint, image=pa.array(["a.png"] * 20)), tmp_path / "x", "no column that can be read as the image")
    audio = json.dumps({"info": {"features": {"image": {"_type": "Audio"}}}})
    refused(table(paint).replace_schema_metadata({"huggingface": audio}), tmp_path / "x", "no column .* image")
    double = pa.Table.from_arrays([cells, cells, pa.array(paint.NAMES[:20])], ["image", "image", "label"])
    refused(double, tmp_path / "x", "two columns have one name")


def test_boxes_are_cut_out_or_asked_for(paint: ModuleType, tmp_path: Path) -> None:
    cells = pa.array([{"bytes": paint.encoded(paint.framed(face)), "path": None} for face in paint.FACES[:20]], IMAGE)
    rows = table(paint, image=cells, bbox=pa.array([[30.0, 20.0, 48.0, 48.0]] * 20))
    write_table(rows, tmp_path / "train.parquet")
    convert(tmp_path / "train.parquet", tmp_path / "out", CONFIG.model_copy(update={"box_format": "xywh"}))
    dataset = open_dataset(tmp_path / "out")
    for pixels, face in zip(load_images(dataset, dataset.all_rows), paint.FACES[:20], strict=True):
        assert np.array_equal(pixels[:, :, 0], face)
    (tmp_path / "x").mkdir()
    refused(rows, tmp_path / "x", "train.parquet: .*bbox")  # x y width height, or two corners?
    refused(table(paint, box=pa.array([[1.0] * 500] * 20)), tmp_path / "x", "row 1: a box of 500 numbers")
    refused(table(paint, objects=pa.array(["x"] * 20)), tmp_path / "x", "objects holds several boxes")


def test_a_shard_without_a_split_beside_others_is_named(paint: ModuleType, tmp_path: Path) -> None:
    paint.write_parquet(tmp_path / "in/train-0.parquet", range(20))
    paint.write_parquet(tmp_path / "in/extra.parquet", range(20))
    with pytest.raises(DatasetError, match=r"extra\.parquet: says no split in its name, while train-0\.parquet does"):
        convert(tmp_path / "in", tmp_path / "out", CONFIG)


def test_rows_that_are_wrong_are_reported_together(paint: ModuleType, tmp_path: Path) -> None:
    good = paint.encoded(paint.FACES[0])
    cells = [good, b"hello", good[:200], b"", None, good, good, good]
    image = pa.array([{"bytes": cell, "path": None} for cell in cells], IMAGE)
    rows = pa.table({"image": image, "label": pa.array([3, 3, 3, 3, 3, 7, -1, None])})
    features = {"info": {"features": {"label": {"names": list(EMOTIONS), "_type": "ClassLabel"}}}}
    error = refused(rows.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path, "5 problems")
    for what in (
        "row 2: not an image in a known format",
        "row 3: broken image",
        "row 4: not an image",
        "row 5: no image",
        "row 6: label 7, and there are 7 names",
    ):
        assert f"train.parquet, {what}" in error.message
    write_table(rows.slice(6).replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "a.parquet")
    with pytest.raises(DatasetError, match="holds no images"):  # both rows have no label, and are left out
        convert(tmp_path / "a.parquet", tmp_path / "out", CONFIG)


def test_absent_pyarrow_says_what_to_install(
    paint: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint.parquet(tmp_path / "in")
    for module in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "Editable" not in str(finder)])
    with pytest.raises(MissingDependencyError) as caught:
        convert(tmp_path / "in", tmp_path / "out", CONFIG)
    assert caught.value.hint == install_line("parquet")


def test_a_pointer_of_git_lfs_and_broken_files(paint: ModuleType, tmp_path: Path) -> None:
    paint.write_parquet(tmp_path / "whole.parquet", range(20))
    whole, bad = (tmp_path / "whole.parquet").read_bytes(), tmp_path / "train.parquet"
    bad.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DatasetError, match="pointer of Git LFS") as caught:
        convert(bad, tmp_path / "out", CONFIG)
    assert caught.value.hint is not None
    assert "git lfs pull" in caught.value.hint
    middle = bytearray(whole)
    middle[5000:5400] = bytes(400)
    for content in (b"", b"hello", whole[: len(whole) // 2], whole[:-8] + b"\xff\xff\xff\x7fPAR1", bytes(middle)):
        bad.write_bytes(content)
        with pytest.raises(DatasetError):
            convert(bad, tmp_path / "out", CONFIG)
        assert not (tmp_path / "out").exists()


def test_damaged_bytes_never_end_in_a_crash(paint: ModuleType, tmp_path: Path) -> None:
    """In a process of its own: a damaged file must be refused, or read without the damage, and nothing else."""
    paint.write_parquet(tmp_path / "whole.parquet", range(20))
    code = (
        "import random, sys\nfrom pathlib import Path\n"
        "from deepfer_yolo.data.layouts.item import Reading\nfrom deepfer_yolo.data.layouts import parquet\n"
        "from deepfer_yolo.errors import DatasetError\n"
        "folder = Path(sys.argv[1]); whole = (folder / 'whole.parquet').read_bytes(); refused = 0\n"
        "for seed in range(300):\n"
        "    draw = random.Random(seed); content = bytearray(whole)\n"
        "    for _ in range(draw.randint(1, 8)):\n"
        "        at = draw.randrange(len(whole)) if seed % 2 else len(whole) - 1 - draw.randrange(1500)\n"
        "        content[at] = draw.randrange(256)\n"
        "    (folder / 'train.parquet').write_bytes(content)\n"
        "    try:\n        list(parquet.read(Reading(folder / 'train.parquet')))\n"
        "    except DatasetError:\n        refused += 1\n"
        "print(refused)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert int(answer.stdout) > 50


def test_sizes_are_bounded_before_decoding(paint: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = paint.encoded(np.zeros((8000, 8000), np.uint8))
    cells = pa.array([{"bytes": bomb, "path": None}], IMAGE)
    rows = pa.table({"image": cells, "label": pa.array(["happy"])})
    refused(rows, tmp_path, r"row 1: 8000×8000 pixels are more than the limit")
    long = pa.table({"image": table(paint).column("image").slice(0, 1), "label": pa.array(["x" * 5_000_000])})
    refused(long, tmp_path, "a label longer than 200 characters")
    path = pa.array([{"bytes": paint.encoded(paint.FACES[0]), "path": "y" * 5_000_000}], IMAGE)
    refused(pa.table({"image": path, "label": pa.array(["happy"])}), tmp_path, "a text longer than 4,096 characters")
    monkeypatch.setattr(parquet, "MAX_CONTENT", 1_000_000)
    large = pa.array([{"bytes": bytes(1_000_001), "path": None}] * 20, IMAGE)
    refused(table(paint, image=large), tmp_path, "20 problems\n.*row 1: larger than 1 MB")
    monkeypatch.setattr(parquet, "RATIO_FROM", 1 << 20)
    zeros = pa.array([{"bytes": bytes(3_000_000), "path": None}], IMAGE)
    rows = pa.table({"image": zeros, "label": pa.array(["happy"])})
    refused(rows, tmp_path, "a decompression bomb", compression="zstd")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other units elsewhere")
def test_a_file_is_never_whole_in_memory(paint: ModuleType, tmp_path: Path) -> None:
    """200 MB in one row group, and 500 MB that a file of a few kB speaks of, in a process that needs a part of it."""
    noise = np.random.default_rng(0)
    cells = pa.array([{"bytes": noise.bytes(20_000), "path": None} for _ in range(10_000)], IMAGE)
    rows = pa.table({"image": cells, "label": pa.array(["happy"] * 10_000)})
    write_table(rows, tmp_path / "train.parquet", row_group_size=10_000)
    cells = pa.array([{"bytes": bytes(20_000_000), "path": None}] * 25, IMAGE)
    rows, large = pa.table({"image": cells, "label": pa.array(["happy"] * 25)}), tmp_path / "large.parquet"
    write_table(rows, large, compression="zstd", dictionary_pagesize_limit=1 << 30)
    assert large.stat().st_size < 10_000
    code = (
        "import re, sys\nfrom pathlib import Path\nimport pyarrow.parquet\n"
        "from deepfer_yolo.data.layouts.item import Reading\nfrom deepfer_yolo.data.layouts import parquet\n"
        # Not getrusage: its peak is that of the process which started this one, where that was larger.
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024\n"
        "before = peak()\n"
        "print(sum(1 for _ in parquet.read(Reading(Path(sys.argv[1])))), peak() - before)\n"
    )
    for name, n in (("train", 10_000), ("large", 25)):
        command = [sys.executable, "-c", code, str(tmp_path / f"{name}.parquet")]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        n_read, grown_mb = map(int, answer.stdout.split())
        assert n_read == n
        assert grown_mb < (100 if name == "train" else 400), name
