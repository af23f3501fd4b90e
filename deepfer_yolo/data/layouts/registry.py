"""The known layouts, and which of them a source is."""

from __future__ import annotations

from pathlib import Path

from deepfer_yolo.data.layouts import (
    affectnet,
    ckplus,
    class_tree,
    coco,
    deepfer,
    expw,
    fer2013,
    ferg,
    ferplus_folder,
    imagefolder,
    jaffe,
    kdef,
    muxspace,
    parquet,
    rafdb,
    roboflow,
    table,
    voc,
    webdataset,
    yolo_detection,
)
from deepfer_yolo.data.layouts.item import Layout
from deepfer_yolo.data.layouts.two_truths import refuse_boxes_beside, refuse_two_truths
from deepfer_yolo.data.untrusted import MAX_DEPTH, listing, printable
from deepfer_yolo.errors import ConfigError, DatasetError

_IN_ORDER = (
    deepfer.LAYOUT, fer2013.CSV, fer2013.FOLDER, ferplus_folder.LAYOUT, rafdb.LAYOUT, affectnet.CSV, affectnet.NPY,
    affectnet.FOLDERS, ckplus.LAYOUT, jaffe.LAYOUT, kdef.LAYOUT, expw.LAYOUT, ferg.LAYOUT, muxspace.LAYOUT,
    roboflow.BOXED, roboflow.ONE_HOT, coco.LAYOUT, voc.LAYOUT, yolo_detection.LAYOUT, parquet.LAYOUT,
    webdataset.LAYOUT, imagefolder.LAYOUT, table.LAYOUT, class_tree.LAYOUT,
)  # fmt: skip
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _IN_ORDER}
"""By name, in the order in which `auto` tries them: the particular before the general."""
BOXED = (roboflow.BOXED, coco.LAYOUT, voc.LAYOUT, yolo_detection.LAYOUT)
RECOGNISED = [layout for layout in _IN_ORDER if not layout.is_on_request]

NOTES = ("readme", "license", "licence", "copying", "copyright", "notice", "citation", "changelog", "datasheet")
NOTE_SUFFIXES = (".md", ".txt", ".rst", ".pdf", ".html", ".htm", ".doc", ".docx", ".odt", ".rtf", ".bib", ".url")
FOREIGN_ARCHIVES = (".7z", ".rar", ".zst", ".lz4", ".bz2", ".xz")


def find_layout(source: Path, name: str) -> Layout:
    """The layout called `name`, or for `auto` the first that recognises `source`.

    Raises DatasetError where the source is not there, none recognises it, or two things in it say what its images show,
    ConfigError for an unknown name.
    """
    if name != "auto" and name not in LAYOUTS:
        raise ConfigError(f"unknown layout '{name}'", f"known: auto, {', '.join(LAYOUTS)}")
    if not source.exists():
        raise DatasetError("no such file or folder", "check the path", path=source)
    if not source.is_dir() and not source.is_file():
        raise DatasetError("neither a file nor a folder", "check the path", path=source)
    if name != "auto":
        return LAYOUTS[name]
    for layout in RECOGNISED:
        if layout.matches(source):
            if layout in (imagefolder.LAYOUT, table.LAYOUT, class_tree.LAYOUT):
                refuse_two_truths(source)
            if layout is class_tree.LAYOUT:
                refuse_boxes_beside(source)
            if layout in BOXED:
                _refuse_two_layouts(source, layout)
            return layout
    raise DatasetError("its layout is not one of those known", _hint(source), path=source)


def _refuse_two_layouts(source: Path, found: Layout) -> None:
    """Raise DatasetError where the images of a detection set are labelled in a second form too."""
    others = [layout for layout in BOXED if layout is not found and layout.matches(source)]
    if found is not roboflow.BOXED and table.matches(source):  # whose csv is a table as well
        others.append(table.LAYOUT)
    if others:
        names = [layout.name for layout in (found, *others)]
        reason = f"several things say what its images show: it can be read as {', '.join(names)}"
        hint = f"{' or '.join(f'--layout {name}' for name in names)} says which of them holds"
        raise DatasetError(reason, hint, path=source)


def entered(source: Path, name: str = "auto") -> Path:
    """`source`, or what stands alone in it, and alone in that: data is often wrapped in folders, beside a README or a
    licence. A folder that the layout called `name` (with `auto`: any) recognises is not entered any further.
    """
    layouts = [LAYOUTS[name]] if name in LAYOUTS else RECOGNISED
    above: list[Path] = []
    while source.is_dir() and len(above) < MAX_DEPTH:
        above.append(source)
        inside = [path for path in listing(source) if not _is_note(path)]
        if len(inside) != 1 or any(layout.matches(source) for layout in layouts):
            break
        source = inside[0]
        if any(source.samefile(folder) for folder in above if source.exists()):
            return above[0]
    return source


def _is_note(path: Path) -> bool:
    """Whether a file speaks about the data beside it (README, licence, data sheet), or is what systems leave behind."""
    name = path.name.lower()
    if name.startswith((".", "__macosx")):
        return True
    is_text = path.suffix.lower() in ("", *NOTE_SUFFIXES) or name in ("thumbs.db", "desktop.ini")
    return (is_text or name.startswith(NOTES)) and path.is_file()


def _hint(source: Path) -> str:
    again = "--layout NAME reads it as a given layout and says what is wrong"
    if source.is_dir():
        tables = [
            path for path in listing(source) if fer2013.matches_csv(path) or (path.is_file() and table.is_table(path))
        ]
        if tables:
            names = f" ({', '.join(printable(path.name) for path in tables[:10])})" if len(tables) > 1 else ""
            return f"it holds {len(tables)} tables{names}; name one: deepfer convert {tables[0]}"
        return f"expected SPLIT/LABEL/image or LABEL/image; {again}"
    if source.stat().st_size == 0:
        return "the file is empty"
    if source.suffix.lower() in FOREIGN_ARCHIVES:
        return "zip and tar (gz, bz2, xz) are read as they are; unpack this one first"
    return f"{again}; known: {', '.join(LAYOUTS)}"
