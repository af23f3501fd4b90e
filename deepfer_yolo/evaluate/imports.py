"""Libraries that take seconds to import are imported while the model runs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from threading import Thread

from deepfer_yolo.errors import EXTRA_OF_MODULE, MissingDependencyError


@contextmanager
def importing(*modules: str) -> Iterator[None]:
    """Import `modules` in a thread while the block runs, and wait for it at the end.

    Raises MissingDependencyError before the block starts, rather than after minutes of scoring, where one is not installed.
    """
    for module in modules:
        package = module.partition(".")[0]
        if find_spec(package) is None:
            raise MissingDependencyError.for_extra(EXTRA_OF_MODULE[package], package)
    thread = Thread(target=_import, args=(modules,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _import(modules: tuple[str, ...]) -> None:
    # What goes wrong here goes wrong again, and is explained, where the module is used.
    with suppress(ImportError):
        for module in modules:
            importlib.import_module(module)
