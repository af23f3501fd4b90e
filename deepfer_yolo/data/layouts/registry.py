"""The known layouts, and which of them a source is."""

from __future__ import annotations

from pathlib import Path

from deepfer_yolo.data.layouts import (
    affectnet_csv,
    affectnet_npy,
    ckplus,
    class_tree,
    expw,
    fer2013_csv,
    fer2013_folder,
    ferplus_folder,
    folder,
    jaffe,
    kdef,
    rafdb,
    table,
)
from deepfer_yolo.data.layouts.item import Layout
from deepfer_yolo.errors import REASON_FIRST, SENTENCE, ConfigError, DatasetError

_MODULES = (
    folder, fer2013_csv, fer2013_folder, ferplus_folder, rafdb, affectnet_csv, affectnet_npy, ckplus, jaffe, kdef, expw, table, class_tree,
)  # fmt: skip
LAYOUTS: dict[str, Layout] = {module.LAYOUT.name: module.LAYOUT for module in _MODULES}
"""By name, in the order in which `auto` tries them: the particular before the general."""

FOREIGN_ARCHIVES = (".7z", ".rar", ".zst", ".lz4", ".bz2", ".xz")


def find_layout(source: Path, name: str) -> Layout:
    """The layout called `name`, or for `auto` the first that recognises `source`.

    Raises DatasetError where the source is not there or none recognises it, ConfigError for an unknown name.
    """
    if name != "auto" and name not in LAYOUTS:
        raise ConfigError(f"unknown layout '{name}'", f"known: auto, {', '.join(LAYOUTS)}")
    if not source.exists():
        raise DatasetError("no such file or folder", "check the path", path=source, form=REASON_FIRST)
    if not source.is_dir() and not source.is_file():
        raise DatasetError("neither a file nor a folder", "check the path", path=source, form=REASON_FIRST)
    if name != "auto":
        return LAYOUTS[name]
    for layout in LAYOUTS.values():
        if layout.matches(source):
            return layout
    raise DatasetError("is not one of those known", _hint(source), path=source, form=f"the layout of {SENTENCE}")


def _hint(source: Path) -> str:
    if source.is_file() and source.stat().st_size == 0:
        return "the file is empty"
    if source.is_dir():
        return "expected SPLIT/LABEL/picture or LABEL/picture; --layout NAME reads it as a given layout and says what is wrong"
    if source.suffix.lower() in FOREIGN_ARCHIVES:
        return "zip and tar (gz, bz2, xz) are read as they are; unpack this one first"
    return f"--layout NAME reads it as a given layout and says what is wrong; known: {', '.join(LAYOUTS)}"
