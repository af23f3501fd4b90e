"""What every page offers beside itself: the source code of this program, which its licence asks for."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
PAGE = Path(__file__).parent / "page"
SUFFIXES = frozenset({".py", ".html", ".js", ".css", ".svg", ".png", ".webmanifest", ".yaml", ".typed"})
EPOCH = (2026, 1, 1, 0, 0, 0)
"""One date for all members, so that the same source is the same file."""


@cache
def source_zip() -> bytes:
    """The package as it is installed here, with its licence."""
    own = (path for path in PACKAGE.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    members = {f"deepfer_yolo/{path.relative_to(PACKAGE)}": path.read_bytes() for path in sorted(own)} | _beside()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), text, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _beside() -> dict[str, bytes]:
    """Licence and build file: from the source tree where there is one, else from the installed distribution."""
    found = {
        name: path.read_bytes()
        for name in ("LICENSE", "pyproject.toml", "README.md")
        if (path := PACKAGE.parent / name).is_file()
    }
    if "LICENSE" not in found:
        for file in metadata.files("deepfer-yolo") or []:
            if file.name in ("LICENSE", "METADATA"):
                found[file.name] = file.read_binary()
    return found
