"""The promises of the repository as a whole: help and documents complete, files small, start-up light, presets valid."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import itertools
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from deepfer_yolo import config as config_module
from deepfer_yolo.cli.app import COMMANDS
from deepfer_yolo.config import Config, configs_dir, resolve

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "deepfer_yolo"
SOURCES = sorted(PACKAGE.rglob("*.py"))
NAMES = [name for names in COMMANDS.values() for name in names]
SECTIONS = {
    name.removesuffix("Config").lower(): section
    for name, section in inspect.getmembers(config_module, inspect.isclass)
    if issubclass(section, Config) and section is not Config
}


def load_reference() -> ModuleType:
    """The script that writes the README's command reference."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = load_reference()
LEAVES = {" ".join(words): command for words, command in REFERENCE.leaves()}


def test_the_readmes_reference_is_current() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert REFERENCE.insert(readme) == readme, "run: .venv/bin/python docs/reference.py"
    assert all(f"<code>deepfer {name}</code>" in readme for name in LEAVES)


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
    heavy = ("numpy", "torch", "torchvision", "ultralytics", "cv2", "onnx", "onnxruntime", "av", "sklearn", "scipy", "matplotlib", "PIL")
    code = (
        "import sys, contextlib, io\n"
        "from deepfer_yolo.cli.app import app\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    app(['--help'])\n"
        "assert 'doctor' in out.getvalue()\n"
        f"print([name for name in {heavy!r} if name in sys.modules])\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted(configs_dir().rglob("*.yaml")), ids=lambda path: str(path.relative_to(configs_dir())))
def test_every_preset_loads_and_gives_a_reason_a_line(path: Path) -> None:
    folder = path.parent.name
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if folder == "models":
        assert {"nc", "backbone", "head"} <= set(content)
        return
    section = SECTIONS[folder]
    resolved = resolve(section, path.stem)
    assert resolved.model_dump(include=set(content), mode="json") == {
        key: section.model_validate({key: value}).model_dump(mode="json")[key] for key, value in content.items()
    }
    lines = ["", *path.read_text(encoding="utf-8").splitlines()]
    for above, line in itertools.pairwise(lines):
        if re.match(r"^\w+:", line):
            assert "#" in line or above.startswith("#"), f"{path}: '{line}' gives no reason, neither on its line nor above"


def test_public_names_all_load() -> None:
    import deepfer_yolo

    for name in deepfer_yolo.__all__:
        assert getattr(deepfer_yolo, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = deepfer_yolo.nonsense


def as_shown(default: object) -> str:
    """A default value as the help writes it."""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default).lower()


def test_shown_defaults_are_the_defaults_of_the_configuration() -> None:
    wrong = []
    for name in NAMES:
        section = SECTIONS.get(name)
        function = getattr(importlib.import_module(f"deepfer_yolo.cli.{name}"), name)
        if section is None or not callable(function):
            continue
        for key, parameter in inspect.signature(function, eval_str=True).parameters.items():
            shown = next((m.show_default for m in getattr(parameter.annotation, "__metadata__", ()) if hasattr(m, "show_default")), None)
            if key not in section.model_fields or not isinstance(shown, str):
                continue
            default = section.model_fields[key].default
            if default not in (None, (), "auto") and as_shown(default) not in shown.lower():
                wrong.append(f"{name} --{key}: help shows {shown!r}, the default is {default!r}")
    assert not wrong, "\n".join(wrong)


def test_the_repository_names_no_place_of_its_making() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    pattern = re.compile("/" + "work/|/" + "root/|index" + "-url|registry" + "=")
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".html", ".js", ".css", ""} and path.is_file():
            found += [f"{name}:{n}" for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if pattern.search(line)]
    assert not found
