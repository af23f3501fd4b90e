"""Which files are a model, and where they lie: one file, or a folder `<name>/model.*` with the card beside it; shipped,
pulled, or of one's own.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from deepfer_yolo.errors import ModelError
from deepfer_yolo.files import atomic_path, sha256_of, write_atomic
from deepfer_yolo.runtime.card import SCHEMA_VERSION, Card, another_card, read_sidecar, sidecar_path, write_sidecar
from deepfer_yolo.runtime.formats import BY_SUFFIX
from deepfer_yolo.runtime.onnx_graph import open_graph, read_graph, with_card

STEM = "model"
SHIPPED = Path(__file__).parent.parent / "models"
"""The folder of the model files that come with the package: `<name>.onnx` to run, `<name>.pt` to train on."""
DEFAULT = "deepfer-n"
"""The shipped model that is used, and trained on, where none is named."""
LIVE = "deepfer-live"
"""The shipped model that is used where faces come out of frames and none is named."""
CHUNK = 1 << 16
TIMEOUT_S = 30.0


def by_name(path: Path, suffix: str) -> Path:
    """The shipped file that ``deepfer-n``, or ``deepfer-n`` with `suffix`, means; every other `path`, and one that
    exists, as it is.
    """
    named = SHIPPED / (path.name if path.suffix == suffix else f"{path.name}{suffix}")
    return named if path.name == str(path) and not path.exists() and named.is_file() else path


def locate(path: Path) -> Path:
    """The file that names the model: `path` itself, the one `model.*` inside a folder, or a shipped model for its bare
    name.

    Raises ModelError where there is none.
    """
    path = by_name(path, path.suffix or ".onnx")
    if not path.is_dir():
        if not path.is_file():
            raise ModelError(f"no such model file: {path}", "check the path; deepfer models lists the shipped models")
        return path
    found = models_in(path)
    if len(found) != 1:
        raise ModelError(
            f"no such model file: {path} is a folder with {len(found)} files {STEM}.*", "name the model file itself"
        )
    return found[0]


def models_in(folder: Path) -> list[Path]:
    """The files `model.*` in a folder that name a model; one, unless something is wrong."""
    return [path for suffix in BY_SUFFIX if (path := folder / f"{STEM}{suffix}").is_file()]


def is_for_torch(path: Path) -> bool:
    """Whether torch alone opens the file, or the one in the folder: a checkpoint or TorchScript."""
    found = BY_SUFFIX.get((models_in(path) or [path])[0].suffix)
    return found is not None and not found.libraries


def parts(model: Path) -> tuple[Path, ...]:
    """All files of the model, the naming one first; raises ModelError where the second is missing."""
    found = BY_SUFFIX.get(model.suffix)
    if found is None or found.companion is None:
        return (model,)
    second = model.with_suffix(found.companion)
    if not second.is_file():
        raise ModelError(f"{model} lacks its weights: no such file {second}", "copy both files")
    return model, second


def n_bytes(model: Path) -> int:
    """Size of all the model's files."""
    return sum(part.stat().st_size for part in parts(model))


def digest(model: Path) -> str:
    """SHA-256 over the bytes of all the model's files, in the order of `parts`."""
    total = hashlib.sha256()
    for part in parts(model):
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def checked_sidecar(model: Path, *, changed: bool = False) -> Card:
    """The card beside `model`; raises ModelError where it is missing, was written for other bytes, or, unless it may be
    `changed`, is not what its digest covers.
    """
    card = read_sidecar(model, changed=changed)
    if card.file_sha256 is not None:
        found = digest(model)
        if found != card.file_sha256:
            raise ModelError(
                f"{model} is not the file its card describes (SHA-256 {found[:12]}… against {card.file_sha256[:12]}…)",
                f"the file or the card was replaced; {another_card(model)}",
            )
    return card


def card_beside(model: Path) -> Card | None:
    """The card beside a checkpoint that is trained on, checked as where it is opened to answer; None without one."""
    return checked_sidecar(model) if sidecar_path(model).is_file() else None


