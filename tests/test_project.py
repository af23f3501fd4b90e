"""The promises of the repository: help and documents complete, files small, start-up light, presets valid."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
import yaml

from deepfer_yolo import config, recipe, servers
from deepfer_yolo.cli.app import COMMANDS
from deepfer_yolo.presets import Config, configs_dir, key_of, resolve, shown_default

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "deepfer_yolo"
SOURCES = sorted(PACKAGE.rglob("*.py"))
NAMES = [name for names in COMMANDS.values() for name in names]
SECTIONS = {
    name.removesuffix("Config").lower(): section
    for module in (config, recipe, servers)
    for name, section in inspect.getmembers(module, inspect.isclass)
    if issubclass(section, Config) and section is not Config
}


def load_reference() -> ModuleType:
    """The script that writes the command reference."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = load_reference()
LEAVES = {" ".join(words): command for words, command in REFERENCE.leaves()}


def test_the_command_reference_is_current() -> None:
    page = REFERENCE.REFERENCE.read_text(encoding="utf-8")
    assert page == REFERENCE.reference(), "run: .venv/bin/python docs/reference.py"
    for name, command in LEAVES.items():
        section = page.split(f"\n## deepfer {name}\n")[1].split("\n## ")[0]
        flags = {flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")} - {"--help"}
        assert not [flag for flag in flags if f"`{flag}" not in section], f"deepfer {name}"


def test_the_command_reference_names_every_environment_variable() -> None:
    between_our_processes = {"DEEPFER_PARENT"}
    read = {name for path in SOURCES for name in re.findall(r"\"(DEEPFER_[A-Z_]+)\"", path.read_text(encoding="utf-8"))}
    assert read - between_our_processes == set(REFERENCE.ENVIRONMENT)


DOCUMENTS = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "datasets/README.md"})


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    text = without_code(path.read_text(encoding="utf-8"))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", name):
            continue
        page = (path.parent / name).resolve() if name else path
        if not page.exists() or (anchor and anchor not in anchors(page)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_files_that_exist(path: Path) -> None:
    if path.name in {"CHANGELOG.md", "decisions.md"}:
        pytest.skip("tells of former times as well")
    named = re.findall(r"`((?:deepfer_yolo|tests|docs|configs)/[\w./*-]*)`", path.read_text(encoding="utf-8"))
    real = [name for name in named if "NAME" not in name and not name.endswith("/X.py")]
    assert not [name for name in real if not list(ROOT.glob(name.rstrip("/")))]


def test_the_house_is_as_it_is_described() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {name.rstrip("/") for name in re.findall(r"`([\w./]+(?:\.py|/))`", page)}
    places = [f"/{path.relative_to(ROOT)}" for path in PACKAGE.rglob("*") if path.is_dir() or path.suffix == ".py"]
    modules = {name for name in named if not name.startswith("tests/") and not re.search(r"NAME|/X\.py", name)}
    elsewhere = {"configs", "docs/reference.py", "deepfer_yolo", "utils.py"}
    assert not [name for name in modules - elsewhere if not any(place.endswith(f"/{name}") for place in places)]
    top = {path.name for path in PACKAGE.iterdir() if not path.name.startswith("_")}
    assert top - named == set()


def first_cells(page: str, heading: str) -> list[list[str]]:
    """The cells of the rows of the first table under a heading of docs/`page`, the head left out."""
    table = (ROOT / "docs" / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1]
    rows = [line.strip("|").split(" | ") for line in table.split("\n\n|", 1)[1].split("\n\n")[0].splitlines()]
    return [[cell.strip("| ") for cell in row] for row in rows[2:]]


def test_the_limits_of_serve_are_documented_as_they_are() -> None:
    fields = SECTIONS["serve"].model_fields
    for keys, defaults, *_ in first_cells("deploy.md", "Limits"):
        found = [f"{fields[key].default:g}" for key in re.findall(r"`(\w+)`", keys)]
        assert found == defaults.split(", "), keys


def test_the_keys_of_a_card_are_documented() -> None:
    from deepfer_yolo.runtime.card import Card, CropSpec, Golden, InputSpec

    rows = first_cells("formats.md", "Model card")
    named = [key for row in rows for key in re.findall(r"`(\w+)`", row[0])]
    inside = {row[0].strip("`"): row[2] for row in rows}
    assert named == [key for key, field in Card.model_fields.items() if not field.exclude]
    for part, section in (("input", InputSpec), ("crop", CropSpec)):
        assert not [key for key in section.model_fields if f"`{key}`" not in inside[part]], part
    page = (ROOT / "docs/formats.md").read_text(encoding="utf-8").split("\n## Golden self-test\n")[1]
    assert not [key for key in Golden.model_fields if f"`{key}`" not in page]


def test_stream_records_are_documented_key_by_key() -> None:
    surface = json.loads((ROOT / "tests/surface/stream.json").read_text(encoding="utf-8"))
    for kind, keys in surface["jsonl"].items():
        rows = [row for row in first_cells("formats.md", "Stream records") if {"all", kind} & set(row[1].split(", "))]
        assert {key for row in rows for key in re.findall(r"`(\w+)`", row[0])} == set(keys), kind


def test_the_precisions_of_a_format_are_documented_as_they_are() -> None:
    from deepfer_yolo.runtime.formats import FORMATS

    for names, _, _, precisions, _ in first_cells("formats.md", "Other formats"):
        for name in re.findall(r"`(\w+)`", names):
            assert precisions == ", ".join(FORMATS[name].precisions), name


def test_documents_list_every_layout_sink_and_format() -> None:
    from deepfer_yolo.config import ExportConfig
    from deepfer_yolo.data.layouts.registry import LAYOUTS
    from deepfer_yolo.stream.sinks.registry import KINDS

    data_sets = (ROOT / "datasets/README.md").read_text(encoding="utf-8")
    formats = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
    assert not [name for name in LAYOUTS if f"`{name}`" not in data_sets], "datasets/README.md"
    assert not [kind for kind in KINDS if f"`{kind}=" not in formats], "docs/formats.md"
    names = get_args(ExportConfig.model_fields["format"].annotation)
    assert not [name for name in names if f"`{name}`" not in formats], "docs/formats.md"


def without_code(text: str) -> str:
    """Markdown without its blocks and spans of code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a Markdown page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_every_command_and_option_has_help_with_an_example(name: str) -> None:
    command = LEAVES[name]
    text = command.help or ""
    assert text.strip(), f"{name} has no help"
    assert "Example" in text, f"the help of {name} has no example"
    assert f"deepfer {name}" in text, f"the example of {name} does not call it"
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400, f"{path} has more than 400 lines: split it by noun"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{path}: {node.name} has 60 lines or more"


def test_there_is_no_module_of_leftovers() -> None:
    assert not [path for path in SOURCES if path.stem in {"utils", "helpers", "misc", "common"}]


def test_help_loads_no_heavy_module() -> None:
    heavy = (
        "numpy",
        "torch",
        "torchvision",
        "ultralytics",
        "cv2",
        "onnx",
        "onnxruntime",
        "av",
        "sklearn",
        "scipy",
        "matplotlib",
        "PIL",
        "pydantic",
        "yaml",
    )
    code = (
        "import sys, contextlib, io\n"
        "from deepfer_yolo.cli.app import app\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    app(['--help'])\n"
        "assert 'doctor' in out.getvalue()\n"
        f"print([name for name in {heavy!r} if name in sys.modules])\n"
        "print([name for name in sys.modules if name.startswith('deepfer_yolo.cli.') and not name.endswith('.app')])\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["[]", "[]"]


@pytest.mark.parametrize(
    "path", sorted(configs_dir().rglob("*.yaml")), ids=lambda path: str(path.relative_to(configs_dir()))
)
def test_every_preset_loads_and_gives_a_reason_a_line(path: Path) -> None:
    folder = path.parent.name
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if folder == "models":
        assert {"nc", "backbone", "head"} <= set(content)
        return
    section = next(section for name, section in SECTIONS.items() if (section.FOLDER or name) == folder)
    resolved = resolve(section, path.stem)
    assert resolved.model_dump(include=set(content), mode="json") == {
        key: section.model_validate({key: value}).model_dump(mode="json")[key] for key, value in content.items()
    }
    lines = ["", *path.read_text(encoding="utf-8").splitlines()]
    for above, line in itertools.pairwise(lines):
        if re.match(r"^\w+:", line):
            assert "#" in line or above.startswith("#"), (
                f"{path}: '{line}' gives no reason, neither on its line nor above"
            )


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_every_key_of_every_section_has_help(name: str) -> None:
    for key, field in SECTIONS[name].model_fields.items():
        assert field.description, f"{name}: {key} has no help: declare it by key(default, help)"
        assert field.description[-1] == ".", f"{name}: the help of {key} is no sentence"


def test_public_names_all_load() -> None:
    import deepfer_yolo

    for name in deepfer_yolo.__all__:
        assert getattr(deepfer_yolo, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = deepfer_yolo.nonsense


def test_flags_are_declared_by_the_configuration() -> None:
    apart = {"audit quarantine", "tune space"}  # files, which bear the name of a key
    n_flags = 0
    for name, command in LEAVES.items():
        fields = SECTIONS[name].model_fields if name in SECTIONS else {}
        for parameter in command.params:
            key = key_of(SECTIONS[name], parameter.name) if fields else ""
            if key in fields and f"{name} {parameter.name}" not in apart:
                n_flags += 1
                assert (parameter.help, parameter.show_default) == (
                    fields[key].description,
                    shown_default(fields[key]) or False,
                ), f"deepfer {name}: {parameter.name} is written out; name it in options_of instead"
    assert n_flags > 100


def test_children_start_with_the_default_signals() -> None:
    code = (
        "import signal\n"
        "print([int(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGQUIT)])\n"
        "print(signal.getsignal(signal.SIGINT).__name__, signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.splitlines() == ["[0, 0]", "default_int_handler set()"]


@pytest.mark.skipif(shutil.which("sh") is None, reason="no shell that could ignore a signal")
def test_as_a_job_in_the_background_they_do_too() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        inner = f"{__file__}::{test_children_start_with_the_default_signals.__name__}"
        job = "trap '' INT QUIT; exec \"$@\""
        command = [
            "sh",
            "-c",
            job,
            "sh",
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            inner,
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_the_repository_names_no_place_of_its_making() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    pattern = re.compile("/" + "work/|/" + "root/|index" + "-url|registry" + "=http")
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".html", ".js", ".css", ""}
            and path.is_file()
        ):
            found += [
                f"{name}:{n}"
                for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
                if pattern.search(line)
            ]
    assert not found
