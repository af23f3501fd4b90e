"""What a user may name as a source, and how its name is shown: never with a password."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from deepfer_yolo.data.image_formats import VIDEO_SUFFIXES, is_image
from deepfer_yolo.data.shards import Shard
from deepfer_yolo.errors import ConfigError, SourceError, redact
from deepfer_yolo.presets import load_yaml
from deepfer_yolo.stream.file_names import closed_folders, is_list, is_url, listed, matching, sequence

Kind = Literal["file", "pipe", "images", "network", "camera", "pattern"]

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "udp", "tcp", "srt", "rtp")
PATTERNS = ("testsrc", "testsrc2", "smptebars", "smptehdbars", "rgbtestsrc", "color", "mandelbrot", "life")
"""FFmpeg's synthetic sources (libavfilter), usable as cameras that need no hardware."""
SOURCE_HINT = "name a video file, a folder or pattern of them, a URL, a camera index such as 0, - or testsrc"
STDIN = ("-", "pipe:0", "pipe:", "/dev/stdin")
ANIMATED = frozenset({".gif", ".webp", ".apng"})
"""Images that may be videos all the same."""
CAMERAS_HINT = "one line a camera: front-door: rtsp://user:password@10.0.0.2/live"
MAX_CAMERAS_BYTES, MAX_CAMERA_NAME = 10_000_000, 100
MAX_SOURCES, MAX_LIVE = 100_000, 1000
"""In all, since each costs some memory; and of those that are open all the time."""


@dataclass(frozen=True, slots=True)
class Address:
    """One source: `name` is safe to show, `target` is what is opened and may hold a password."""

    name: str
    kind: Kind
    target: str = field(repr=False)
    container: str | None = None
    """FFmpeg's name of the container, where nothing else is to be tried."""

    @property
    def is_live(self) -> bool:
        """Whether the source runs on without us."""
        return self.kind in ("network", "camera", "pattern")

    @property
    def is_file(self) -> bool:
        """Whether it can be read at any time, and again: a video file, or a row of images."""
        return self.kind in ("file", "images")


def parse_source(text: str) -> list[Address]:
    """The sources behind one argument, which may be a folder, a pattern or a list. Raises SourceError where it is none.

    Images that a pattern or a list names are one source.
    """
    if not text.strip("\0 "):
        raise SourceError("an empty name is no source", SOURCE_HINT)
    if text in STDIN:
        return [Address("-", "pipe", "-")]
    if text.isdecimal():
        return [Address(f"camera {int(text)}", "camera", text)]
    if text.startswith("/dev/video"):
        return [Address(text, "camera", text)]
    # A file that is there comes before all that a colon or a percent sign could mean.
    if os.path.exists(text):  # noqa: PTH110 (unlike pathlib it takes any text)
        return _from_path(text)
    if is_url(text):
        return [_from_url(text)]
    if is_list(text) or matching(text) is not None:
        return _from_many(text)
    if re.split(r"[=:,]", text)[0] in PATTERNS:
        return [Address(text, "pattern", text)]
    raise SourceError(f"no such source: {redact(text)}", SOURCE_HINT)


def _from_path(text: str) -> list[Address]:
    path = Path(text)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if _is_video(file) and file.is_file())
        if not files:
            raise SourceError(f"no video file in the folder {text}", _image_hint(text, path.iterdir()))
        return [Address(str(file), "file", str(file)) for file in files]
    if path.is_fifo():
        return [Address(text, "pipe", text)]
    if not path.is_file():
        raise SourceError(f"neither a file nor a folder: {text}", SOURCE_HINT)
    if is_image(path) and path.suffix.lower() not in ANIMATED:
        raise SourceError(f"{text} is an image, not a video", f"deepfer predict {text} --faces")
    return [Address(str(path), "file", str(path))]  # as a folder names it


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES | {".gif"}


