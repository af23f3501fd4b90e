"""Archives: read as the folder inside, and hostile ones refused whole."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image as PillowImage

from deepfer_yolo.config import AuditConfig, ConvertConfig
from deepfer_yolo.data import archives
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import (
    open_dataset,
)
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.painted import paint_faces

CONFIG = ConvertConfig()
FACES, LABELS = paint_faces(2, 28)


def png(index: int) -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(FACES[index]).save(file, "PNG")
    return file.getvalue()


def members() -> dict[str, bytes]:
    return {
        f"set/{'train' if index < 14 else 'val'}/{EMOTIONS[label]}/{index}.png": png(index)
        for index, label in enumerate(LABELS)
    }


def zipped(path: Path, extra: list[tuple[zipfile.ZipInfo | str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members().items():
            archive.writestr(name, content)
        for info, content in extra:
            archive.writestr(info, content)
    return path


def tarred(path: Path, extra: list[tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members().items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info, io.BytesIO(b"x" * info.size))
    return path


def refused(source: Path, tmp_path: Path, what: str) -> None:
    outside = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(DatasetError, match=what) as caught:
        convert(source, tmp_path / "out", CONFIG)
    assert caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == outside


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar"])
def test_archives_of_a_layout(paint: ModuleType, kind: str, tmp_path: Path) -> None:
    source = tmp_path / "source" / "RAF"
    source.mkdir(parents=True)
    paint.rafdb(source)
    archive = tmp_path / f"raf.{kind}"
    if kind == "zip":
        shutil.make_archive(str(tmp_path / "raf"), "zip", tmp_path / "source")
    else:
        with tarfile.open(archive, "w:gz" if kind == "tar.gz" else "w") as tar:
            tar.add(source, "RAF")
    plain = convert(source, tmp_path / "plain", ConvertConfig())
    packed = convert(archive, tmp_path / "packed", ConvertConfig())
    assert packed.fingerprint == plain.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["source", archive.name, "plain", "packed"])


def test_fer2013_as_the_original_tar(painted_csv: Path, painted_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "README").write_text("readme")
    with tarfile.open(tmp_path / "fer2013.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(painted_csv, "fer2013/fer2013.csv")
        tar.add(tmp_path / "README", "fer2013/README")
    content = convert(tmp_path / "fer2013.tar.gz", tmp_path / "out", ConvertConfig())
    assert content.options["layout"] == "fer2013-csv"
    assert content.fingerprint == open_dataset(painted_dataset).fingerprint


def test_errors_about_an_archive_name_the_archive(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "inside" / name).write_text("x")
    archive = Path(shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path / "inside"))
    for command in (lambda: convert(archive, tmp_path / "out", CONFIG), lambda: audit(archive, AuditConfig())):
        with pytest.raises(DatasetError) as caught:
            command()
        assert caught.value.message.startswith(f"{archive}: its layout ")
    sentences = {
        "expw": "has no label.lst",
        "rafdb": "has no EmoLabel",
        "deepfer": "is not a data set folder",
        "table": "holds no csv",
    }
    for layout, said in sentences.items():
        with pytest.raises(DatasetError, match=f"^{re.escape(str(archive))}: {said}"):
            convert(archive, tmp_path / "out", ConvertConfig(layout=layout))
    (tmp_path / "inside" / "fer2013.csv").write_text("emotion,usage\n")
    archive = Path(shutil.make_archive(str(tmp_path / "set"), "tar", tmp_path / "inside"))
    with pytest.raises(DatasetError, match=f"^{re.escape(str(archive / 'fer2013.csv'))}, line 1: no column 'pixels'"):
        convert(archive, tmp_path / "out", CONFIG)
    (tmp_path / "set.7z").write_bytes(b"7z")
    with pytest.raises(DatasetError) as caught:
        convert(tmp_path / "set.7z", tmp_path / "out", CONFIG)
    assert "unpack this one first" in str(caught.value.hint)


@pytest.mark.parametrize(
    "name", ["../evil.png", "/etc/evil.png", "set/../../evil.png", "set\\..\\evil.png", "C:/evil.png"]
)
def test_paths_that_leave_the_archive(name: str, tmp_path: Path) -> None:
    refused(zipped(tmp_path / "a.zip", [(name, b"x")]), tmp_path, "the path leaves the archive")
    refused(tarred(tmp_path / "a.tar", [tarfile.TarInfo(name)]), tmp_path, "the path leaves the archive")


def test_folders_nested_too_deep(tmp_path: Path) -> None:
    refused(
        zipped(tmp_path / "a.zip", [("a/" * archives.MAX_DEPTH + "b.png", b"x")]), tmp_path, "folders nested too deep"
    )


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_devices_and_pipes_in_a_tar(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("set/train/happy/link.png")
    info.type, info.linkname = kind, "/etc/passwd"
    refused(tarred(tmp_path / "a.tar", [info]), tmp_path, "a link, a device or a sparse file")


def test_links_and_encryption_in_a_zip(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("set/train/happy/link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(zipped(tmp_path / "a.zip", [(info, b"/etc/passwd")]), tmp_path, "a link or device")
    data = bytearray(zipped(tmp_path / "b.zip", []).read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    (tmp_path / "b.zip").write_bytes(data)
    refused(tmp_path / "b.zip", tmp_path, "encrypted")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice(tmp_path: Path) -> None:
    refused(zipped(tmp_path / "a.zip", [(next(iter(members())), b"x")]), tmp_path, "the same name stands there twice")


def test_names_that_differ_by_case_and_windows_names_are_kept_apart(tmp_path: Path) -> None:
    happy = f"set/train/{EMOTIONS[LABELS[0]]}"
    extra: list[tuple[zipfile.ZipInfo | str, bytes]] = [
        (f"{happy}/{name}", png(index)) for index, name in enumerate(("A.png", "a.png", "con.png", "x:y.png"))
    ]
    content = convert(zipped(tmp_path / "a.zip", extra), tmp_path / "out", CONFIG)
    assert sum(content.counts["train"].values()) == 18
    names = [Path(row.path).name for row in open_dataset(tmp_path / "out").all_rows]
    assert not any(":" in name or name.lower().startswith("con.") for name in names)
    folders = [row.path.casefold() for row in open_dataset(tmp_path / "out").all_rows]
    assert len(set(folders)) == len(folders)


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "RATIO_FROM", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("set/train/happy/a.png", bytes(20 << 20))
    refused(tmp_path / "a.zip", tmp_path, "decompression bomb")
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2 << 20
    refused(tarred(tmp_path / "c.tar", [info]), tmp_path, "a header of 2,097,152 bytes")
    monkeypatch.setattr(archives, "MAX_MEMBERS", 10)
    refused(zipped(tmp_path / "b.zip", []), tmp_path, "more than 10 members")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_broken_archives(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(os.urandom(2000))
    with pytest.raises(DatasetError):
        convert(tmp_path / name, tmp_path / "out", CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_table_inside_an_archive_may_not_reach_outside(paint: ModuleType, tmp_path: Path) -> None:
    paint.save(tmp_path / "secret.png", paint.FACES[0])
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("labels.csv", f"path,label\n../secret.png,happy\n{tmp_path}/secret.png,sad\n")
        archive.write(tmp_path / "secret.png", "inside.png")
    with pytest.raises(DatasetError, match=r"2 problems(.|\n)*leaves the archive"):
        convert(tmp_path / "set.zip", tmp_path / "out", ConvertConfig())


def packed(path: Path, kind: str) -> bytes:
    """A tar of all members, packed: its bytes, which are read as a data set where they are whole."""
    opened: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    path.write_bytes(opened[kind](tarred(path, []).read_bytes()))
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_packed_tar_is_checked_to_its_end(kind: str, tmp_path: Path) -> None:
    """Whatever byte is wrong or missing, its checksum included."""
    source = tmp_path / f"a.tar.{kind}"
    whole = packed(source, kind)
    convert(source, tmp_path / "whole", CONFIG)
    crc = bytearray(whole)
    crc[-8] ^= 1
    middle = bytearray(whole)
    middle[len(whole) // 2] ^= 1
    for broken in (
        bytes(crc),
        bytes(middle),
        whole[:-1],
        whole[:-4],
        whole[:-8],
        whole[:-20],
        whole[: len(whole) // 2],
    ):
        source.write_bytes(broken)
        refused(source, tmp_path, "the archive is broken")


def test_a_tar_that_ends_early_or_goes_on_behind_its_end(tmp_path: Path) -> None:
    source = tarred(tmp_path / "a.tar", [])
    whole = source.read_bytes()
    with tarfile.open(source) as archive:
        starts = [member.offset for member in archive]
    source.write_bytes(whole[: starts[10]])
    refused(source, tmp_path, "no end mark: empty header")
    source.write_bytes(whole[: starts[10] + 100])
    refused(source, tmp_path, "no end mark: truncated header")
    bad = bytearray(whole)
    bad[starts[10] + 148] ^= 1  # its checksum
    source.write_bytes(bad)
    refused(source, tmp_path, "no end mark: ")
    source.write_bytes(whole + whole)
    refused(source, tmp_path, "there is more behind its end")
    source.write_bytes(whole + bytes(20480))
    assert convert(source, tmp_path / "out", CONFIG).counts["train"]


@pytest.mark.parametrize("cut", [1, 4, 8, None])
def test_a_packed_csv_in_an_archive_is_checked_to_its_end(cut: int | None, painted_csv: Path, tmp_path: Path) -> None:
    content = bytearray(gzip.compress(painted_csv.read_bytes(), 1))
    if cut is None:
        content[-8] ^= 1
    else:
        del content[-cut:]
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "fer2013.csv.gz").write_bytes(content)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(inside, "set")
    shutil.make_archive(str(tmp_path / "b"), "zip", inside)
    for source in (inside, tmp_path / "a.tar", tmp_path / "b.zip"):
        refused(source, tmp_path, "fer2013.csv.gz: the compressed file is broken")


def test_a_zip_with_windows_separators(tmp_path: Path) -> None:
    plain = convert(zipped(tmp_path / "plain.zip", []), tmp_path / "plain", CONFIG)
    names = [("set\\train\\", b""), *((name.replace("/", "\\"), content) for name, content in members().items())]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in names:
            archive.writestr(name, content)
    assert convert(tmp_path / "a.zip", tmp_path / "found", CONFIG).fingerprint == plain.fingerprint
    for name in ("\\evil.png", "\\\\server\\evil.png", "C:\\evil.png", "set\\..\\..\\evil.png", "..\\evil.png"):
        refused(zipped(tmp_path / "b.zip", [(name, b"x")]), tmp_path, "the path leaves the archive")
    first = next(iter(members()))
    for twice in (first.replace("/", "\\"), first.replace("set/", "set/./"), first.replace("set/", "set//")):
        refused(zipped(tmp_path / "c.zip", [(twice, b"x")]), tmp_path, "the same name stands there twice")


def test_folders_and_archives_are_entered_by_one_rule(tree: Path, tmp_path: Path) -> None:
    """Wrapped twice, beside a README, a licence and a data sheet; and as a zip that stands so in a folder."""
    plain = convert(tree, tmp_path / "plain", CONFIG)
    inner = tmp_path / "wrapped" / "Faces v2" / "data"
    shutil.copytree(tree, inner / "faces")
    for path in (
        inner.parent / "README.md",
        inner / "LICENSE",
        inner / "LIESMICH",
        inner.parent / "data sheet.pdf",
        inner / ".DS_Store",
    ):
        path.write_text("read me")
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "wrapped")
    shutil.make_archive(str(tmp_path / "b"), "gztar", tmp_path / "wrapped")
    (tmp_path / "zipped" / "download").mkdir(parents=True)
    shutil.copy(tmp_path / "a.zip", tmp_path / "zipped" / "download")
    (tmp_path / "zipped" / "License.txt").write_text("read me")
    for source in ("wrapped", "a.zip", "b.tar.gz", "zipped"):
        found = convert(tmp_path / source, tmp_path / f"out-{source}", CONFIG)
        assert found.fingerprint == plain.fingerprint, source
        assert audit(tmp_path / source, AuditConfig()).counts == audit(tree, AuditConfig()).counts
    (inner / "more").mkdir()
    refused(tmp_path / "wrapped", tmp_path, "its layout is not one of those known")


def test_a_folder_that_stands_in_itself(tmp_path: Path) -> None:
    (tmp_path / "loop" / "a").mkdir(parents=True)
    (tmp_path / "loop" / "a" / "self").symlink_to(tmp_path / "loop")
    refused(tmp_path / "loop", tmp_path, "^[^ ]*/loop: its layout is not one of those known")


def test_a_set_of_one_label_is_not_entered_too_far(tree: Path, tmp_path: Path) -> None:
    for folder in tree.glob("*/*"):
        if folder.name != "happy":
            shutil.rmtree(folder)
    shutil.rmtree(tree / "val")
    shutil.make_archive(str(tmp_path / "a"), "zip", tree)
    for source in (tree, tmp_path / "a.zip"):
        found = convert(source, tmp_path / f"out-{source.name}", ConvertConfig(val=0.0))
        assert found.counts == {"train": {"happy": 2}}


def test_a_name_that_is_file_and_folder(tmp_path: Path) -> None:
    for first, then in (("set/x", "set/x/a.png"), ("set/x/a.png", "set/x")):
        source = zipped(tmp_path / "a.zip", [(first, b"x"), (then, b"x")])
        refused(source, tmp_path, "both a file and a folder")
