"""What is wrong with a source, collected so that it is reported in one go."""

from __future__ import annotations

from dataclasses import dataclass, field

from deepfer_yolo.errors import DatasetError

SHOWN = 20
KEPT = 100_000


@dataclass(slots=True)
class Problems:
    """Everything found wrong so far, each with its place (`file, line 7`); the first KEPT are remembered, all are counted.

    `excluded` are places that a quarantine list names, `met` those of them that came by.
    """

    found: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0
    excluded: set[str] = field(default_factory=set)
    met: set[str] = field(default_factory=set)

    def add(self, place: str, what: str) -> None:
        """Note one problem, unless its place is `excluded`."""
        if place in self.excluded:
            self.met.add(place)
            return
        self.count += 1
        if len(self.found) < KEPT:
            self.found.append((place, what))

    def raise_if_any(self, hint: str) -> None:
        """Raise one DatasetError that lists the problems, SHOWN of them at most, with their number."""
        if not self.count:
            return
        lines = [printable(f"{place}: {what}") for place, what in self.found[:SHOWN]]
        if self.count == 1:
            raise DatasetError(lines[0], hint)
        if self.count > SHOWN:
            lines.append(f"… and {self.count - SHOWN:,} more")
        raise DatasetError("\n  ".join([f"{self.count:,} problems", *lines]), hint)


def printable(text: str) -> str:
    """`text` without line breaks, control characters or broken bytes, so that a hostile file name cannot write to the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
