"""What the README and the hints tell people to type installs this package, whatever it was installed from."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
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


def readme_lines() -> list[list[str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [shlex.split(line, comments=True)[1:] for line in re.findall(r"^pip install .*$", text, re.MULTILINE)]


def test_no_line_asks_an_index_for_the_package() -> None:
    files = [ROOT / "README.md", ROOT / "Dockerfile", *ROOT.glob("docs/ci/*"), ROOT / "docs/deploy.md"]
    files += [ROOT / "docs/formats.md", ROOT / "docs/reference.md", ROOT / "datasets/README.md"]
    for file in files:
        text = " ".join(file.read_text(encoding="utf-8").split())
        assert not re.search(r"pip install \"?deepfer-yolo(?!(\[\w+\])? @)", text), file


@pytest.mark.slow
def test_the_lines_of_the_readme_in_a_fresh_environment(tmp_path: Path) -> None:
    """The base install for real, those with large extras as far as pip's resolver, then the line that a hint prints."""
    venv.create(tmp_path / "fresh", with_pip=True)
    bin_dir = tmp_path / "fresh" / "bin"
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(words: Sequence[str | Path], cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        command = list(map(str, words))
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=900, env=alone)

    pip = (bin_dir / "python", "-m", "pip", "--disable-pip-version-check")
    if run([*pip, "download", "--no-deps", "--quiet", "paho-mqtt"]).returncode:
        pytest.skip("pip reaches no index here")
    lines = readme_lines()
    assert ["install", "."] in lines
    for extra in ("live", "train"):
        assert ["install", f".[{extra}]"] in lines
    done = run([*pip, "install", "--quiet", "."], ROOT)
    assert done.returncode == 0, done.stderr
    for line in lines:
        done = run([*pip, *line, "--dry-run", "--quiet"], ROOT)
        assert done.returncode == 0, done.stderr
    assert run([bin_dir / "deepfer", "verify", "deepfer-n"]).returncode == 0
    hint = run([bin_dir / "python", "-c", PRINT]).stdout.strip()
    assert hint == f'pip install "{ROOT}[mqtt]"'
    assert run([bin_dir / "python", "-c", "import paho.mqtt"]).returncode == 1
    done = run([*pip, *shlex.split(hint)[1:]])
    assert done.returncode == 0, done.stderr
    assert run([bin_dir / "python", "-c", "import paho.mqtt"]).returncode == 0
