"""A detection set of Pascal VOC: an xml beside each image or in a folder of its own.

    Annotations/a.xml    JPEGImages/a.jpg    ImageSets/Main/train.txt    or annotations/ and images/
    train/a.xml          train/a.jpg         valid/…                     as Roboflow writes it

    <annotation><filename>a.jpg</filename><size><width>640</width><height>480</height></size>
      <object><name>happy</name>
        <bndbox><xmin>100</xmin><ymin>200</ymin><xmax>260</xmax><ymax>360</ymax></bndbox></object>
    </annotation>

Each box becomes one image; its numbers are taken as edges, which is at most a pixel beside what VOC's own tools mean.
The split is that of ImageSets/Main, where trainval stands for an absent train, or of the folders. An xml that declares
a document type is refused: entities may unfold to anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from xml.parsers import expat

from deepfer_yolo.data.image_formats import is_image, why_left_out
from deepfer_yolo.data.layouts.boxes import Box
from deepfer_yolo.data.layouts.class_tree import SPLIT_NAMES
from deepfer_yolo.data.layouts.item import Item, Layout, Listed, Reading, items_of, read_lines
from deepfer_yolo.data.untrusted import MAX_DEPTH, Problems, folders_in, is_file_name, walk_files
from deepfer_yolo.errors import DatasetError

XML_FOLDERS = ("annotations", "annotation", "xmls", "labels")
IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "JPEGImage")
SETS = "ImageSets/Main"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
SIZE = ("width", "height")
MAX_BYTES = 1_000_000
"""Of one xml; an outline of a thousand points has about 60,000."""
N_FIRST = 60


def matches(source: Path) -> bool:
    """True for a folder whose first xml, in its annotations or split folders or beside its images, is VOC's."""
    if not source.is_dir():
        return False
    names = {*XML_FOLDERS, *SPLIT_NAMES}
    children = [path for path in folders_in(source) if path.name.lower() in names]
    return any(is_voc(file) for folder in children for file in _first_xmls(folder)) or any(
        map(is_voc, sorted(source.glob("[!.]*.xml"))[:1])
    )


def read(reading: Reading) -> Iterator[Item]:
    """One item a box; `source_id` is the image's path in the source and, from the second face on, its number."""
    root = reading.source
    files = list(walk_files(root, reading.problems))
    xmls = [file for file in files if file.suffix.lower() == ".xml"]
    if not xmls:
        raise DatasetError("holds no xml of boxes", "expected Annotations/a.xml beside JPEGImages/a.jpg", path=root)
    folders = {folder: _image_folder(root, folder) for folder in dict.fromkeys(file.parent for file in xmls)}
    beside = [file for file in files if file.parent in folders.values()]
    images = _Images(file for file in files if is_image(file) and not file.parent.name.startswith("Segmentation"))
    others = (file for file in beside if not is_image(file) and file.suffix.lower() not in (".xml", ".txt"))
    reading.left_out.update(map(why_left_out, others))
    splits, listed = _listed_splits(reading), Listed(reading)
    for done, file in enumerate(xmls):
        reading.fraction = done / len(xmls)
        place = file.relative_to(root).as_posix()
        for annotation in _parsed(reading, place, file):
            image = images.take(folders[file.parent], file.stem, annotation.values.get("filename", ""))
            split = _split_of(reading, file, splits)
            if split is None:
                continue
            if not annotation.objects:
                reading.left_out["images without boxes"] += 1
            rows = ((f"{place}, object {n}", row) for n, row in enumerate(annotation.objects, 1))
            yield from items_of(reading, rows, partial(_face, listed, image, split, annotation.size))
    if images.n_left:
        reading.left_out["images without an xml"] += images.n_left


class _Images:
    """The images of the source by folder and name without ending, and which of them no xml has asked for."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files: dict[tuple[Path, str], list[Path]] = {}
        for file in files:
            self._files.setdefault((file.parent, file.stem), []).append(file)
        self._met: set[tuple[Path, str]] = set()

    @property
    def n_left(self) -> int:
        """Images that were not asked for."""
        return sum(len(files) for key, files in self._files.items() if key not in self._met)

    def take(self, folder: Path, stem: str, name: str) -> Path:
        """The image with an xml's own name; else, or where several bear it, the one that the xml names."""
        found = self._files.get((folder, stem), [])
        if len(found) != 1 and is_file_name(name):
            stem, found = Path(name).stem, [folder / name]
        self._met.add((folder, stem))
        return found[0] if found else folder / f"{stem}.jpg"


def _face(
    listed: Listed, image: Path, split: str, size: tuple[int, int] | None, place: str, row: Mapping[str, str]
) -> Item | None:
    label = row.get("name", "")
    if not label:
        raise ValueError("has no name")
    missing = [corner for corner in CORNERS if corner not in row]
    if missing:
        raise ValueError(f"has no bndbox with {missing[0]}")
    try:
        corners = [float(row[corner]) for corner in CORNERS]
    except ValueError:
        raise ValueError(f"bndbox is {','.join(row[c] for c in CORNERS)[:80]}, not four numbers") from None
    inside = image.relative_to(listed.reading.source).as_posix()
    return listed.item(place, image, label, split, inside, Box.of(corners, size=size))


