"""Write docs/reference.md from the commands' own help and the keys of config.py; a test checks that it is current.

python docs/reference.py
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import typer.main

from deepfer_yolo import config, recipe, servers
from deepfer_yolo.cli.app import COMMANDS, app, load
from deepfer_yolo.presets import key_of, shown_default

REFERENCE = Path(__file__).resolve().parent / "reference.md"
HEAD = """# Command reference

<!-- Written by `python docs/reference.py` from the commands' own help. Change the help, not this page. -->

`deepfer COMMAND --help` shows the same text. A flag wins over a `--config` file, which wins over the default; the
resolved configuration is saved with the run. An unknown key is an error that names the nearest one. Results go to
stdout, progress to stderr.
"""
EXIT_CODES = """
| exit code | meaning |
|---|---|
| 0 | done |
| 1 | an error; a damaged or tampered file is one |
| 2 | a command line that cannot be understood |
| 3 | a gate failed: accuracy, audit, parity or verify |
| 4 | some sources failed, others did not |
| 5 | inconclusive: too little data to decide |
| 130, 143 | interrupted by Ctrl-C or SIGTERM; where a run can go on, the last line says how |
"""
ENVIRONMENT = {
    "DEEPFER_TOKEN": "The token of `deepfer serve` and `review`, where the list of processes does not show it.",
    "DEEPFER_HOME": "Pulled models lie in its folder `models`; otherwise in the user's data folder (XDG).",
    "DEEPFER_FACE_MODEL": "The YuNet file, where it was not pulled.",
    "DEEPFER_CACHE": "The folder of TensorRT engines, of what reviews found and of notes about files that opened; else "
    "`~/.cache/deepfer`.",
    "DEEPFER_WEBHOOK_SECRET": "Signs what the webhook sink of `deepfer stream` sends.",
    "DEEPFER_STORAGE": "The database of `deepfer tune`, where the list of processes does not show its password.",
    "DEEPFER_DEBUG": "Any value: show the traceback of an error, as `--debug` does.",
}

BOUNDS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
    "multipleOf": "multiple of",
}


def reference() -> str:
    """The whole page as Markdown: a list of the commands by panel, what holds for all, then one section a command."""
    found = dict(sorted((" ".join(words), command) for words, command in leaves()))
    lines = [HEAD]
    for panel, names in COMMANDS.items():
        links = [f"[{name}](#deepfer-{name.replace(' ', '-')})" for name in found if name.split()[0] in names]
        lines.append(f"- **{panel}**: {' · '.join(links)}")
    lines += [EXIT_CODES, "| environment variable | what it does |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in ENVIRONMENT.items()]
    lines += ["", "| option before the command | what it does | default |", "|---|---|---|"]
    lines += [_row(p) for p in typer.main.get_command(app).params if p.name != "help"]
    return "\n".join([*lines, "", *(_section(name, command) for name, command in found.items())])


def leaves() -> list[tuple[tuple[str, ...], Any]]:
    """Every command and subcommand, as (words, command)."""
    found = []
    todo = [((name,), load(name)) for names in COMMANDS.values() for name in names]
    while todo:
        words, command = todo.pop()
        children = getattr(command, "commands", None)
        if children:
            todo += [((*words, name), child) for name, child in children.items()]
        else:
            found.append((words, command))
    return found


def _section(name: str, command: Any) -> str:
    paragraphs = inspect.cleandoc(command.help).split("\n\n")
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    examples = [re.sub(r"^Examples?:\s*", "", text) for text in paragraphs[1:] if text.startswith("Example")]
    lines = [f"## deepfer {name}", "", *(_cell(text) + "\n" for text in paragraphs if not text.startswith("Example"))]
    usage = " ".join([f"deepfer {name}", *(_placeholder(p) for p in arguments), "[options]"])
    lines += [f"Usage: `{usage}`", "", "```sh"]
    lines += [line.strip() for text in examples for line in text.splitlines() if line.strip()]
    lines += ["```", "", "| argument, option | what it does | default |", "|---|---|---|"]
    lines += [_row(p) for p in command.params if p.name != "help"]
    flags = {flag.lstrip("-").replace("-", "_") for p in command.params for flag in p.opts}
    return "\n".join([*lines, "", *_keys(name, flags)])


def _row(parameter: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    names = _placeholder(parameter) if is_argument else ", ".join([*parameter.opts, *parameter.secondary_opts])
    return f"| `{names}` | {_cell(parameter.help)} | {_default(parameter)} |"


def _default(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        return _cell(parameter.show_default)
    if parameter.required:
        return "required"
    if parameter.default in (None, False, (), []) or not parameter.show_default:
        return "" if parameter.default is not True else "on"
    return str(parameter.default)


def _placeholder(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper()).rstrip(".")
    return f"{name}..." if parameter.nargs == -1 else name


def _keys(name: str, flags: set[str]) -> list[str]:
    """The table of the keys that a yaml file of this command takes and no flag sets."""
    section = (vars(config) | vars(recipe) | vars(servers)).get(f"{name.capitalize()}Config")
    option = next((word for word in ("space", "as", "config") if word in flags), None)
    if section is None or option is None:
        return []
    flagged = {key_of(section, flag) for flag in flags - {"space"}}
    fields = {key: field for key, field in section.model_fields.items() if key not in flagged}
    if not fields:
        return []
    shapes = section.model_json_schema()["properties"]
    lines = [f"| key of a `--{option}` file alone | what it does | values | default |", "|---|---|---|---|"]
    for key, field in fields.items():
        cells = (field.description or "", _values(shapes[key]), shown_default(field).replace(",", ", "))
        lines.append(f"| `{key}` | {' | '.join(map(_cell, cells))} |")
    return [*lines, ""]


def _values(shape: dict[str, Any]) -> str:
    """What a key may hold, from its JSON schema: the choices, or the kind of value with its bounds."""
    if "anyOf" in shape:
        return ", ".join(text for option in shape["anyOf"] if (text := _values(option)))
    if "enum" in shape or "const" in shape:
        return ", ".join(map(str, shape.get("enum", [shape.get("const")])))
    if "$ref" in shape:
        return "keys of its own"
    if shape.get("type") == "array":
        return f"a list: {_values(shape['items'])}"
    if shape.get("type") == "object":
        return "a value for each name"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "on, off", "null": ""}
    limits = [f"{sign} {shape[key]:.10g}" for key, sign in BOUNDS.items() if key in shape]
    return " ".join([words[shape["type"]], ", ".join(limits)]).strip()


def _cell(text: str) -> str:
    """A text on one line, with the characters that Markdown would take for its own replaced."""
    return re.sub(r"<(?=\w)", "&lt;", " ".join(text.split()).replace("|", "∣"))


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
