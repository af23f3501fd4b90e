"""Image files to pixels: bounded before decoding, upright, uint8 RGB; and our own PNG, which needs no decoder."""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from deepfer_yolo.data.avif_size import largest_frame
from deepfer_yolo.data.deep_pixels import check_dropped_bits, to_8_bits
from deepfer_yolo.data.image_formats import FORMATS, is_avif, is_heif, reads_heif, why_not_read
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.errors import DatasetError, ImageTooLargeError
from deepfer_yolo.records import Image

T = TypeVar("T")
R = TypeVar("R")

MAX_PIXELS = 50_000_000
"""Refused before decoding; a 50-megapixel camera image still passes."""
MAX_BYTES = 200_000_000
OURS_BYTES = 1_000_000
"""Up to here a PNG is first taken for one that `convert` has written: `decode_png` is four times as fast as Pillow."""
HEAD_BYTES = 160
"""Enough of a file to know its kind."""
WAITING_PER_WORKER = 16
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_BLOCK = 65535
GREY, RGB = 0, 2
# Once for the process: images are decoded in threads, where catch_warnings is not safe. What Pillow warns of is judged
# here anyway.
warnings.filterwarnings("ignore", module=r"PIL\.")


def load_image(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Image:
    """An image as uint8 RGB (H, W, 3): the first frame, EXIF rotation applied, alpha dropped, more bits scaled to 8.

    Raises what `load_pixels` does.
    """
    return rgb(load_pixels(source, max_pixels=max_pixels))


def load_pixels(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The same, but one channel (H, W) of a grey PNG that `convert` has written: what grey models need is that alone.

    Raises DatasetError that names the file and what is wrong, ImageTooLargeError before anything is decoded; a
    truncated file is an error.
    """
    path = source if isinstance(source, Path) else None
    content = _start_of(source) if isinstance(source, Path) else source
    if len(content) <= OURS_BYTES and (path is None or str(path).endswith(".png")):
        pixels = decode_png(content, max_pixels)
        if pixels is not None:
            return pixels
    formats = _formats(content[:HEAD_BYTES])
    try:
        if formats == ("AVIF",):
            _check_avif(source, max_pixels)
        with PillowImage.open(source if isinstance(source, Path) else io.BytesIO(source), formats=formats) as image:
            width, height = image.size
            if width * height > max_pixels:
                reason = f"{width}×{height} pixels are more than the limit of {max_pixels:,}"
                raise ImageTooLargeError(reason, path=path)
            return _to_rgb(image, content)
    except UnidentifiedImageError:
        raise DatasetError(why_not_read(content[:HEAD_BYTES], path), path=path) from None
    except PillowImage.DecompressionBombError:  # Pillow's own limit, which lies above ours
        raise ImageTooLargeError(f"the image has more than {max_pixels:,} pixels", path=path) from None
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        words = " ".join(str(error).split())  # libheif's end with a line break
        raise DatasetError(f"broken image ({words})", path=path) from None


def _check_avif(source: Path | bytes, max_pixels: int) -> None:
    """Raise ImageTooLargeError where an AVIF file holds larger frames than it says, which Pillow would decode."""
    pixels = largest_frame(source.read_bytes() if isinstance(source, Path) else source)
    if pixels > max_pixels:
        reason = f"frames of {pixels:,} pixels are more than the limit of {max_pixels:,}"
        raise ImageTooLargeError(reason, path=source if isinstance(source, Path) else None)


def _formats(head: bytes) -> tuple[str, ...]:
    """What Pillow may take content that begins so for: AVIF or HEIF, where it says so itself, else all others."""
    if is_avif(head):
        return ("AVIF",)
    if not (is_heif(head) and reads_heif()):
        return FORMATS
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False)
    return ("HEIF",)


def read_image_file(path: Path) -> bytes:
    """The bytes of a regular file. Raises DatasetError where it is none, ImageTooLargeError over `MAX_BYTES`."""
    start = _start_of(path)
    return start if len(start) <= OURS_BYTES else path.read_bytes()


def _start_of(path: Path) -> bytes:
    """The first `OURS_BYTES` and one more of a regular file of bearable size, in half the time of pathlib."""
    if "\0" in str(path):
        raise DatasetError("a NUL character in its name", path=str(path).replace("\0", "\\0"))
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise DatasetError("characters in its name that no file name has", path=printable(str(path))) from None
    # Not to block: opening a pipe would wait for ever.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            is_folder = stat.S_ISDIR(status.st_mode)
            raise DatasetError("this is a folder, not a file" if is_folder else "not a regular file", path=path)
        if status.st_size > MAX_BYTES:
            raise ImageTooLargeError(f"larger than {MAX_BYTES // 1_000_000} MB", path=path)
        return os.read(handle, min(status.st_size, OURS_BYTES) + 1)
    finally:
        os.close(handle)


def _to_rgb(image: PillowImage.Image, head: bytes) -> Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        return rgb(to_8_bits(np.asarray(upright), image, head))
    pixels = np.asarray(upright.convert("RGB"))
    check_dropped_bits(image, pixels, head)
    return pixels


def rgb(pixels: NDArray[np.uint8]) -> Image:
    """Grey (H, W) or RGB (H, W, 3) as RGB."""
    return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels


def grey_plane(pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The one channel, uint8 (H, W), of a grey image, which may have three equal channels; None for a coloured one."""
    if pixels.ndim == 2:
        return pixels
    content = pixels.tobytes()  # slices of bytes compare four times as fast as strided arrays of this size
    plane = content[::3]
    return np.frombuffer(plane, np.uint8).reshape(pixels.shape[:2]) if plane == content[1::3] == content[2::3] else None


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """An uncompressed PNG of uint8 grey (H, W) or RGB (H, W, 3); RGB whose channels are equal is written as grey."""
    if pixels.ndim == 3 and bool((pixels == pixels[:, :, :1]).all()):
        pixels = pixels[:, :, 0]
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + pixels[0].size), np.uint8)  # each row begins with its filter: 0, none
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, GREY if pixels.ndim == 2 else RGB, 0, 0, 0)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", _store(rows.tobytes())) + _END


