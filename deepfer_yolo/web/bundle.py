"""The files of the page that works in the visitor's browser, for one model: to be served, or written for a web host."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from deepfer_yolo import __version__
from deepfer_yolo.config import FaceConfig
from deepfer_yolo.errors import ConfigError, ModelError
from deepfer_yolo.faces import search
from deepfer_yolo.faces.detect import FRAME_PX, IMAGE_PX, MAX_CANDIDATES, YUNET_NAME, find_face_model
from deepfer_yolo.files import staged_tree
from deepfer_yolo.records import Json
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.golden import SAME_LABEL, check_golden, golden_inputs, tolerance_of
from deepfer_yolo.runtime.model_file import LIVE, locate
from deepfer_yolo.runtime.onnx_graph import INPUT, OUTPUT, io_shapes, read_graph
from deepfer_yolo.web.graph_bytes import output_names, with_free_sides, without_metadata
from deepfer_yolo.web.runtime_files import NAME, VERSION, WASM, runtime_files
from deepfer_yolo.web.source import PAGE, source_zip

MAX_DETECTOR_BYTES = 4_000_000
DETECTOR_OUTPUTS = frozenset(f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32))

WebFiles = dict[str, bytes | Path]
"""Relative path, with `/`, to the content or the file that holds it."""


def web_files(model: Path | None, detector: Path | None = None) -> WebFiles:
    """All files of the page for a shipped model's name or an ONNX file, None for the one that is used for faces out of
    frames; `detector` is a YuNet file.

    The model is proven by its golden answers first. Its public copy has no metadata: what the page needs of its card is
    `model.json`. Raises ModelError for what a browser cannot run, and MissingDependencyError without onnxruntime-web.
    """
    files: WebFiles = {f"onnxruntime/{name}": path for name, path in runtime_files().items()}
    classifier = _proven(model)
    files["model.onnx"] = bytes(without_metadata(classifier.path.read_bytes()))
    files["golden.bin"] = golden_inputs(classifier.card).tobytes()
    if detector is not None:
        files["detector.onnx"] = _public_detector(detector)
    sizes = {
        name: len(content) if isinstance(content, bytes) else content.stat().st_size for name, content in files.items()
    }
    batch = io_shapes(read_graph(classifier.path), classifier.path)[0][0]
    files["model.json"] = json.dumps(_public_card(classifier.card, batch, sizes), indent=1).encode()
    for path in PAGE.rglob("*"):
        if path.is_file():
            files[path.relative_to(PAGE).as_posix()] = path
    files["source.zip"] = source_zip()
    return _with_list(files)


@dataclass(frozen=True, slots=True)
class WebFolder:
    """A written folder: where, of which model, with which detector, how large."""

    path: Path
    model: str
    detector: str | None
    n_files: int
    n_bytes: int

    def to_json(self) -> Json:
        """As --json prints it."""
        return {
            "path": str(self.path),
            "model": self.model,
            "detector": self.detector,
            "n_files": self.n_files,
            "n_bytes": self.n_bytes,
        }


def write_web(model: Path | None, folder: Path, *, detector: Path | None = None, overwrite: bool = False) -> WebFolder:
    """Write the page's files into a folder that any web host can serve.

    Raises DeepferError where the folder is not empty and `overwrite` was not given.
    """
    with staged_tree(folder, overwrite=overwrite) as staged:
        files = web_files(model, detector)
        for name, content in files.items():
            target = staged / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, target)
            else:
                target.write_bytes(content)
        n_bytes = sum((staged / name).stat().st_size for name in files)
    found = YUNET_NAME if detector is not None else None
    return WebFolder(folder, model_name(files), found, len(files), n_bytes)


def model_name(files: WebFiles) -> str:
    """What the model of the page is called."""
    card = files["model.json"]
    assert isinstance(card, bytes)
    return str(json.loads(card)["name"])


def web_detector(config: FaceConfig) -> Path | None:
    """The YuNet file that a browser runs by `config`; None for whole images, or where none was pulled.

    Raises ConfigError for a detector that only runs here, and ModelError where a named file is missing.
    """
    if config.detector not in ("auto", YUNET_NAME, "whole"):
        raise ConfigError(f"a browser finds faces by YuNet alone, not by {config.detector}", "--detector yunet")
    if config.detector == "whole":
        return None
    found = find_face_model(config.face_model)
    if found is None and config.detector == YUNET_NAME:
        raise ModelError("the YuNet face detector file is not here", "deepfer models pull yunet fetches it")
    return found


def _proven(model: Path | None) -> Classifier:
    path = locate(Path(LIVE) if model is None else model)
    if path.suffix != ".onnx":
        reason = f"a browser runs ONNX files, not {path}"
        hint = (
            f"deepfer export {path} --format onnx, and name that file" if path.suffix == ".pt" else "name an ONNX file"
        )
        raise ModelError(reason, hint)
    classifier = Classifier(path)
    result = check_golden(classifier)
    if not result.passed:
        reason = f"{classifier.path} fails its golden self-test ({result.difference})"
        raise ModelError(reason, f"deepfer verify {classifier.path}")
    return classifier


def _public_card(card: Card, batch: int | None, sizes: dict[str, int]) -> Json:
    """What the page may know of the model, and shows: how often it is right, and of what it has learned the name alone;
    no hash of images or checkpoints.
    """
    assert card.golden is not None
    tolerance = tolerance_of(card)
    detector = {
        "file": "detector.onnx",
        "bytes": sizes.get("detector.onnx"),
        "image_px": IMAGE_PX,
        "frame_px": FRAME_PX,
        "min_score": FaceConfig().min_score,
        "max_candidates": MAX_CANDIDATES,
        "search": {name.lower(): getattr(search, name) for name in _SEARCH},
    }
    return {
        "schema": 1,
        "deepfer": __version__,
        "runtime": {"name": NAME, "version": VERSION, "bytes": sizes[f"onnxruntime/{WASM}"]},
        "name": card.name,
        "labels": list(card.labels),
        "input": card.input.model_dump(mode="json"),
        "crop": card.crop.model_dump(mode="json"),
        "precision": card.precision,
        "license": card.license,
        "intended_use": card.intended_use,
        "metrics": {part: value for part, value in card.metrics.items() if part != "parity"},
        "trained_on": None if card.trained_on is None else {"name": card.trained_on.name},
        "producer": dict(card.producer),
        "model": {"file": "model.onnx", "bytes": sizes["model.onnx"], "input": INPUT, "output": OUTPUT, "batch": batch},
        "golden": {
            "inputs": "golden.bin",
            "n": card.golden.n,
            "probs": list(card.golden.probs),
            "tolerance": tolerance,
            "same_label": tolerance >= SAME_LABEL,
        },
        "detector": detector if "detector.onnx" in sizes else None,
    }


_SEARCH = (
    *("BASE_PX", "ONE_SIZE_PX", "STEP", "SMALL_PX", "TILE_PX", "OVERLAP_PX"),
    *("WEAK_SCORE", "SMALL_FACE_PX", "WINDOW_PX", "MAX_FACES"),
)
"""The numbers of faces/search.py, which the page searches by too."""


def _public_detector(path: Path) -> bytes:
    if path.stat().st_size > MAX_DETECTOR_BYTES:
        raise ModelError(f"{path} is larger than a YuNet file", "deepfer models pull yunet fetches one")
    content = path.read_bytes()
    try:
        if output_names(content) == DETECTOR_OUTPUTS:
            return bytes(with_free_sides(content))
    except ValueError:
        pass
    raise ModelError(f"{path} is not a YuNet file", "deepfer models pull yunet fetches one")


def _with_list(files: WebFiles) -> WebFiles:
    """The files with their list, and the service worker, which begins with it: browsers know a new one by its bytes."""
    text = (PAGE / "sw.js").read_bytes()
    del files["sw.js"]
    listed: list[Json] = []
    for name in sorted(files):
        content = files[name]
        raw = content.read_bytes() if isinstance(content, Path) else content
        listed.append({"path": name, "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()})
    version = hashlib.sha256(json.dumps(listed).encode() + text).hexdigest()[:16]
    bundle = json.dumps({"version": version, "files": listed}, indent=1).encode()
    files["files.json"] = bundle + b"\n"
    files["sw.js"] = b"const BUNDLE = " + bundle + b";\n" + text
    return files
