"""The known layouts, and which of them a source is."""

from __future__ import annotations

from pathlib import Path

from deepfer_yolo.data.layouts import class_tree, fer2013_csv, folder
from deepfer_yolo.data.layouts.item import Layout
from deepfer_yolo.errors import ConfigError, DatasetError

LAYOUTS: dict[str, Layout] = {module.LAYOUT.name: module.LAYOUT for module in (folder, fer2013_csv, class_tree)}
"""By name, in the order in which `auto` tries them: the particular before the general."""


def find_layout(source: Path, name: str) -> Layout:
    """The layout called `name`, or for `auto` the first that recognises `source`.

    Raises DatasetError where the source is not there or none recognises it, ConfigError for an unknown name.
    """
    if not source.exists():
        raise DatasetError(f"no such file or folder: {source}", "check the path")
    if name != "auto":
        if name not in LAYOUTS:
            raise ConfigError(f"unknown layout '{name}'", f"known: auto, {', '.join(LAYOUTS)}")
        return LAYOUTS[name]
    for layout in LAYOUTS.values():
        if layout.matches(source):
            return layout
    raise DatasetError(f"the layout of {source} is not one of those known", _hint(source))


def _hint(source: Path) -> str:
    if source.is_file() and source.stat().st_size == 0:
        return "the file is empty"
    if source.is_dir():
        return "expected SPLIT/LABEL/picture or LABEL/picture; --layout NAME reads it as a given layout and says what is wrong"
    return f"--layout NAME reads it as a given layout and says what is wrong; known: {', '.join(LAYOUTS)}"
