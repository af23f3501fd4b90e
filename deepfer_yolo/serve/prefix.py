"""Under which path a proxy publishes the server, and requests as the routes know them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

if TYPE_CHECKING:
    from starlette.types import Scope

PREFIX = re.compile(r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._~-]+)+")
"""What may stand in a Location and a cookie's path as it is."""


def is_prefix(text: str) -> bool:
    """Whether a text can be the path under which a server is published."""
    return PREFIX.fullmatch(text) is not None


def placed(scope: Scope, root_path: str) -> Scope:
    """A request with its prefix in `root_path` and, as ASGI has it, in front of its path, whether the proxy has cut it
    off or not.

    The prefix is the configured one, else what X-Forwarded-Prefix says; it decides nothing but the links in the answer
    to that same request, so that anyone may send it.
    """
    prefix = root_path or Headers(scope=scope).get("x-forwarded-prefix", "").rstrip("/")
    if not is_prefix(prefix):
        return scope
    path = scope["path"]
    if path != prefix and not path.startswith(f"{prefix}/"):
        path = prefix + path
    return {**scope, "root_path": prefix, "path": path}


def route_of(scope: Scope) -> str:
    """The path without its prefix; empty where it is the prefix alone, without a slash at its end."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
