"""The files of onnxruntime-web, which runs the models in browsers: found where they lie, fetched only when asked."""

from __future__ import annotations

import base64
import gzip
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from deepfer_yolo.errors import MissingDependencyError, ModelError
from deepfer_yolo.files import staged_tree
from deepfer_yolo.runtime.model_file import fetch, store_dir

NAME, VERSION = "onnxruntime-web", "1.30.0"
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""SHA-512 of the package that npm sends, in base64."""
ARCHIVE_BYTES = 33_106_585
WASM = "ort-wasm-simd-threaded.wasm.gz"
FILES = {
    "ort.wasm.min.mjs": "ort.wasm.min.js",
    "ort-wasm-simd-threaded.mjs": "ort-wasm-simd-threaded.js",
    "ort-wasm-simd-threaded.wasm": WASM,
}
"""What of the package is used, and what it is called here: many web hosts do not know that `.mjs` is JavaScript, and
none but the best compress 14 MB of WebAssembly to 3.7.

The entry without WebGPU: the default one loads twice as much for the same answers.
"""
PACKAGED = Path(__file__).parent / "ort"
"""Where the wheel carries the files, which git ignores in a checkout."""
IS_CHECKOUT = (PACKAGED.parents[2] / "pyproject.toml").is_file()


def runtime_folder() -> Path | None:
    """The folder that holds all the files, packaged or pulled; None where there is none."""
    return next((folder for folder in (PACKAGED, _store()) if _is_whole(folder)), None)


def runtime_files() -> dict[str, Path]:
    """Name and place of each file. Raises MissingDependencyError where they are neither packaged nor pulled."""
    folder = runtime_folder()
    if folder is None:
        reason = f"the files of {NAME} {VERSION}, which run the model in the browser, are not here"
        raise MissingDependencyError(reason, f"deepfer models pull {NAME}")
    return {name: folder / name for name in FILES.values()}


def size_of(folder: Path) -> int:
    """Bytes of all the files."""
    return sum((folder / name).stat().st_size for name in FILES.values())


def _is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES.values())


def pull_runtime(folder: Path | None = None, *, url: str | None = None) -> Path:
    """Fetch the package by npm, or from a mirror's `url`, check its SHA-512, and write the files into `folder`: without
    one into a checkout's package, from where they get into the wheel, else into the store of pulled files.

    What is there already is not fetched again. Raises MissingDependencyError without npm and ModelError for a failed
    download or a wrong hash.
    """
    folder = folder or (PACKAGED if IS_CHECKOUT else _store())
    if _is_whole(folder):
        return folder
    with tempfile.TemporaryDirectory(prefix="deepfer-npm-") as scratch:
        archive = Path(scratch) / "package.tgz"
        if url is None:
            _pack(archive)
        else:
            fetch(url, archive, limit=ARCHIVE_BYTES)
        found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != INTEGRITY:
            reason = f"what came is not {NAME} {VERSION}: SHA-512 {found}, not {INTEGRITY}"
            raise ModelError(reason, "name a mirror with --url")
        with staged_tree(folder, overwrite=True) as staged, tarfile.open(archive) as packed:
            for member, name in FILES.items():
                content = packed.extractfile(f"package/dist/{member}")
                assert content is not None
                raw = content.read()
                is_packed = name.endswith(".gz")
                (staged / name).write_bytes(gzip.compress(raw, 9, mtime=0) if is_packed else raw)
    return folder


def _store() -> Path:
    return store_dir() / f"{NAME}-{VERSION}"


def _pack(archive: Path) -> None:
    """Let npm, with its own settings of registry and proxy, fetch the package."""
    npm = shutil.which("npm")
    if npm is None:
        raise MissingDependencyError(
            f"npm, which fetches {NAME}, is not here",
            f"Debian, Ubuntu: apt-get install -y npm; or: deepfer models pull {NAME} --url URL of the .tgz",
        )
    command = [npm, "pack", "--ignore-scripts", "--silent", f"{NAME}@{VERSION}"]
    try:
        done = subprocess.run(command, cwd=archive.parent, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        raise ModelError(f"npm did not fetch {NAME} in ten minutes", "check the network and npm's settings") from None
    packed = archive.with_name(f"{NAME}-{VERSION}.tgz")
    if done.returncode != 0 or not packed.is_file():
        said = " ".join((done.stderr or done.stdout).split())[-200:]
        raise ModelError(f"npm could not fetch {NAME} {VERSION}: {said}", "check the network and npm's settings")
    packed.rename(archive)
