"""`deepfer models`: the model files that are here, and fetching those that are not."""

from __future__ import annotations

from typing import Annotated

import typer

from deepfer_yolo.cli.options import JsonOption


def models(
    action: Annotated[str, typer.Argument(help="list, or pull to fetch a file.")] = "list",
    name: Annotated[str | None, typer.Argument(help="What to pull: yunet.", show_default=False)] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="Pull from this mirror; the SHA-256 stays pinned.", show_default="the maker's own"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List shipped and pulled model files, or pull one: the network is used for `pull` alone, and a wrong SHA-256 is
    refused.

    Example: deepfer models pull yunet
    """
    from deepfer_yolo.errors import ConfigError

    if action not in ("list", "pull") or (action == "pull") != (name is not None):
        raise ConfigError(
            f"deepfer models takes 'list' or 'pull NAME', not '{' '.join(filter(None, (action, name)))}'",
            "deepfer models pull yunet",
        )
    if name is not None:
        from deepfer_yolo.runtime.model_file import pull

        path = pull(name, url=url)
        _print([{"name": name, "kind": "pulled", "path": str(path), "bytes": path.stat().st_size}], is_json=json)
    else:
        _print(_known(), is_json=json)


def _known() -> list[dict[str, object]]:
    from deepfer_yolo.runtime.model_file import PULLABLE, SHIPPED, pulled

    rows: list[dict[str, object]] = []
    for path in sorted(path for path in SHIPPED.iterdir() if path.suffix in {".onnx", ".pt"}):
        rows.append({"name": path.name, "kind": "shipped", "path": str(path), "bytes": path.stat().st_size})
    for wanted in PULLABLE.values():
        here = pulled(wanted.name)
        kind = "pulled" if here else "can be pulled"
        rows.append(
            {
                "name": wanted.name,
                "kind": kind,
                "path": str(here) if here else None,
                "bytes": wanted.size,
                "license": wanted.license,
            }
        )
    return rows


def _print(rows: list[dict[str, object]], *, is_json: bool) -> None:
    from rich.table import Table

    from deepfer_yolo.cli.output import print_json, stdout

    if is_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "kind", "size", "path"):
        table.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    for row in rows:
        table.add_row(
            str(row["name"]), str(row["kind"]), f"{int(str(row['bytes'])) / 1e6:.2f} MB", str(row["path"] or "")
        )
    stdout().print(table)
