"""Images in the rows of parquet files, as Hugging Face writes them, called FILE.parquet#ROW: for `predict`, which needs
no labels. A few rows at a time are in memory, however large a row group is.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

from deepfer_yolo.data.image_formats import PARQUET
from deepfer_yolo.errors import DatasetError

ROW = re.compile(r"(.+\.(?:parquet|pq))#(\d{1,12})", re.DOTALL | re.IGNORECASE)


def is_parquet(path: Path) -> bool:
    """True for the name of a parquet file."""
    return path.suffix.lower() in PARQUET


def rows_in(file: Path) -> list[Path] | None:
    """What the images of a parquet file are called; None where it has no column of images, or pyarrow is not there."""
    if find_spec("pyarrow") is None:
        return None
    with _opened(file) as opened:
        if _column(opened) is None:
            return None
        return [Path(f"{file}#{row}") for row in range(opened.metadata.num_rows)]


def file_of(path: Path) -> Path:
    """The file in which an image lies: the image file itself, or the parquet file."""
    found = ROW.fullmatch(str(path))
    return Path(found[1]) if found and not path.exists() else path


class ParquetImages:
    """Reads images of parquet files; each thread goes on where its last one stood."""

    def __init__(self) -> None:
        self._own = threading.local()

    def content(self, path: Path) -> bytes | None:
        """The bytes of an image FILE.parquet#ROW; None for a path that names no row of a file.

        Raises DatasetError where file or row cannot be read.
        """
        found = ROW.fullmatch(str(path)) if "#" in str(path) else None
        if found is None or path.exists():
            return None
        file, row = Path(found[1]), int(found[2])
        place, rows = getattr(self._own, "at", None) or ((Path(), 0, 0), iter(()))
        if place[0] != file or not place[1] <= row < place[2]:
            place, rows = self._from(file, row)
        import pyarrow as pa

        try:
            for number, content in rows:
                if number >= row:
                    self._own.at = (file, number + 1, place[2]), rows
                    return _checked(content)
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"broken parquet file ({' '.join(str(error).split())[:200]})", path=path) from None
        raise DatasetError("no such row", path=path)

    def _from(self, file: Path, row: int) -> tuple[tuple[Path, int, int], Iterator[tuple[int, Any]]]:
        """The row group of a row: its file, first row and end, and its rows by number."""
        opened = _opened(file)
        column = _column(opened)
        sizes = [opened.metadata.row_group(i).num_rows for i in range(opened.metadata.num_row_groups)]
        ends = list(accumulate(sizes))
        group = bisect_right(ends, row)
        if column is None or group == len(ends):
            raise DatasetError("no such row, or no column of images", path=f"{file}#{row}")
        first = ends[group] - sizes[group]

        def rows() -> Iterator[tuple[int, Any]]:
            from deepfer_yolo.data.layouts.parquet import BATCH_ROWS

            number = first
            for batch in opened.iter_batches(BATCH_ROWS, row_groups=[group], columns=[column], use_threads=False):
                for value in batch.column(0):
                    yield number, value
                    number += 1

        return (file, first, ends[group]), rows()


def _checked(value: Any) -> bytes:
    from deepfer_yolo.data.layouts.shards import MAX_CONTENT

    content = value.as_py()
    content = content.get("bytes") if isinstance(content, dict) else content
    if not isinstance(content, bytes):
        raise DatasetError("the row holds no bytes of an image")
    if len(content) > MAX_CONTENT:
        raise DatasetError(f"larger than {MAX_CONTENT // 1_000_000} MB")
    return content


def _opened(file: Path) -> Any:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        # Neither mapped nor read ahead: a page at a time is in memory.
        return ParquetFile(file, buffer_size=1 << 16, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"broken parquet file ({' '.join(str(error).split())[:200]})", path=file) from None


def _column(opened: Any) -> str | None:
    """The first column of images: bytes, or a record that holds some."""
    import pyarrow as pa

    from deepfer_yolo.data.layouts.parquet import IMAGE_COLUMNS

    names = {name.lower(): name for name in opened.schema_arrow.names}
    for name in (names[known] for known in IMAGE_COLUMNS if known in names):
        kind = opened.schema_arrow.field(name).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return str(name)
    return None
