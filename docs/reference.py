"""Write the command reference of README.md from the commands' own help: `python docs/reference.py`; a test checks that it is current."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import typer.main

from deepfer_yolo.cli.app import app

README = Path(__file__).resolve().parent.parent / "README.md"
START, END = "<!-- reference: written by docs/reference.py -->", "<!-- end of reference -->"


def reference() -> str:
    """The whole section as Markdown: one fold a command, with its arguments and options."""
    return "\n".join(_fold(" ".join(words), command) for words, command in sorted(leaves()))


def leaves() -> list[tuple[tuple[str, ...], Any]]:
    """Every command and subcommand, as (words, command)."""
    found = []
    todo = [((name,), command) for name, command in typer.main.get_command(app).commands.items()]  # type: ignore[attr-defined]
    while todo:
        words, command = todo.pop()
        children = getattr(command, "commands", None)
        if children:
            todo += [((*words, name), child) for name, child in children.items()]
        else:
            found.append((words, command))
    return found


def insert(readme: str) -> str:
    """`readme` with the section between the markers replaced."""
    before, rest = readme.split(START)
    return f"{before}{START}\n{reference()}\n{END}{rest.split(END)[1]}"


def _fold(name: str, command: Any) -> str:
    paragraphs = inspect.cleandoc(command.help).split("\n\n")
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = " ".join([f"deepfer {name}", *(_placeholder(p) for p in arguments), "[options]"])
    lines = [f"<details><summary><code>deepfer {name}</code> · {_one_line(paragraphs[0])}</summary>", "", "```", usage, "```", ""]
    lines += [_one_line(text) + "\n" for text in paragraphs[1:] if not text.startswith("Example")]
    examples = [re.sub(r"^Examples?:\s*", "", text) for text in paragraphs[1:] if text.startswith("Example")]
    lines += ["```sh", *("\n".join(line.strip() for line in text.splitlines() if line.strip()) for text in examples), "```", ""]
    lines += ["| argument, option | what it does | default |", "|---|---|---|"]
    lines += [_row(p) for p in command.params if p.name != "help"]
    return "\n".join([*lines, "", "</details>", ""])


def _row(parameter: Any) -> str:
    names = (
        parameter.metavar or parameter.name.upper()
        if parameter.param_type_name == "argument"
        else ", ".join([*parameter.opts, *parameter.secondary_opts])
    )
    return f"| `{names}` | {_one_line(parameter.help).replace('|', '∣')} | {_default(parameter)} |"


def _default(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        return parameter.show_default.replace("|", "∣")
    if parameter.required:
        return "required"
    if parameter.default in (None, False, (), []) or not parameter.show_default:
        return "" if parameter.default is not True else "on"
    return str(parameter.default)


def _placeholder(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return f"{name}…" if parameter.nargs == -1 else str(name)


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    README.write_text(insert(README.read_text(encoding="utf-8")), encoding="utf-8")
