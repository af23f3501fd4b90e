"""Hostile input: archives, folders, pictures, names, and kills at any moment."""

from __future__ import annotations

import io
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data import archives
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import Row, load_images, open_dataset, read_manifest, write_manifest
from deepfer_yolo.data.images import SIGNATURE, load_image
from deepfer_yolo.data.untrusted import leaves_folder
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import DatasetError, ImageTooLargeError
from deepfer_yolo.painted import paint_csv, paint_faces

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


def write_tree(root: Path) -> Path:
    for name, content in members().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root / "set"


def test_loops_dangling_links_and_pipes_in_a_folder(tmp_path: Path) -> None:
    tree = write_tree(tmp_path)
    happy = tree / "train" / "happy"
    (happy / "loop").symlink_to(tree / "train" / "happy")
    (happy / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(happy / "pipe.png")
    with pytest.raises(DatasetError) as caught:
        convert(tree, tmp_path / "out", CONFIG)
    for what in (
        "loop: a link leads to this folder a second time",
        "gone.png: a link that leads nowhere",
        "pipe.png: not a regular file",
    ):
        assert what in caught.value.message
    assert "3 problems" in caught.value.message


def test_file_names_from_hell(tmp_path: Path) -> None:
    tree = write_tree(tmp_path)
    happy = os.fsencode(tree / "train" / "happy")
    names = [
        b"new\nline.png",
        "😀.png".encode(),
        b"\xff\xfe.png",
        b'quote",comma.png',
        b" blank .png",
        b"-rf.png",
        b"\x1b[31m.png",
        b"a" * 200 + b".png",
    ]
    for index, name in enumerate(names):
        Path(os.fsdecode(os.path.join(happy, name))).write_bytes(png(index))  # noqa: PTH118
    convert(tree, tmp_path / "out", CONFIG)
    dataset = open_dataset(tmp_path / "out")
    rows = [row for row in dataset.all_rows if os.fsencode(row.source_id).removeprefix(b"train/happy/") in names]
    assert len(rows) == len(names)
    assert sum(1 for _ in load_images(dataset, rows)) == len(names)
    assert all(row.path.isprintable() for row in rows)


def bomb_png(width: int, height: int) -> bytes:
    """A valid one-bit PNG of nothing but zeros."""
    line = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj(1)
    content = b"".join([packer.compress(line * 100) for _ in range(height // 100)]) + packer.flush()
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x01\x00\x00\x00\x00"
    parts = ((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))
    return SIGNATURE + b"".join(
        len(c).to_bytes(4, "big") + k + c + zlib.crc32(k + c).to_bytes(4, "big") for k, c in parts
    )


def test_a_picture_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = bomb_png(30000, 30000)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ImageTooLargeError, match="more than 50,000,000 pixels"):
        load_image(bomb)
    assert time.process_time() - start < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000


def test_a_long_gif_and_a_long_jpeg(tmp_path: Path) -> None:
    frames = [PillowImage.new("L", (4, 4), index % 256) for index in range(10_000)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "a.gif").shape == (4, 4, 3)
    PillowImage.new("L", (65500, 8)).save(tmp_path / "b.jpg")
    assert load_image(tmp_path / "b.jpg").shape == (8, 65500, 3)


def test_a_csv_line_without_end_is_bounded(tmp_path: Path) -> None:
    """A sparse file of 2 GB without one line break, read within 300 MB."""
    source = tmp_path / "long.csv"
    with source.open("wb") as file:
        file.write(b"emotion,pixels,Usage\n0,")
        file.truncate(2 << 30)
    code = f"""
import resource
from pathlib import Path
resource.setrlimit(resource.RLIMIT_DATA, (300 << 20, 300 << 20))
from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.convert import convert
from deepfer_yolo.errors import DatasetError
try:
    convert(Path({str(source)!r}), Path({str(tmp_path / "out")!r}), ConvertConfig())
except DatasetError as error:
    print(error.message)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "line 2: longer than" in result.stdout, result.stderr


def killed_conversions(tmp_path: Path, points: int, n: int) -> None:
    """SIGKILL at random moments of an overwriting conversion: the folder is the old one, absent or the new one, and
    always whole.
    """
    source = tmp_path / "new.csv"
    paint_csv(source, 1, n, 70)
    small = tmp_path / "old.csv"
    paint_csv(small, 2, 70, 70)
    target = tmp_path / "out"
    fingerprints = {convert(source, tmp_path / "ref", CONFIG).fingerprint: n + 70}
    fingerprints[convert(small, target, CONFIG).fingerprint] = 140
    command = [sys.executable, "-m", "deepfer_yolo", "convert", str(source), str(target), "--overwrite"]

    def begin() -> subprocess.Popen[bytes]:
        """A conversion that has begun to write."""
        before = set(tmp_path.iterdir())
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while set(tmp_path.iterdir()) <= before and process.poll() is None:
            time.sleep(0.001)
        return process

    process = begin()
    start = time.monotonic()
    assert process.wait() == 0
    writing_s = time.monotonic() - start
    chance = random.Random(0)
    n_killed = 0
    while n_killed < points:
        process = begin()
        time.sleep(chance.random() * writing_s)
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            writing_s *= 0.95  # it was faster this time, and over before the kill
            continue
        assert process.returncode == -signal.SIGKILL
        n_killed += 1
        if target.exists():
            dataset = open_dataset(target)
            assert fingerprints[dataset.fingerprint] == len(dataset.all_rows)
            assert all((target / row.path).stat().st_size for row in dataset.all_rows)
    subprocess.run(command, check=True, capture_output=True)
    assert open_dataset(target).fingerprint == next(iter(fingerprints))


def test_killed_at_three_moments(tmp_path: Path) -> None:
    killed_conversions(tmp_path, 3, 140)


@pytest.mark.slow
def test_killed_at_fifty_moments(tmp_path: Path) -> None:
    killed_conversions(tmp_path, 50, 700)


text = st.text(st.characters(exclude_characters="\0", exclude_categories=[]), min_size=1, max_size=30).filter(
    lambda value: not any("\ud800" <= c <= "\udfff" and not "\udc80" <= c <= "\udcff" for c in value)
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.tuples(text, text, text), max_size=6))
def test_manifests_round_trip_any_file_name(names: list[tuple[str, str, str]], tmp_path: Path) -> None:
    rows = [Row(path, "train", "happy", source, subject, "00", "happy:1") for path, source, subject in names]
    # What the file system gives for bytes that are not UTF-8 are lone surrogates; pairs of them that spell a character
    # are not among those.
    rows = [
        row
        for row in rows
        if os.fsdecode(os.fsencode(row.path + row.source_id + row.subject)) == row.path + row.source_id + row.subject
        and not leaves_folder(row.path)
    ]
    write_manifest(rows, tmp_path)
    assert read_manifest(tmp_path) == rows


def test_a_data_set_folder_from_a_stranger(painted_dataset: Path, tmp_path: Path) -> None:
    for old, new, what in (
        ("train/happy/", "../../etc/", "leaves the data set folder"),
        (",happy,", ",../../evil,", r"label '\.\./\.\./evil' is not among"),
    ):
        folder = tmp_path / what[:5].strip()
        shutil.copytree(painted_dataset, folder)
        manifest = (folder / "manifest.csv").read_text().replace(old, new, 1)
        (folder / "manifest.csv").write_text(manifest)
        with pytest.raises(DatasetError, match=what):
            open_dataset(folder)
        described = (folder / "dataset.json").read_text().replace('"happy"', '"../../evil"', 1)
        (folder / "dataset.json").write_text(described)
        with pytest.raises(DatasetError):
            convert(folder, tmp_path / "out", CONFIG)
    (folder / "dataset.json").write_text('{"name": 1, "labels": 5, "fingerprint": 2}')
    with pytest.raises(DatasetError, match="labels Input should be a valid array"):
        open_dataset(folder)


def test_sources_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DatasetError, match="neither a file nor a folder"):
        convert(tmp_path / "pipe.csv", tmp_path / "out", CONFIG)