@dataclass(slots=True)
class _Annotation:
    """What an xml says: the texts at its top and of its size, and those of each object."""

    values: dict[str, str] = field(default_factory=dict)
    objects: list[dict[str, str]] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the image; None where they are not told, or 0 as some tools write."""
        width, height = (self.values.get(side, "") for side in SIZE)
        is_told = all(side.isascii() and side.isdigit() and len(side) < 7 for side in (width, height))
        return (int(width), int(height)) if is_told and int(width) and int(height) else None


def _parsed(reading: Reading, place: str, file: Path) -> Iterator[_Annotation]:
    """The annotation in an xml; nothing where it cannot be read, which becomes a problem."""
    if file.stat().st_size > MAX_BYTES:
        reading.problems.add(place, f"larger than {MAX_BYTES // 1_000_000} MB")
        return
    try:
        yield parse(file.read_bytes())
    except (ValueError, LookupError, expat.ExpatError) as error:  # LookupError: an encoding that is none
        reading.problems.add(place, str(error))


def parse(content: bytes) -> _Annotation:
    """A VOC xml. Raises ValueError or ExpatError for anything else, before any entity is unfolded."""
    annotation, path, texts = _Annotation(), list[str](), list[str]()
    keys = {"annotation/filename": "filename", **{f"annotation/size/{side}": side for side in SIZE}}
    own = {"annotation/object/name": "name", **{f"annotation/object/bndbox/{corner}": corner for corner in CORNERS}}

    def start(name: str, _: object) -> None:
        path.append(name)
        texts.clear()
        if path[0] != "annotation":
            raise ValueError(f"begins with <{name[:40]}>, not <annotation>")
        if len(path) > MAX_DEPTH:
            raise ValueError("nested too deep")
        if path == ["annotation", "object"]:
            annotation.objects.append({})

    def end(_: str) -> None:
        here, text = "/".join(path), "".join(texts).strip()
        into = annotation.values if here in keys else annotation.objects[-1] if here in own else None
        if into is not None:
            key = keys.get(here) or own[here]
            if key in into:
                raise ValueError(f"{here} stands there twice")
            into[key] = text
        path.pop()
        texts.clear()

    def refuse(*_: object) -> None:
        raise ValueError("declares a document type or entities, which are not read")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = texts.append
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.Parse(content, True)
    return annotation


def _image_folder(root: Path, folder: Path) -> Path:
    """Where the images of a folder of xml files lie: JPEGImages or images in place of annotations, else beside them."""
    parts = folder.relative_to(root).parts
    for at in range(len(parts) - 1, -1, -1):
        if parts[at].lower() in XML_FOLDERS:
            places = [root.joinpath(*parts[:at], name, *parts[at + 1 :]) for name in IMAGE_FOLDERS]
            return next((place for place in places if place.is_dir()), folder)
    return folder


def _listed_splits(reading: Reading) -> dict[str, str] | None:
    """The split of each name in ImageSets/Main; None where it lists none."""
    folder = reading.source / SETS
    splits: dict[str, str] = {}
    lists = {folder / f"{word}.txt": split for word, split in SPLIT_NAMES.items()}
    lists = {file: split for file, split in lists.items() if file.is_file()}
    if "train" not in lists.values() and (both := folder / "trainval.txt").is_file():
        lists[both] = "train"
    for file, split in lists.items():
        for place, line in read_lines(file, reading):
            name = line.strip()
            if splits.setdefault(name, split) != split:
                reading.problems.add(f"{SETS}/{place}", f"'{name[:80]}' is in {splits[name]} and in {split}")
    return splits or None


def _split_of(reading: Reading, file: Path, splits: dict[str, str] | None) -> str | None:
    """The split of an xml; None where the lists leave it out, which is counted."""
    if splits is None:
        folders = file.relative_to(reading.source).parts[:-1]
        return next((SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES), "")
    if file.stem not in splits:
        reading.left_out[f"images that no list in {SETS} names"] += 1
        return None
    return splits[file.stem]


def _first_xmls(folder: Path) -> Iterator[Path]:
    """The first xml under a folder, if there is one among its first files."""
    for n, file in enumerate(walk_files(folder, Problems())):
        if file.suffix.lower() == ".xml":
            yield file
        if n > N_FIRST or file.suffix.lower() == ".xml":
            return


def is_voc(file: Path) -> bool:
    """Whether an xml begins as VOC's do."""
    if file.stat().st_size > MAX_BYTES:
        return False
    with file.open("rb") as content:
        return b"<annotation" in content.read(4096)


LAYOUT = Layout("voc", title="", source="", licence="unknown", matches=matches, read=read)