def _store(content: bytes) -> bytes:
    """`content` as a zlib stream of blocks that are stored as they are."""
    parts = [b"\x78\x01"]
    for start in range(0, len(content), MAX_BLOCK):
        block = content[start : start + MAX_BLOCK]
        is_last = start + MAX_BLOCK >= len(content)
        parts += [struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF), block]
    return b"".join([*parts, struct.pack(">I", zlib.adler32(content))])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return b"".join([struct.pack(">I", len(content)), kind, content, _checksum(kind + content)])


def _checksum(content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(content))


_END = _chunk(b"IEND", b"")


def decode_png(content: bytes, max_pixels: int) -> NDArray[np.uint8] | None:
    """The pixels, uint8 (H, W) or RGB (H, W, 3), of a PNG as `encode_png` writes it; None for any other file, whole or
    broken.

    Reads a data set folder in a fraction of a general decoder's time. All checksums are checked.
    """
    if content[:12] != SIGNATURE + b"\0\0\0\r" or content[-12:] != _END or len(content) < 57:
        return None
    header, body = content[12:29], content[37:-16]
    (n,) = struct.unpack(">I", content[33:37])
    width, height, depth, colour, *rest = struct.unpack(">4xIIBBBBB", header)
    channels = {GREY: 1, RGB: 3}.get(colour, 0)
    size = height * (1 + width * channels)
    if depth != 8 or not channels or any(rest) or not 0 < width * height <= max_pixels:
        return None
    if body[:4] != b"IDAT" or n != len(body) - 4 or n < size:  # n < size: compressed
        return None
    if content[29:33] != _checksum(header) or content[-16:-12] != _checksum(body):
        return None
    stream = zlib.decompressobj()
    try:
        rows = stream.decompress(body[4:], size + 1)
    except zlib.error:
        return None
    if len(rows) != size or not stream.eof or stream.unused_data:
        return None
    table = np.frombuffer(rows, np.uint8).reshape(height, -1)
    if table[:, 0].any():
        return None
    pixels = np.ascontiguousarray(table[:, 1:])
    return pixels if channels == 1 else pixels.reshape(height, width, channels)


def map_in_order(
    function: Callable[[T], R], items: Iterable[T], workers: int, waiting_per_worker: int = WAITING_PER_WORKER
) -> Iterator[R]:
    """`function` of each item, computed by `workers` threads, in the order of `items`; with 0 a plain map.

    At most `waiting_per_worker` results a worker wait to be fetched. An exception of `function` is raised at its item's
    place.
    """
    if workers == 0:
        yield from map(function, items)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= workers * waiting_per_worker:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
