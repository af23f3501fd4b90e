"""Options and arguments that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from deepfer_yolo.config import FaceConfig
    from deepfer_yolo.runtime.classifier import Classifier


DatasetArgument = Annotated[
    Path, typer.Argument(help="A data set folder, as `deepfer convert` writes it.", show_default=False)
]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        "-m",
        help="A model file (.onnx, or .pt with its card beside it) or a shipped model's name.",
        show_default="the shipped deepfer-n",
    ),
]
ConfigOption = Annotated[
    str | None,
    typer.Option("--config", "-c", help="A preset's name or a yaml file; flags win over it.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
NameOption = Annotated[
    str | None, typer.Option("--name", help="Name of the run's folder.", show_default="date and time")
]
AllowLeakOption = Annotated[
    bool | None,
    typer.Option(
        "--allow-leak", help="Go on where the model has learned pictures that are to judge it.", show_default=False
    ),
]


def open_classifier(path: Path | None, *, provider: str = "cpu", threads: int = 1) -> Classifier:
    """The model at `path`, or the shipped one for None; what torch alone opens through torch, all else without it.

    Raises ModelError for a file that cannot be used.
    """
    from deepfer_yolo.runtime.model_file import DEFAULT, is_for_torch

    path = Path(DEFAULT) if path is None else path
    if is_for_torch(path):
        from deepfer_yolo.yolo import TorchClassifier

        return TorchClassifier(path, provider=provider, threads=threads)
    from deepfer_yolo.runtime.classifier import Classifier

    return Classifier(path, provider=provider, threads=threads)


def note_haar(config: FaceConfig) -> None:
    """Say on stderr where `auto` falls back to Haar."""
    from deepfer_yolo.faces.detect import HAAR_NOTE, find_face_model

    if config.detector == "auto" and find_face_model(config.face_model) is None:
        print(HAAR_NOTE, file=sys.stderr)
