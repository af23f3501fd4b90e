"""Configuration files and words of the command line that cannot be meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

kind = pytest.mark.fault


def see_yaml(fault: Any, content: str | bytes) -> None:
    (fault.folder / "my.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    fault.see("convert", "faces.csv", "out", "--config", "my.yaml")


@pytest.fixture(autouse=True)
def _source(table: Path) -> None:
    """There is something to convert."""


@kind("yaml: key twice", "`seed: 1` and `seed: 2`", "refused with the line")
def test_yaml_key_twice(fault: Any) -> None:
    see_yaml(fault, "seed: 1\nseed: 2\n")


@kind("yaml: yes for a number", "`seed: yes`, which yaml reads as true", "refused with the key")
def test_yaml_yes(fault: Any) -> None:
    see_yaml(fault, "seed: yes\n")


@kind("yaml: infinity", "`margin: .inf`", "refused with the key")
def test_yaml_infinity(fault: Any) -> None:
    see_yaml(fault, "margin: .inf\n")


@kind("yaml: value of no type", "`seed: !!float x`", "refused")
def test_yaml_type(fault: Any) -> None:
    see_yaml(fault, "seed: !!float x\n")


@kind("yaml: impossible date", "`name: 2024-02-99`", "refused")
def test_yaml_date(fault: Any) -> None:
    see_yaml(fault, "name: 2024-02-99\n")


@kind("yaml: nested 3,000 times", "brackets in brackets", "refused")
def test_yaml_nested(fault: Any) -> None:
    see_yaml(fault, "name: " + "[" * 3000 + "]" * 3000)


@kind("yaml: value of 5,000 characters", "`seed: xxx…`", "refused; the value is cut")
def test_yaml_long(fault: Any) -> None:
    see_yaml(fault, f"seed: {'x' * 5000}\n")


@kind("yaml: no text", "bytes that are no UTF-8", "refused")
def test_yaml_bytes(fault: Any) -> None:
    see_yaml(fault, b"name: \xff\xfe\n")


@kind("yaml: unknown key", "`sede: 1`", "refused with the nearest key")
def test_yaml_unknown(fault: Any) -> None:
    see_yaml(fault, "sede: 1\n")


@kind("yaml: object of Python", "`!!python/object/apply:os.getcwd []`", "refused, never made")
def test_yaml_object(fault: Any) -> None:
    see_yaml(fault, "name: !!python/object/apply:os.getcwd []\n")


@kind("yaml: a list", "a file of `- seed` lines", "refused")
def test_yaml_list(fault: Any) -> None:
    see_yaml(fault, "- seed\n")


@kind("command: unknown word", "`deepfer convrt`", "exit 2, nothing is done")
def test_unknown_command(fault: Any) -> None:
    fault.see("convrt", "faces.csv", "out", code=2, says="No such command 'convrt'")


@kind("command: value out of bounds", "`--seed -1`", "refused with the bounds")
def test_out_of_bounds(fault: Any) -> None:
    fault.see("convert", "faces.csv", "out", "--seed", "-1")
