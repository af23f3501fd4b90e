"""Data from strangers: archives, images, tables, lists and folders."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepfer_yolo.data import archives

kind = pytest.mark.fault


def zip_of(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def tar_of(path: Path, members: dict[str, bytes]) -> bytes:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path.read_bytes()


@kind("archive: path that leaves it", "a zip with the member `../../out.csv`", "refused by its name, nothing unpacked")
def test_path_that_leaves(fault: Any, table: Path) -> None:
    zip_of(fault.folder / "a.zip", **{"faces.csv": table.read_bytes(), "../../out.csv": b"x"})
    fault.see("convert", "a.zip", "out")


@kind("archive: link in it", "a tar with a symbolic link to `/etc`", "refused by its name, nothing unpacked")
def test_link_member(fault: Any) -> None:
    with tarfile.open(fault.folder / "a.tar", "w") as archive:
        link = tarfile.TarInfo("train")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    fault.see("convert", "a.tar", "out")


@kind("archive: too many members", "more members than the limit", "refused")
def test_too_many_members(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    zip_of(fault.folder / "a.zip", **{f"{i}.txt": b"x" for i in range(4)})
    fault.see("convert", "a.zip", "out")


@kind("archive: too many bytes", "more bytes come out than the limit", "refused, nothing of it stays")
def test_too_many_bytes(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    zip_of(fault.folder / "a.zip", **{"a.txt": bytes(1001)})
    fault.see("convert", "a.zip", "out")


@kind("archive: nested", "a zip in a zip in a zip", "two are opened, the third is no image")
def test_nested(fault: Any, table: Path) -> None:
    content = table.read_bytes()
    for name in ("faces.csv", "a.zip", "b.zip", "c.zip"):
        zip_of(fault.folder / "nested.zip", **{name: content})
        content = (fault.folder / "nested.zip").read_bytes()
    fault.see("convert", "nested.zip", "out")


@kind("archive: same name twice", "a tar with two members of one name", "refused by its name")
def test_same_name(fault: Any) -> None:
    path = fault.folder / "a.tar"
    with tarfile.open(path, "w") as archive:
        for content in (b"x", b"yy"):
            member = tarfile.TarInfo("labels.csv")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    fault.see("convert", "a.tar", "out")


@kind("archive: wrong checksum", "a tar.gz whose CRC-32 is another", "refused, nothing of it stays")
def test_wrong_checksum(fault: Any, table: Path) -> None:
    content = bytearray(gzip.compress(tar_of(fault.folder / "a.tar", {"faces.csv": table.read_bytes()}), mtime=0))
    content[-6] ^= 1
    (fault.folder / "a.tar.gz").write_bytes(content)
    fault.see("convert", "a.tar.gz", "out")


@kind("archive: trailer cut off", "a tar.gz without its last 4 bytes", "refused, nothing of it stays")
def test_cut_trailer(fault: Any, table: Path) -> None:
    content = gzip.compress(tar_of(fault.folder / "a.tar", {"faces.csv": table.read_bytes()}), mtime=0)
    (fault.folder / "a.tar.gz").write_bytes(content[:-4])
    fault.see("convert", "a.tar.gz", "out")


@kind("archive: half of it", "the first half of a zip", "refused, nothing of it stays")
def test_half_a_zip(fault: Any, table: Path) -> None:
    path = fault.folder / "a.zip"
    zip_of(path, **{"faces.csv": table.read_bytes(), "more.csv": b"x"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    fault.see("convert", "a.zip", "out")


@kind("archive: members swallowed", "a zip whose list says a member's comment is 4 kB long", "refused by its count")
def test_swallowed_members(fault: Any) -> None:
    path = fault.folder / "a.zip"
    zip_of(path, **{"a.txt": b"x", "b.txt": b"x"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 33] = 16
    path.write_bytes(content)
    fault.see("convert", "a.zip", "out")


@kind("image: cut off", "a JPEG without its second half, beside a whole image", "a row with its error; exit 4")
def test_cut_jpeg(fault: Any, model: Path, face: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (64, 64, 3)).astype(np.uint8)).save(content, "JPEG")
    (face.parent / "cut.jpg").write_bytes(content.getvalue()[: len(content.getvalue()) // 2])
    assert fault.see("predict", "faces", "-m", model.name, code=4).stdout.count("\n") == 2


@kind("image: too many pixels", "a small file of 60 million pixels", "refused before it is decoded; exit 4")
def test_too_many_pixels(fault: Any, model: Path, face: Path) -> None:
    Image.new("1", (10_000, 6_000)).save(face.parent / "large.png")
    assert "60000000" not in fault.see("predict", "faces", "-m", model.name, code=4).stdout


@kind("image: no image at all", "a text called `note.png`, alone", "one line says what it is")
def test_no_image(fault: Any, model: Path) -> None:
    (fault.folder / "note.png").write_text("hello\n")
    fault.see("predict", "note.png", "-m", model.name)


@kind("image: pipe", "a FIFO among the images of a source", "named, never opened")
def test_pipe(fault: Any, data: Path) -> None:
    os.mkfifo(data / "train" / "happy" / "pipe.png")
    (data / "manifest.csv").unlink()
    (data / "dataset.json").unlink()
    fault.see("convert", "data", "out")


@kind("image: device", "`/dev/zero` instead of an image", "one line, without an end of reading")
def test_device(fault: Any, model: Path) -> None:
    fault.see("predict", "/dev/zero", "-m", model.name)


@kind("image: folder in its place", "a folder called `face.png`, which a list names", "one line says what it is")
def test_folder_in_place(fault: Any, data: Path, model: Path) -> None:
    image = next((data / "val").rglob("*.png"))
    image.unlink()
    image.mkdir()
    fault.see("evaluate", "data", "-m", model.name)


@kind(
    "image: 12 bits in 16", "a 16-bit PNG that uses 12 of them and does not say so", "refused with the reason; exit 4"
)
def test_twelve_bits(fault: Any, model: Path, face: Path) -> None:
    deep = np.random.RandomState(0).randint(0, 4096, (48, 48)).astype(np.uint16)
    Image.fromarray(deep).save(face.parent / "deep.png")
    fault.see("predict", "faces", "-m", model.name, code=4)


@kind("image: floats of no known range", "a 32-bit float TIFF from 0 to 900", "refused with the reason; exit 4")
def test_floats(fault: Any, model: Path, face: Path) -> None:
    Image.fromarray(np.linspace(0, 900, 48 * 48, dtype=np.float32).reshape(48, 48)).save(face.parent / "float.tif")
    fault.see("predict", "faces", "-m", model.name, code=4)


@kind("table: open quotation mark", 'a csv with one `"` too many', "refused with file and line")
def test_open_quotation(fault: Any, table: Path) -> None:
    table.write_text(table.read_text().replace("PublicTest", '"PublicTest', 1))
    fault.see("convert", "faces.csv", "out")


@kind("table: no line breaks", "a csv whose lines stand in one", "refused with file and line, without reading on")
def test_no_line_breaks(fault: Any, table: Path) -> None:
    table.write_text(table.read_text().splitlines()[0] + "\n" + table.read_text().replace("\n", " "))
    fault.see("convert", "faces.csv", "out")


@kind("table: wrong number of columns", "a row of a csv without its last value", "refused with file and line")
def test_wrong_columns(fault: Any, table: Path) -> None:
    table.write_text(table.read_text().replace(",PublicTest", "", 1))
    fault.see("convert", "faces.csv", "out")


@kind("table: empty", "a csv of 0 bytes", "refused")
def test_empty_table(fault: Any) -> None:
    (fault.folder / "faces.csv").touch()
    fault.see("convert", "faces.csv", "out")


@kind("table: NUL", "a csv with a NUL byte in a label", "refused with file and line")
def test_nul_in_a_table(fault: Any, table: Path) -> None:
    table.write_text(table.read_text().replace("PublicTest", "Public\0Test", 1))
    fault.see("convert", "faces.csv", "out")


@kind("list: of another data set", "`--exclude` names an image that is not there", "refused with the name")
def test_strangers_list(fault: Any, table: Path) -> None:
    (fault.folder / "bad.csv").write_text("picture,finding,why\nfaces.csv row 99,blank,all one grey\n")
    fault.see("convert", "faces.csv", "out", "--exclude", "bad.csv")


@kind("list: no such list", "`--exclude` names no file", "refused")
def test_no_list(fault: Any, table: Path) -> None:
    fault.see("convert", "faces.csv", "out", "--exclude", "bad.csv")


@kind("folder: link to itself", "a source that is a link to itself", "one clear line")
def test_link_to_itself(fault: Any) -> None:
    (fault.folder / "loop").symlink_to("loop")
    fault.see("convert", "loop", "out")


@kind("folder: stands in itself", "a link in a source that leads back to the source", "refused with its name")
def test_folder_in_itself(fault: Any, data: Path) -> None:
    (data / "manifest.csv").unlink()
    (data / "dataset.json").unlink()
    (data / "train" / "happy" / "again").symlink_to("../../../data")
    fault.see("convert", "data", "out")


@kind("folder: destination in the source", "`convert data data/out`", "refused, the source is never written to")
def test_destination_in_source(fault: Any, data: Path) -> None:
    fault.see("convert", "data", "data/out")


@kind("name: NUL", "a manifest with a NUL byte in a path", "refused with file and line")
def test_nul_in_a_manifest(fault: Any, data: Path, model: Path) -> None:
    manifest = data / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("val/", "val/\0", 1))
    fault.see("evaluate", "data", "-m", model.name)
