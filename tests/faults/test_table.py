"""docs/reliability.md as a whole: all kinds that the tests declare, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "reliability.md"


def declared() -> list[str]:
    """The kinds that the tests beside this one declare."""
    nodes = (node for path in HERE.glob("test_*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    calls = (node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name))
    found = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "kind"]
    return [str(word.value) for word in found if isinstance(word, ast.Constant)]


def test_the_page_has_every_kind_and_no_other() -> None:
    kinds = declared()
    assert len(set(kinds)) == len(kinds) >= 45
    table = PAGE.read_text(encoding="utf-8").partition("<!-- faults -->")[2].partition("<!-- end of faults -->")[0]
    rows = [re.split(r" (?<!\\)\| ", line[2:-2]) for line in table.splitlines()[3:]]
    assert sorted(row[0] for row in rows) == sorted(kinds)
    assert all(len(row) == 4 and row[3].endswith("; nothing lost") for row in rows)
    assert "Traceback" not in table


def test_the_page_has_a_thousand_mutations_of_every_format() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("<!-- mutations -->")[2].partition("<!-- end of mutations")[0]
    rows = [re.split(r" (?<!\\)\| ", line[2:-2]) for line in table.splitlines()[3:]]
    formats = {"csv", "manifest", "dataset.json", "card", "onnx", "yaml", "metrics.json", "zip", "tar", "multipart"}
    assert {*formats, "corrections"} <= {row[0] for row in rows}
    for name, n, refused, unchanged, changed, why in rows:
        counts = [int(number) for number in re.findall(r": (\d+)", changed)]
        assert int(n.replace(",", "")) == int(refused) + int(unchanged) + sum(counts) >= 1000, name
        assert bool(counts) != why.startswith("nothing"), name
