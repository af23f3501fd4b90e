"""`deepfer models`: the model files that are here, and fetching those that are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import JsonOption

if TYPE_CHECKING:
    from deepfer_yolo.records import Json


def models(
    action: Annotated[str, typer.Argument(help="list, or pull to fetch a file.")] = "list",
    name: Annotated[
        str | None,
        typer.Argument(help="What to pull: yunet, or onnxruntime-web for browsers (by npm).", show_default=False),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="Pull from this mirror; the SHA-256 stays pinned.", show_default="the maker's own"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List shipped and pulled model files, or pull one: the network is used for `pull` alone, and a wrong SHA-256 is
    refused.

    Example: deepfer models pull yunet
    """
    from deepfer_yolo.cli.options import print_json, stdout
    from deepfer_yolo.errors import ConfigError
    from deepfer_yolo.report.page import table

    if action not in ("list", "pull") or (action == "pull") != (name is not None):
        raise ConfigError(
            f"deepfer models takes 'list' or 'pull NAME', not '{' '.join(filter(None, (action, name)))}'",
            "deepfer models pull yunet",
        )
    found = [_pull(name, url)] if name is not None else _known()
    if as_json:
        print_json([model.to_json() for model in found])
        return
    rows = [(model.name, model.kind, f"{model.n_bytes / 1e6:.2f} MB", model.path or "") for model in found]
    stdout().print(table(("name", "kind", "size", "path"), rows))


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file whose `kind` is shipped, pulled or can be pulled; `license` is that of a file made elsewhere."""

    name: str
    kind: str
    n_bytes: int
    path: str | None
    license: str | None = None

    def to_json(self) -> Json:
        """As --json prints it."""
        licensed = {} if self.license is None else {"license": self.license}
        return {"name": self.name, "kind": self.kind, "path": self.path, "bytes": self.n_bytes, **licensed}


def _pull(name: str, url: str | None) -> ModelFile:
    from deepfer_yolo.runtime.model_file import pull
    from deepfer_yolo.web.runtime_files import NAME, pull_runtime, size_of

    path = pull_runtime(url=url) if name == NAME else pull(name, url=url)
    return ModelFile(name, "pulled", size_of(path) if path.is_dir() else path.stat().st_size, str(path))


def _known() -> list[ModelFile]:
    from deepfer_yolo.runtime.model_file import PULLABLE, SHIPPED, pulled

    shipped = sorted(path for path in SHIPPED.iterdir() if path.suffix in {".onnx", ".pt"})
    found = [ModelFile(path.name, "shipped", path.stat().st_size, str(path)) for path in shipped]
    for wanted in PULLABLE.values():
        here = pulled(wanted.name)
        kind, path = ("pulled", str(here)) if here else ("can be pulled", None)
        found.append(ModelFile(wanted.name, kind, wanted.size, path, wanted.license))
    return [*found, _browser_runtime()]


def _browser_runtime() -> ModelFile:
    from deepfer_yolo.web.runtime_files import ARCHIVE_BYTES, NAME, PACKAGED, runtime_folder, size_of

    folder = runtime_folder()
    if folder is None:
        return ModelFile(NAME, "can be pulled", ARCHIVE_BYTES, None, "MIT")
    return ModelFile(NAME, "shipped" if folder == PACKAGED else "pulled", size_of(folder), str(folder), "MIT")
