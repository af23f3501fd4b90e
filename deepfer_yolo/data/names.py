"""File names that every file system takes."""

from __future__ import annotations

import hashlib

MAX_BYTES = 80
UNSAFE = frozenset('<>:"/\\|?*')
WINDOWS_NAMES = frozenset({"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10))})


def safe_name(wish: str) -> str:
    """`wish` where every file system takes it; else what is unsafe becomes %hex, and what is too long or reserved bears a hash of it."""
    name = "".join(c if c.isprintable() and c not in UNSAFE and not "\ud800" <= c <= "\udfff" else f"%{ord(c):x}" for c in wish)
    name = name.strip(" .") or "picture"
    if len(name.encode()) > MAX_BYTES or name.lower().split(".")[0] in WINDOWS_NAMES:
        name = f"{name[:20]}-{hashlib.sha256(wish.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
    return name


def unique_name(wish: str, taken: set[str], suffix: str = "") -> str:
    """A safe name with `suffix` that differs from all `taken` by more than case, and is added to them."""
    stem = safe_name(wish)
    name, number = stem + suffix, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    taken.add(name.casefold())
    return name
