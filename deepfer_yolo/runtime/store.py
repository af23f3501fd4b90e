"""Model files that are fetched once, only when asked, and only if their SHA-256 is the one pinned here."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from deepfer_yolo.errors import ModelError
from deepfer_yolo.files import atomic_path, sha256_of

HOME_VARIABLE = "DEEPFER_HOME"
CACHE_VARIABLE = "DEEPFER_CACHE"
CHUNK = 1 << 16
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Pullable:
    """One file that can be fetched; `sha256` and `size` (bytes) are those of the file that was measured."""

    name: str
    file: str
    url: str
    sha256: str
    size: int
    license: str
    what: str


PULLABLE = {
    "yunet": Pullable(
        "yunet",
        "face_detection_yunet_2023mar.onnx",
        "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/face_detection_yunet_2023mar.onnx",
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        232_589,
        "MIT",
        "face detector with five landmarks, for OpenCV 4",
    )
}
"""Every file that `deepfer models pull` knows."""


def store_dir() -> Path:
    """Where pulled files lie: `$DEEPFER_HOME/models`, else the user's data folder (XDG)."""
    home = os.environ.get(HOME_VARIABLE)
    if home:
        return Path(home) / "models"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "deepfer" / "models"


def cache_dir() -> Path:
    """Where things lie that can be made again: `$DEEPFER_CACHE`, else the user's cache folder (XDG)."""
    cache = os.environ.get(CACHE_VARIABLE)
    return Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deepfer"


def pulled(name: str) -> Path | None:
    """The pulled file called `name`, where there is one. Its hash was checked when it was written."""
    path = store_dir() / PULLABLE[name].file
    return path if path.is_file() else None


def pull(name: str, *, url: str | None = None) -> Path:
    """Fetch a known file, check its SHA-256 and put it into the store; a file that is there and right is not fetched again.

    `url` names a mirror. Raises ModelError for an unknown name, a failed download or a wrong hash; nothing wrong is ever kept.
    """
    if name not in PULLABLE:
        raise ModelError(f"no model named '{name}' can be pulled", f"known: {', '.join(PULLABLE)}")
    wanted = PULLABLE[name]
    target = store_dir() / wanted.file
    if target.is_file() and sha256_of(target) == wanted.sha256:
        return target
    place = url or wanted.url
    if not place.startswith(("http://", "https://")):
        raise ModelError(f"a mirror is an http or https URL, not '{place}'")
    with atomic_path(target) as part:
        found = _fetch(place, part, limit=wanted.size)
        if found != wanted.sha256:
            raise ModelError(f"what {place} sends is not {wanted.file}: SHA-256 {found}, not {wanted.sha256}", "name a mirror with --url")
    return target


def _fetch(url: str, part: Path, *, limit: int) -> str:
    """Write what `url` sends to `part`, and return its SHA-256; stops behind `limit` bytes."""
    digest, size = hashlib.sha256(), 0
    request = urllib.request.Request(url, headers={"User-Agent": "deepfer"})  # noqa: S310 (the scheme was checked)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response, part.open("wb") as file:  # noqa: S310
            while (chunk := response.read(CHUNK)) and size <= limit:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
    except urllib.error.HTTPError as error:
        error.close()
        raise ModelError(f"{url} answered {error.code}", "name a mirror with --url") from None
    except (urllib.error.URLError, TimeoutError, http.client.HTTPException, ConnectionError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise ModelError(f"{url} cannot be fetched: {reason}", "check the network, or name a mirror with --url") from None
    return digest.hexdigest()
