"""What a user may name as a source, and how its name is shown: never with a password."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from deepfer_yolo.errors import SourceError, redact

Kind = Literal["file", "network", "camera", "pattern"]

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".flv", ".wmv", ".mpg", ".mpeg", ".gif", ".h264",
    ".mjpeg", ".y4m",
)  # fmt: skip
SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "udp", "tcp", "srt", "rtp")
PATTERNS = ("testsrc", "testsrc2", "smptebars", "smptehdbars", "rgbtestsrc", "color", "mandelbrot", "life")
"""FFmpeg's synthetic sources (libavfilter), usable as cameras that need no hardware."""
SOURCE_HINT = "name a video file, a folder of them, a URL, a camera index such as 0, or testsrc"


@dataclass(frozen=True, slots=True)
class Address:
    """One source: `name` is safe to show, `target` is what is opened and may hold a password."""

    name: str
    kind: Kind
    target: str = field(repr=False)

    @property
    def is_live(self) -> bool:
        """Whether the source runs on without us."""
        return self.kind != "file"


def parse_source(text: str) -> list[Address]:
    """The sources behind one argument, which may be a folder of videos. Raises SourceError where it is none."""
    if not text.strip("\0 "):
        raise SourceError("an empty name is no source", SOURCE_HINT)
    if re.match(r"^[A-Za-z][A-Za-z0-9+.-]*://", text):
        return [_from_url(text)]
    if text.isdecimal():
        return [Address(f"camera {int(text)}", "camera", text)]
    if text.startswith("/dev/video"):
        return [Address(text, "camera", text)]
    path = Path(text)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file())
        if not files:
            raise SourceError(f"no video file in the folder {text}", "images are for: deepfer predict")
        return [Address(str(file), "file", str(file)) for file in files]
    if path.is_file():
        return [Address(text, "file", text)]
    if re.split(r"[=:,]", text)[0] in PATTERNS:
        return [Address(text, "pattern", text)]
    raise SourceError(f"no such source: {redact(text)}", SOURCE_HINT)


def parse_sources(texts: list[str]) -> list[Address]:
    """All sources of the command line; names that repeat get a number. Raises SourceError where one is unknown."""
    found: list[Address] = []
    names: dict[str, int] = {}
    for address in (one for text in texts for one in parse_source(text)):
        names[address.name] = n = names.get(address.name, 0) + 1
        found.append(address if n == 1 else Address(f"{address.name} #{n}", address.kind, address.target))
    return found


def scrub(text: str, url: str) -> str:
    """A message that a library wrote, without `url` and every secret in it, raw or percent-decoded."""
    head, _, tail = url.partition("://")[2].rpartition("@")
    user, _, password = head.partition(":")
    secrets = {head, password, user} | {part.partition("=")[2] for part in tail.partition("?")[2].split("&")}
    forms = {form for secret in secrets if secret for form in (secret, unquote(secret))}
    text = text.replace(url, redact(url))
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text


def split_credentials(url: str) -> tuple[str, str, str]:
    """The URL without its user and password, and both, percent-decoded."""
    parts = urlsplit(url)
    userinfo, _, host = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    return urlunsplit(parts._replace(netloc=host)), unquote(user), unquote(password)


def require_host(url: str) -> None:
    """Raise SourceError where a URL names no host, or a port that cannot exist.

    A password with a bare `/`, `?` or `#` ends the host too early and is found here. Listening on all addresses,
    `udp://:1234`, has only a port.
    """
    try:
        parts = urlsplit(url)
        if parts.hostname or (parts.scheme.lower() in ("udp", "tcp", "srt", "rtp") and parts.port is not None):
            _ = parts.port
            return
    except ValueError:
        pass
    raise SourceError(
        f"this URL names no host and port: {redact(url)}",
        "write scheme://[user:password@]host[:port]/path; special characters of a password must be percent-encoded",
    )


def slug(name: str) -> str:
    """A source's name as a part of a file name."""
    stem = Path(name).stem if "://" not in name else name.partition("://")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")[:80] or "source"


def slugs(names: Sequence[str]) -> dict[str, str]:
    """A slug for each name, none twice: a number is added to one that another name has already."""
    made: dict[str, str] = {}
    for name in names:
        base = made[name] = slug(name)
        n = 1
        while list(made.values()).count(made[name]) > 1:
            n += 1
            made[name] = f"{base}-{n}"
    return made


def _from_url(url: str) -> Address:
    scheme = url.partition("://")[0].lower()
    if scheme == "file":
        raise SourceError("file: URLs are not taken as sources", "name the file by its path")
    if scheme not in SCHEMES:
        raise SourceError(
            f"'{scheme}:' is not a kind of stream that this program opens", f"known: {', '.join(SCHEMES)}"
        )
    require_host(url)
    return Address(redact(url), "network", url)
