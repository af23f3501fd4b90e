"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DatasetArgument = Annotated[Path, typer.Argument(help="A data set folder, as `deepfer convert` writes it.", show_default=False)]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        "-m",
        help="A model file (.onnx, or .pt with its card beside it) or a shipped model's name.",
        show_default="the shipped deepfer-n",
    ),
]
ConfigOption = Annotated[str | None, typer.Option("--config", "-c", help="A preset's name or a yaml file; flags win over it.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of the run's folder.", show_default="date and time")]
AllowLeakOption = Annotated[
    bool | None, typer.Option("--allow-leak", help="Go on where the model has learned pictures that are to judge it.", show_default=False)
]
