"""Which files are images, by name and by content, and what is said of those that are not read here."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from deepfer_yolo.errors import install_line

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
SUFFIXES = HEIF_SUFFIXES | {
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".bmp", ".dib", ".webp", ".avif", ".tif", ".tiff",
    ".gif", ".pgm", ".ppm", ".pbm", ".pnm",
}  # fmt: skip
"""Names of images that are read; those of HEIF with the extra `[heic]` alone."""
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM")
"""What Pillow may take a file for, by its content, besides AVIF and HEIF."""
OTHERS = {
    **dict.fromkeys((".jxl",), "JPEG XL"),
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx", ".j2c"), "JPEG 2000"),
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"), "camera raw"),
    **dict.fromkeys((".psd", ".xcf"), "layered"),
    **dict.fromkeys((".svg", ".svgz", ".eps"), "vector"),
    **dict.fromkeys((".exr", ".hdr"), "floating-point"),
    **dict.fromkeys((".tga", ".ico", ".icns", ".qoi", ".dds", ".avifs", ".mpo", ".pcx"), "rarely used"),
}
"""Names of images that are not read, and what kind they are."""
PARQUET = (".parquet", ".pq")
"""Suffixes of tables that may hold images."""
NO_IMAGE = "files that are no images by their name"
VIDEO_SUFFIXES = frozenset(
    {
        ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".flv", ".wmv", ".mpg", ".mpeg",
        ".h264", ".264", ".mjpeg", ".y4m", ".3gp", ".ogv",
    }
)  # fmt: skip
"""Names of videos; .gif is an image here, though `deepfer stream` plays it."""
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"heif")
GENERAL_BRANDS = (b"mif1", b"msf1")
"""Image containers whose compatible brands say what is inside."""
MAX_BRANDS = 128
SIGNATURES = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "layered",
    b"<svg": "vector",
    b"%!PS": "vector",
}
VIDEO_SIGNATURES = {0: (b"\x1aE\xdf\xa3", b"FLV\x01", b"OggS", b"\0\0\x01\xba"), 4: (b"ftyp",), 8: (b"AVI ",)}


@cache
def reads_heif() -> bool:
    """Whether HEIC and HEIF images can be read here."""
    return find_spec("pillow_heif") is not None


def is_image(path: Path) -> bool:
    """Whether a file is an image that is read here, by its name."""
    suffix = path.suffix.lower()
    return suffix in SUFFIXES and (suffix not in HEIF_SUFFIXES or reads_heif())


def why_left_out(path: Path) -> str:
    """Why a file of a folder is no image to us, by its name, in words that follow a number."""
    suffix = path.suffix.lower()
    if suffix in HEIF_SUFFIXES:
        return f"iPhone photos (HEIC), which need: {install_line('heic')}"
    if suffix in OTHERS:
        return f"{OTHERS[suffix]} images ({suffix}), which are not read"
    return "videos" if suffix in VIDEO_SUFFIXES else NO_IMAGE


def is_heif(head: bytes) -> bool:
    """Whether content that begins so is HEIC or HEIF; AVIF, which lies in the same container, is not."""
    brands = _brands(head)
    return brands[:4] in HEIF_BRANDS or (brands[:4] in GENERAL_BRANDS and b"avif" not in brands)


def is_avif(head: bytes) -> bool:
    """Whether content that begins so is AVIF."""
    brands = _brands(head)
    return brands[:4] in (b"avif", b"avis") or (brands[:4] in GENERAL_BRANDS and b"avif" in brands)


def _brands(head: bytes) -> bytes:
    return head[8 : int.from_bytes(head[:4], "big")][:MAX_BRANDS] if head[4:8] == b"ftyp" else b""


def why_not_read(head: bytes, path: Path | None = None) -> str:
    """Why a file whose content begins so cannot be read as an image."""
    if is_heif(head):
        return f"an iPhone photo (HEIC), which needs: {install_line('heic')}"
    for mark, kind in SIGNATURES.items():
        if head.startswith(mark):
            return f"{kind} images are not read; convert it to PNG or JPEG"
    suffix = "" if path is None else path.suffix.lower()
    marks = [head[at : at + len(mark)] == mark for at, marks in VIDEO_SIGNATURES.items() for mark in marks]
    if any(marks) or suffix in VIDEO_SUFFIXES:
        return "a video, not an image; for videos there is: deepfer stream"
    if suffix in OTHERS:
        return f"{OTHERS[suffix]} images are not read; convert it to PNG or JPEG"
    return "not an image in a known format"
