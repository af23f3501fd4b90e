"""Runs each NAME.sh beside this file (or those named) and prints a table of answers and versions.

A finding exits 0 where it holds, 1 where the behaviour has changed, 69 where its packages cannot be had or started.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

ANSWERS = {0: "holds", 1: "changed", 69: "not run"}


def pinned(script: Path) -> list[str]:
    """What the script installs, as `name==version`."""
    text = script.read_text().replace("\\\n", " ")
    return re.findall(r"[\w\[\]-]+==[\w.]+", " ".join(re.findall(r'pip" install .*', text)))


def main(scripts: list[Path]) -> int:
    """1 if any finding does not hold."""
    rows, n_other = [("finding", "answer", "seconds", "with")], 0
    for script in scripts:
        began = time.monotonic()
        done = subprocess.run([script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        answer = ANSWERS.get(done.returncode, f"broke ({done.returncode})")
        n_other += done.returncode != 0
        print(f"{script.stem}: {answer}\n{done.stdout}", flush=True)
        rows.append((script.stem, answer, f"{time.monotonic() - began:.0f}", ", ".join(pinned(script))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print("\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows))
    print(f"{len(scripts) - n_other} of {len(scripts)} findings hold")
    return int(n_other > 0)


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.exit(main([here / f"{name}.sh" for name in sys.argv[1:]] or sorted(here.glob("*.sh"))))
