"""Fixtures of the tests of reviews: a small data set with what makes an image doubtful, and clients of its page."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest


@pytest.fixture
def client() -> Iterator[Callable[..., httpx.Client]]:
    """A function that opens a client of a review, let in by its token as a browser is."""
    with ExitStack() as opened:

        def enter(url: str) -> httpx.Client:
            found = opened.enter_context(
                httpx.Client(base_url=url.partition("?")[0], timeout=30, follow_redirects=True)
            )
            assert found.get(url).status_code == 200
            return found

        yield enter


@pytest.fixture
def lines() -> Callable[[Path], list[dict[str, Any]]]:
    """A function that reads a corrections.csv as any program would."""

    def read(file: Path) -> list[dict[str, Any]]:
        with file.open(newline="", encoding="utf-8") as text:
            return list(csv.DictReader(text))

    return read