def _image_hint(text: str, files: Iterable[Path]) -> str:
    first = next((file for file in sorted(files) if is_image(file)), None)
    if first is None:
        return SOURCE_HINT
    return f"its images one by one: deepfer predict {text}; as one video: deepfer stream '{text}/*{first.suffix}'"


def _from_many(text: str) -> list[Address]:
    for folder in closed_folders(text):
        raise SourceError(
            f"{redact(text)} leads through a folder that cannot be read: {folder}", "check who may read it"
        )
    if sequence(text):
        return [Address(text, "images", text)]
    names = listed(text) if is_list(text) else [str(path) for path in matching(text) or []]
    if not names:
        raise SourceError(f"{redact(text)} names no source", SOURCE_HINT)
    if len(names) > MAX_SOURCES:
        raise SourceError(f"{redact(text)} names more than {MAX_SOURCES:,} sources", "name fewer at a time")
    return [address for name in names for address in parse_source(name)]


def read_cameras(file: Path) -> list[Address]:
    """The sources of a yaml file, `name: address` each. Raises ConfigError or SourceError, which show no password."""
    try:
        if file.stat().st_size > MAX_CAMERAS_BYTES:
            raise ConfigError(f"{file} is larger than {MAX_CAMERAS_BYTES // 1_000_000} MB: is this the right file?")
        content = load_yaml(file.read_text(encoding="utf-8"))
    except ValueError as error:  # whose text quotes the line, and a password in it
        place = re.search(r"line (\d+)", str(error))
        raise ConfigError(f"{file} is not valid yaml{f', line {place[1]}' if place else ''}", CAMERAS_HINT) from None
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{file} names no camera", CAMERAS_HINT)
    found = []
    for name, text in content.items():
        if not isinstance(name, str) or not 0 < len(name) <= MAX_CAMERA_NAME or not name.isprintable() or "/" in name:
            reason = f"{file}: a name has 1 to {MAX_CAMERA_NAME} characters and no '/', not {redact(str(name))[:80]!r}"
            raise ConfigError(reason, CAMERAS_HINT)
        if not isinstance(text, str | int) or isinstance(text, bool):
            raise ConfigError(f"{file}: '{name}' has no address", CAMERAS_HINT)
        addresses = parse_source(str(text))
        if len(addresses) != 1:
            raise SourceError(f"{file}: '{name}' is {len(addresses)} sources", "name one source a line")
        found.append(replace(addresses[0], name=name))
    return found


def parse_sources(texts: Sequence[str], cameras: Path | None = None, shard: Shard | None = None) -> list[Address]:
    """All sources of the command line and of a file of `cameras`, or those of one `shard`; names that repeat get a
    number.

    Raises SourceError where one is unknown, or the shard has none, and what `read_cameras` does.
    """
    if not texts and cameras is None:
        raise SourceError("no source was named", SOURCE_HINT)
    found: list[Address] = []
    names: dict[str, int] = {}
    listed_there = [] if cameras is None else read_cameras(cameras)
    for address in [*(one for text in texts for one in parse_source(text)), *listed_there]:
        names[address.name] = n = names.get(address.name, 0) + 1
        if n > 1 and address.kind == "pipe":
            raise SourceError(f"{address.name} can be read once only", "name each pipe once")
        found.append(address if n == 1 else replace(address, name=f"{address.name} #{n}"))
    if shard is not None:
        n_all = len(found)
        found = [address for address in found if shard.has(address.name)]
        if not found:
            raise SourceError(f"shard {shard} has none of the {n_all:,} sources", "make fewer shards")
    if len(found) > MAX_SOURCES or sum(not address.is_file for address in found) > MAX_LIVE:
        why = f"these are {len(found):,} sources; a run takes {MAX_SOURCES:,}, {MAX_LIVE:,} live ones among them"
        raise SourceError(why, "name fewer at a time")
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
    taken: set[str] = set()
    for name in names:
        base = stem = slug(name)
        n = 1
        while stem in taken:
            n += 1
            stem = f"{base}-{n}"
        taken.add(stem)
        made[name] = stem
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
