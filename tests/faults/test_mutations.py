"""Files that are read, changed at random: each is refused clearly, or read as it was, or named in `HARMLESS`.

Thirty mutations a format in `make test`; a thousand in `make test-slow`, which docs/reliability.md counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

HEADER = ("what is read", "mutations", "refused", "unchanged", "changed, by what differs", "why that is harmless")

HARMLESS = {
    "csv": "a table has no checksum: this is another table, and the data set made of it has another fingerprint",
    "manifest": "no image, label or split differs: sources, subjects and votes are outside the fingerprint",
    "dataset.json": "words about the data set, which nothing decides by; labels, counts and fingerprint are checked",
    "card": "nothing was accepted that differs",
    "onnx": "nothing was accepted that differs",
    "yaml": "another legal value: the file is the user's own word, and a run's config.yaml says what was in force",
    "metrics.json": "a record for its reader: `compare` and `gate` measure anew, and no verdict is read from it",
    "corrections": "decisions have no checksum: records, cards and reports name the SHA-256 of the file they apply",
    "zip": "nothing was accepted that differs",
    "tar": "a plain tar has checksums for its heads alone; packed ones (gz, bz2, xz) and PNGs have one of their own",
    "tar.gz": "nothing was accepted that differs",
    "multipart": "a form has no checksum, as the connection has; the answer is about the bytes that came",
    "lists of layouts": "lists have no checksum, and images that are left out of one are no error: see `csv`",
}
"""Why what is accepted although it differs does no harm."""


CHILDREN = ("onnx", "lists of layouts")
"""What is read in a child process."""


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sync", lambda: None)
    monkeypatch.setattr("os.fsync", lambda _: None)


def conclude(name: str, tally: Any, n: int, request: pytest.FixtureRequest) -> None:
    """Judge what mutations came to, and write it into the page where that is asked."""
    assert tally.faults == []
    assert tally.n == n
    assert tally.refused > 0
    if HARMLESS[name].startswith("nothing"):
        assert not tally.changed, tally.changed
    told = "; ".join(f"{what}: {count}" for what, count in sorted(tally.changed.items())) or "–"
    row = (f"{n:,}", str(tally.refused), str(tally.unchanged), told, HARMLESS[name])
    if n >= 1000 and os.environ.get("DEEPFER_UPDATE_RELIABILITY") == "1":
        request.getfixturevalue("put_row")("mutations", name, row, HEADER)


@pytest.mark.parametrize("n", [30, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [name for name in HARMLESS if name not in CHILDREN])
def test_mutations(name: str, n: int, mutations: ModuleType, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    content, read = mutations.READERS[name](tmp_path)
    conclude(name, mutations.try_all(read, content, n), n, request)


@pytest.mark.parametrize("n", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutations_of_onnx_files(
    n: int,
    write_linear_model: Callable[..., Path],
    mutations: ModuleType,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    weights = np.random.default_rng(0).normal(0, 0.05, (7, 8 * 8 * 3)).astype(np.float32)
    model = write_linear_model(tmp_path / "whole.onnx", weights, np.zeros(7, np.float32))
    words = [mutations.__file__, model, tmp_path / "model.onnx", n]
    conclude("onnx", tally_of(mutations, words), n, request)


@pytest.mark.slow
def test_mutations_of_the_lists_of_layouts(
    mutations: ModuleType, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tally = tally_of(mutations, [Path(__file__).with_name("layout_lists.py"), tmp_path])
    conclude("lists of layouts", tally, max(1000, tally.n), request)


def tally_of(mutations: ModuleType, words: Sequence[object]) -> Any:
    """What a child process says of each mutation; one that ends early names the last."""
    tally = mutations.Tally()
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3000)
    for line in done.stdout.splitlines():
        tally.add(line)
    assert done.returncode == 0, f"the child ended at mutation {tally.n}: {done.stderr[-500:]}"
    return tally
