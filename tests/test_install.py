"""What the README and the hints tell people to type installs this package, whatever it was installed from."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deepfer_yolo.errors import install_line

ROOT = Path(__file__).resolve().parents[1]
PRINT = "from deepfer_yolo.errors import install_line; print(install_line('mqtt'))"
HERE = Path(__file__).resolve().as_uri()


def installed(folder: Path, came_from: dict[str, object] | None) -> str:
    """What the package prints where pip has noted so of its source; None for a name from an index."""
    package, notes = folder / "deepfer_yolo", folder / "deepfer_yolo-9.8.7.dist-info"
    package.mkdir()
    notes.mkdir()
    for name in ("__init__.py", "errors.py"):
        shutil.copy(ROOT / "deepfer_yolo" / name, package / name)
    (notes / "METADATA").write_text("Metadata-Version: 2.1\nName: deepfer-yolo\nVersion: 9.8.7\n")
    if came_from is not None:
        (notes / "direct_url.json").write_text(json.dumps(came_from))
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); {PRINT}"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("came_from", "line"),
    [
        (None, 'pip install "deepfer-yolo[mqtt]==9.8.7"'),
        ({"url": Path(HERE[7:]).parent.as_uri(), "dir_info": {}}, f'pip install "{ROOT}/tests[mqtt]"'),
        ({"url": HERE, "archive_info": {}}, f'pip install "deepfer-yolo[mqtt] @ {HERE}"'),
        (
            {"url": "https://me:secret@git.example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc123"}},
            'pip install "deepfer-yolo[mqtt] @ git+https://***@git.example.org/x.git@abc123"',
        ),
        ({"url": "file:///gone/x.whl", "archive_info": {}}, 'pip install ".[mqtt]" in a checkout (file:///gone/x.whl'),
    ],
    ids=["index", "folder", "wheel", "revision", "gone"],
)
def test_a_hint_names_the_place_that_the_package_came_from(
    tmp_path: Path, came_from: dict[str, object] | None, line: str
) -> None:
    assert installed(tmp_path, came_from).startswith(line)


def test_in_a_checkout_the_hint_names_the_checkout() -> None:
    assert install_line("train") == f'pip install --editable "{ROOT}[train]"'


def test_no_line_asks_an_index_for_the_package() -> None:
    files = [ROOT / "README.md", ROOT / "Dockerfile", *ROOT.glob("docs/ci/*"), ROOT / "docs/deploy.md"]
    files += [ROOT / "docs/formats.md", ROOT / "docs/reference.md", ROOT / "datasets/README.md"]
    for file in files:
        text = " ".join(file.read_text(encoding="utf-8").split())
        assert not re.search(r"pip install \"?deepfer-yolo(?!(\[\w+\])? @)", text), file
