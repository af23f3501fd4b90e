"""The program's own source as a zip: what the AGPL lets everyone ask for who uses it over a network."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
SUFFIXES = frozenset({".py", ".html", ".js", ".css", ".svg", ".yaml", ".typed"})
EPOCH = (2026, 1, 1, 0, 0, 0)
"""One date for all members, so that the same source is the same file."""


@cache
def source_zip() -> bytes:
    """The package as it is installed here, with its licence."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(PACKAGE.rglob("*")):
            if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in path.parts:
                _add(archive, f"deepfer_yolo/{path.relative_to(PACKAGE)}", path.read_bytes())
        for name, text in _beside().items():
            _add(archive, name, text)
    return content.getvalue()


def _beside() -> dict[str, bytes]:
    """Licence and build file: from the source tree where there is one, else from the installed distribution."""
    found = {name: path.read_bytes() for name in ("LICENSE", "pyproject.toml", "README.md") if (path := PACKAGE.parent / name).is_file()}
    if "LICENSE" not in found:
        for file in metadata.files("deepfer-yolo") or []:
            if file.name in ("LICENSE", "METADATA"):
                found[file.name] = file.read_binary()
    return found


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
