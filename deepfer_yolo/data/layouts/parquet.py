"""Parquet files as Hugging Face writes them, read a few rows at a time.

    data/train-00000-of-00002.parquet    data/validation-00000-of-00001.parquet    data/test/0000.parquet
    image: struct<bytes: binary, path: string>    label: int64

One file, or a folder of them. The split is that of the file's name, else of its folder, else of a column `split`. Names
of numbered labels stand in the schema (`ClassLabel`) or in the yaml of README.md (`dataset_info`). Images may also be a
column of plain bytes. Paths without bytes are refused: they lead into someone else's disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from deepfer_yolo.data.image_formats import PARQUET
from deepfer_yolo.data.layouts.boxes import BoxColumns
from deepfer_yolo.data.layouts.item import Item, Layout, Reading, items_of
from deepfer_yolo.data.layouts.shards import (
    LABEL_COLUMNS,
    MAX_CONTENT,
    SPLITS,
    ShardLabels,
    choose,
    find_boxes,
    find_shards,
    label_names,
    names_in_front_matter,
    place_of,
    read_front_matter,
    splits_of,
)
from deepfer_yolo.data.untrusted import MAX_RATIO, RATIO_FROM, printable
from deepfer_yolo.errors import DatasetError, explained_imports

IMAGE_COLUMNS = ("image", "img", "images", "picture", "photo", "face", "pixel_values", "image_bytes", "bytes")
OTHERS = {"usage": "split", "split": "split", "subject": "subject"}
"""Columns that are read besides, as what."""
MAX_FEATURES_BYTES, MAX_NAME = 10_000_000, 4096
BATCH_ROWS, BATCH_BYTES = 8, 64 << 20
"""Rows in memory at a time, fewer where one may be large: a page may hold one value and name it for every row."""
ROWS_OF_LABELS = 1024
BOX = "box "
EMBED = (
    "write it again with the images inside: ds.with_format('arrow').map(datasets.table.embed_table_storage, "
    "batched=True).with_format(None).to_parquet(…); or convert the folder of images itself"
)
"""As `datasets` 5.2.0 does it; its plain `map` of an image folder leaves the bytes out as well."""


@dataclass(frozen=True, slots=True, eq=False)
class _Shard:
    """One open file and which of its columns are what; `names` are those of its numbered labels."""

    place: str
    split: str
    file: Any
    image: str
    label: str
    names: tuple[str, ...]
    others: dict[str, str]
    boxes: BoxColumns | None


def matches(source: Path) -> bool:
    """True for a parquet file, or a folder that holds some itself, in `data` or in split folders."""
    return bool(find_shards(source, PARQUET))


def read(reading: Reading) -> Iterator[Item]:
    """The rows in order; `source_id` is file and row."""
    with explained_imports():
        import pyarrow.parquet  # noqa: F401
    files = find_shards(reading.source, PARQUET)
    if not files:
        raise DatasetError("holds no parquet file", "expected data/train-….parquet", path=reading.source)
    splits = splits_of(files, reading.source)
    readme = read_front_matter(reading.source)
    reading.licence = printable(str(readme.get("license") or ""))[:80]
    known, labels = names_in_front_matter(readme), ShardLabels(reading)
    _refuse_numbers(reading, files, known)
    for position, (file, split) in enumerate(zip(files, splits, strict=True)):
        with _opened(reading, file, split, known) as shard:
            rows = max(1, shard.file.metadata.num_rows)
            for done, row in enumerate(_rows(shard)):
                reading.fraction = (position + done / rows) / len(files)
                yield from items_of(reading, [row], partial(_item, reading, shard, labels))
    labels.finish()


def _refuse_numbers(reading: Reading, files: list[Path], known: dict[str, tuple[str, ...]]) -> None:
    """Raise DatasetError where labels are numbers that nothing names: told from that column alone, before any image."""
    labels = ShardLabels(Reading(reading.source, reading.options))
    for file in files:
        with _opened(reading, file, "", known) as shard:
            if not shard.names:
                for batch in shard.file.iter_batches(ROWS_OF_LABELS, columns=[shard.label], use_threads=False):
                    for value in batch.column(shard.label):
                        with suppress(ValueError):  # told with its row in `_item`
                            labels.text(value.as_py())
    labels.finish()


@contextmanager
def _opened(reading: Reading, file: Path, split: str, known: dict[str, tuple[str, ...]]) -> Iterator[_Shard]:
    """A parquet file for reading. Raises DatasetError for one that is broken or has no such columns."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        # Neither mapped nor read ahead: a page at a time is in memory, however large file and row groups are.
        with ParquetFile(file, buffer_size=1 << 16, pre_buffer=False, page_checksum_verification=True) as opened:
            place, form = place_of(file, reading.source), reading.options.box_format
            yield _shard(opened, place, split, known, form)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        words = printable(" ".join(str(error).split()))[:200]
        hint = "fetch it again and compare its checksum"
        raise DatasetError(f"the parquet file is broken ({words})", hint, path=file) from None


def _shard(file: Any, place: str, split: str, known: dict[str, tuple[str, ...]], form: str | None) -> _Shard:
    schema = file.schema_arrow
    columns = {column.name: column.type for column in schema}
    if len(columns) < len(schema):
        raise DatasetError(f"{place}: two columns have one name", "give each column a name of its own")
    features = _features(schema.metadata)
    names = {name: known[name] for name in known.keys() & columns.keys()}
    names |= {name: label_names(f["names"]) for name, f in features.items() if isinstance(f.get("names"), list)}
    kinds = {name: features.get(name, {}).get("_type") for name in columns}
    images = [name for name, kind in columns.items() if _holds_images(name, kind, kinds[name])]
    stated = [name for name in images if kinds[name] == "Image"]
    image = choose(place, "image", columns, [name for name in images if name == "image"], stated, images)
    named = [name for name, kind in columns.items() if name in names and _is_number(kind)]
    likely = [name for name in columns if name.lower() in LABEL_COLUMNS]
    telling = [name for name in likely if name in named or _is_text(columns[name])]
    numbers = [name for name in likely if _is_number(columns[name])]
    label = choose(place, "label", columns, telling, sorted({*numbers, *named}))
    others = {OTHERS[name.lower()]: name for name in columns if name.lower() in OTHERS}
    _refuse_bombs(file.metadata, place)
    boxes = find_boxes(place, columns, form)
    return _Shard(place, split, file, image, label, names.get(label, ()), others, boxes)


