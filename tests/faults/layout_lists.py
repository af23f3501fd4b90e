"""The lists of every layout that `convert` reads (csv, json, xml, yaml, parquet, tar, …), changed at random.

Some are read by libraries in other languages, so that a child process does it: this program.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
PER_LIST = 40
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")


def beside(path: Path) -> ModuleType:
    """A module by its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def sources(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Each layout, painted into `folder`, with each of its lists: one of a kind and depth."""
    for name in ("paint_layouts", "paint_boxes"):
        for painter in list(vars(beside(HERE.parent / "test_data" / f"{name}.py")).values()):
            if inspect.isfunction(painter) and list(inspect.signature(painter).parameters) == ["root"]:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                painter(folder)
                lists: dict[tuple[str, int], Path] = {}
                for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                    if path.suffix not in IMAGES and path.stat().st_size:
                        lists.setdefault((path.suffix, len(path.parts)), path)
                yield from ((folder, path) for path in lists.values())


def child(root: Path) -> None:
    """Convert every source with each of its lists mutated; one line for each mutation."""
    from deepfer_yolo.config import ConvertConfig
    from deepfer_yolo.data.convert import convert
    from deepfer_yolo.data.dataset import fingerprint, read_manifest

    mutations, chance = beside(HERE / "mutations.py"), random.Random(1)
    os.sync = os.fsync = lambda *_: None  # type: ignore[assignment]
    for source, path in sources(root / "source"):

        def read(content: bytes, source: Path = source, path: Path = path) -> dict[str, Any]:
            path.write_bytes(content)
            shutil.rmtree(root / "out", ignore_errors=True)
            convert(source, root / "out", ConvertConfig(group_by="none"))
            return {"images, labels or splits": fingerprint(read_manifest(root / "out"))}

        whole = path.read_bytes()
        meant = read(whole)
        for _ in range(PER_LIST):
            print(mutations.outcome_of(read, mutations.mutate(whole, chance), meant).replace("\n", " "), flush=True)
        path.write_bytes(whole)


if __name__ == "__main__":
    child(Path(sys.argv[1]))
