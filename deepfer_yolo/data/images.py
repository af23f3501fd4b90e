"""One way to read a picture file: bounded before decoding, upright, uint8 RGB."""

from __future__ import annotations

import io
import os
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from deepfer_yolo.data.png import decode_png
from deepfer_yolo.errors import DatasetError, ImageTooLargeError
from deepfer_yolo.records import Image

MAX_PIXELS = 50_000_000
"""Refused before decoding; a 50-megapixel camera picture still passes."""
MAX_BYTES = 200_000_000
OURS_BYTES = 1_000_000
"""Up to here a PNG is first taken for one that `convert` has written, which `decode_png` reads four times as fast as Pillow."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".pgm", ".ppm"})
# Once for the process: pictures are decoded in threads, where catch_warnings is not safe. What Pillow warns of is judged here anyway.
warnings.filterwarnings("ignore", module=r"PIL\.")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM")


def load_image(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Image:
    """A picture as uint8 RGB (H, W, 3): the first frame, EXIF rotation applied, alpha over black dropped, 16-bit scaled to 8.

    Raises DatasetError that names the file and what is wrong, ImageTooLargeError before anything is decoded; a truncated file is an error.
    """
    path = source if isinstance(source, Path) else None
    if isinstance(source, Path):
        content = _start_of(source)
        if source.suffix == ".png" and len(content) <= OURS_BYTES and (pixels := decode_png(content, max_pixels)) is not None:
            return pixels
    try:
        with PillowImage.open(source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise ImageTooLargeError(f"{width}×{height} pixels are more than the limit of {max_pixels:,}", path=path)
            return _to_rgb(picture)
    except UnidentifiedImageError:
        raise DatasetError("not a picture in a known format", path=path) from None
    except PillowImage.DecompressionBombError:  # Pillow's own limit, which lies above ours
        raise ImageTooLargeError(f"the picture has more than {max_pixels:,} pixels", path=path) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DatasetError(f"broken picture ({error})", path=path) from None


def _start_of(path: Path) -> bytes:
    """The first `OURS_BYTES` and one more of a regular file of bearable size, in half the time of pathlib: a data set is thousands of small files."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))  # opening a pipe would wait for ever
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError("this is a folder, not a file" if stat.S_ISDIR(status.st_mode) else "not a regular file", path=path)
        if status.st_size > MAX_BYTES:
            raise ImageTooLargeError(f"larger than {MAX_BYTES // 1_000_000} MB", path=path)
        return os.read(handle, min(status.st_size, OURS_BYTES) + 1)
    finally:
        os.close(handle)


def _to_rgb(picture: PillowImage.Image) -> Image:
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith(("I", "F")):
        values = np.asarray(upright)
        grey = (values.astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(upright.convert("RGB"))