def _features(metadata: dict[bytes, bytes] | None) -> dict[str, dict[str, Any]]:
    """What `datasets` says of each column; empty where the schema holds nothing of it."""
    text = (metadata or {}).get(b"huggingface", b"")
    try:
        features = json.loads(text)["info"]["features"] if len(text) <= MAX_FEATURES_BYTES else {}
        return {str(name): feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind))


def _holds_images(name: str, kind: Any, stated: str | None) -> bool:
    """Whether a column is bytes and path, whatever its name, or plain bytes under the name of an image."""
    from pyarrow import types

    if not types.is_struct(kind):
        return name.lower() in IMAGE_COLUMNS and _is_bytes(kind)
    fields = {kind.field(index).name: kind.field(index).type for index in range(kind.num_fields)}
    holds = _is_bytes(fields["bytes"]) or types.is_null(fields["bytes"]) if "bytes" in fields else "path" in fields
    return bool(holds) and stated in (None, "Image")


def _is_bytes(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _refuse_bombs(metadata: Any, place: str) -> None:
    """Raise DatasetError where a part of a column says that it unpacks to more than it may."""
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            if chunk.total_uncompressed_size > max(RATIO_FROM, MAX_RATIO * chunk.total_compressed_size):
                raise DatasetError(f"{place}: unpacks to more than it may: a decompression bomb?", "do not trust it")


def _largest_part(metadata: Any) -> int:
    """Bytes of the largest part of a column: no value is larger."""
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    return max((g.column(column).total_uncompressed_size for g in groups for column in range(g.num_columns)), default=0)


def _rows(shard: _Shard) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, scalars by what they are) of each row; bytes and path of a struct apart."""
    from pyarrow import types

    columns = {"image": shard.image, "label": shard.label, **shard.others}
    columns |= {f"{BOX}{name}": name for name in shard.boxes.names} if shard.boxes else {}
    number = 0
    rows = min(BATCH_ROWS, max(1, BATCH_BYTES // max(1, _largest_part(shard.file.metadata))))
    for batch in shard.file.iter_batches(rows, columns=list(set(columns.values())), use_threads=False):
        arrays = {what: batch.column(name) for what, name in columns.items()}
        image = arrays.pop("image")
        if types.is_struct(image.type):
            fields = [image.type.field(index).name for index in range(image.type.num_fields)]
            arrays |= {name: image.field(name) for name in ("bytes", "path") if name in fields}
        else:
            arrays["bytes"] = image
        for index in range(len(batch)):
            number += 1
            yield f"{shard.place}, row {number}", {what: array[index] for what, array in arrays.items()}


def _item(reading: Reading, shard: _Shard, labels: ShardLabels, place: str, row: dict[str, Any]) -> Item | None:
    values = {what: _text(scalar) for what, scalar in row.items() if what in ("path", "split", "subject")}
    content, path = row.get("bytes"), values.get("path", "")
    if content is None or not content.is_valid:
        if not path:
            raise ValueError("no image")
        reason = f"{place}: holds no image, only the path '{printable(path)[:80]}', which is never followed"
        raise DatasetError(f"{reason}; to_parquet() of an image folder writes such files", EMBED)
    if content.as_buffer().size > MAX_CONTENT:
        raise ValueError(f"larger than {MAX_CONTENT // 1_000_000} MB")
    label = labels.text(row["label"].as_py(), shard.names)
    if label is None:
        return None
    told = values.get("split", "")
    split = SPLITS.get(told.lower(), "") if told else shard.split
    if not split and told:
        raise ValueError(f"split is '{told[:40]}', not train, val or test")
    if shard.split and split != shard.split:
        raise ValueError(f"split is '{told[:40]}', and its file's name says {shard.split}")
    number = place.rpartition(" ")[2]
    name = PurePosixPath(path[-MAX_NAME:].replace("\\", "/")).stem or f"{int(number):06d}"
    source_id, subject = f"{shard.place}/{number}", values.get("subject", "")
    box = shard.boxes.box({name: _numbers(row[f"{BOX}{name}"]) for name in shard.boxes.names}) if shard.boxes else None
    return Item(label, split, name, place, content=content.as_py(), source_id=source_id, subject=subject, box=box)


def _numbers(scalar: Any) -> Any:
    """A cell that holds a box or a side of one. Raises ValueError where it is longer than that."""
    listed = getattr(scalar, "values", None)
    if listed is not None and len(listed) > 4:
        raise ValueError(f"a box of {len(listed):,} numbers")
    value = scalar.as_py()
    return value[:MAX_NAME] if isinstance(value, str) else value


def _text(scalar: Any) -> str:
    """A cell of text. Raises ValueError where it is longer than a path may be, or no UTF-8."""
    value = scalar.as_py()
    text = "" if value is None else str(value)
    if len(text) > MAX_NAME:
        raise ValueError(f"a text longer than {MAX_NAME:,} characters")
    return text


LAYOUT = Layout("parquet", title="", source="", licence="unknown", matches=matches, read=read)