def attach(card: Card, model: Path) -> Card:
    """Give `model` its card, inside for ONNX and beside for all others, completed by hash and digest; returns the card
    as written.
    """
    if model.suffix == ".onnx":
        graph, card = with_card(read_graph(model), card)
        write_atomic(model, bytes(graph.content))
        return card
    completed = {"schema_version": SCHEMA_VERSION, "graph_sha256": None, "file_sha256": digest(model)}
    card = card.model_copy(update=completed)
    write_sidecar(card, model)
    return card


def renew_digest(path: Path) -> Card:
    """Write the digest of `path` over card and hashes as they are now: where an old file has none, and where the card
    was changed on purpose. Raises ModelError where graph or weights are not those that the card describes.
    """
    model = locate(path)
    if model.suffix == ".onnx":
        return attach(open_graph(model, changed=True)[1], model)
    return attach(checked_sidecar(model, changed=True), model)


def check_pin(model: Path, sha256: str | None) -> None:
    """Raise ModelError unless the model's SHA-256 begins with `sha256`, of which at least 16 digits are needed; None
    pins nothing.
    """
    if sha256 is None:
        return
    found = digest(model)
    if len(sha256) < 16 or not found.startswith(sha256.lower()):
        raise ModelError(
            f"{model} has the SHA-256 {found}, not {sha256}", "do not use it unless you know why it changed"
        )


@dataclass(frozen=True, slots=True)
class Pullable:
    """One file that can be fetched; `sha256` and `size` (bytes) are those of the file that was measured."""

    name: str
    file: str
    url: str
    sha256: str
    size: int
    license: str


PULLABLE = {
    "yunet": Pullable(
        "yunet",
        "face_detection_yunet_2023mar.onnx",
        "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/face_detection_yunet_2023mar.onnx",
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        232_589,
        "MIT",
    )
}
"""Every file that `deepfer models pull` knows: YuNet, the face detector with five landmarks, for OpenCV 4."""


def store_dir() -> Path:
    """Where pulled files lie: `$DEEPFER_HOME/models`, else the user's data folder."""
    home = os.environ.get("DEEPFER_HOME")
    if home:
        return Path(home) / "models"
    from platformdirs import user_data_path

    return user_data_path("deepfer", appauthor=False) / "models"


def cache_dir() -> Path:
    """Where things lie that can be made again: `$DEEPFER_CACHE`, else the user's cache folder."""
    cache = os.environ.get("DEEPFER_CACHE")
    if cache:
        return Path(cache)
    from platformdirs import user_cache_path

    return user_cache_path("deepfer", appauthor=False)


def pulled(name: str) -> Path | None:
    """The pulled file called `name`, where there is one. Its hash was checked when it was written."""
    path = store_dir() / PULLABLE[name].file
    return path if path.is_file() else None


def pull(name: str, *, url: str | None = None) -> Path:
    """Fetch a known file, check its SHA-256 and put it into the store; a file that is there and right is not fetched
    again.

    `url` names a mirror. Raises ModelError for an unknown name, a failed download or a wrong hash; nothing wrong is
    ever kept.
    """
    if name not in PULLABLE:
        raise ModelError(f"no model named '{name}' can be pulled", f"known: {', '.join(PULLABLE)}")
    wanted = PULLABLE[name]
    target = store_dir() / wanted.file
    if target.is_file() and sha256_of(target) == wanted.sha256:
        return target
    place = url or wanted.url
    with atomic_path(target) as part:
        found = fetch(place, part, limit=wanted.size)
        if found != wanted.sha256:
            raise ModelError(
                f"what {place} sends is not {wanted.file}: SHA-256 {found}, not {wanted.sha256}",
                "name a mirror with --url",
            )
    return target


def fetch(url: str, part: Path, *, limit: int) -> str:
    """Write what `url` sends to `part`, and return its SHA-256; stops behind `limit` bytes."""
    import http.client  # 20 ms that no other start has to pay
    import urllib.error
    import urllib.request

    if not url.startswith(("http://", "https://")):
        raise ModelError(f"a mirror is an http or https URL, not '{url}'")
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
        raise ModelError(
            f"{url} cannot be fetched: {reason}", "check the network, or name a mirror with --url"
        ) from None
    return digest.hexdigest()
