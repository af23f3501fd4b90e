"""Real browsers for the tests of pages."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
)


@pytest.fixture(scope="module")  # while it is open, its event loop runs in this thread, which other tests cannot bear
def open_browser() -> Iterator[Callable[..., Any]]:
    """A function that opens headless Chromium with more flags."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium here; Debian: apt-get install -y chromium")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("no playwright here; pip install playwright")
    from playwright.sync_api import sync_playwright

    with ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())

        def start(*flags: str) -> Any:
            opened = playwright.chromium.launch(executable_path=program, headless=True, args=[*FLAGS.split(), *flags])
            stack.callback(opened.close)
            return opened

        yield start
