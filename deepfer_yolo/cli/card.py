"""`deepfer card`: a card for a model that has none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepfer_yolo.cli.options import JsonOption, OverwriteOption, options_of
from deepfer_yolo.config import CardConfig
from deepfer_yolo.presets import resolve

if TYPE_CHECKING:
    from deepfer_yolo.runtime.card import Card


@options_of(
    CardConfig,
    "model preset labels size colour channels native_px name layout white mean std output answers license dataset "
    "split trained_on allow_leak out renew strip_hashes overwrite as_json",
)
def card(
    flags: dict[str, Any],
    model: Annotated[Path, typer.Argument(help="A stock YOLO-cls .pt, or a classifier .onnx.", show_default=False)],
    preset: Annotated[
        str | None,
        typer.Option(
            "--as", help="A known foreign model (configs/cards), or a yaml file; flags win over it.", show_default=False
        ),
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Measure on this data set and write the metrics too.", show_default=False)
    ] = None,
    trained_on: Annotated[
        Path | None, typer.Option(help="The data set whose train split it learned.", show_default="the file's own")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The new file.", show_default="STEM-card.onnx or STEM-public")
    ] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Keep the card as it is now, and write its digest anew.")
    ] = False,
    strip_hashes: Annotated[
        bool, typer.Option("--strip-hashes", help="Write a copy for the public, without hashes of training images.")
    ] = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the card that a model needs before it can be used here.

    The card of a .pt lies beside it as STEM.json. An .onnx becomes a new file with the card inside; a graph that takes
    float images, grey or coloured, is wrapped so that it takes uint8 ones. What the file does not say must be said
    here, or by the preset of a known model (docs/peers.md); nothing is guessed, and what its shapes deny is refused.

    Examples: deepfer card best.pt --colour grey --native-px 48
              deepfer card emotion-ferplus-8.onnx --as ferplus --labels angry,disgust,fear,happy,neutral,sad,surprise
    """
    from deepfer_yolo.cli.options import print_json, say_all
    from deepfer_yolo.errors import ConfigError
    from deepfer_yolo.export.cards import public_copy
    from deepfer_yolo.runtime.model_file import locate, renew_digest

    settings = resolve(CardConfig, preset, flags)
    if renew or strip_hashes:
        if dataset or trained_on or preset or settings != CardConfig() or (renew and (out or strip_hashes)):
            flag = "--renew" if renew else "--strip-hashes"
            raise ConfigError(f"{flag} keeps the card as it is, so that nothing else can be said with it")
        written, made = (locate(model), renew_digest(model)) if renew else public_copy(model, out, overwrite=overwrite)
    else:
        written, made = _written(model, settings, dataset, trained_on, out, overwrite)
        if preset is not None:
            say_all(_doubles(model, settings))
    if as_json:
        print_json({"path": str(written), "card": made.model_dump(mode="json")})
    else:
        print(f"{written}: {made.name}, {made.input.colour} {made.input.size} px, labels {', '.join(made.labels)}")
        if dataset is not None:
            found = made.metrics
            figures = f"top-1 {found['top1']:.2%}, macro-F1 {found['macro_f1']:.2%}"
            print(f"on {found['dataset']}, {settings.split}, {found['n']} images: {figures}")


def _doubles(model: Path, settings: CardConfig) -> list[str]:
    """What to say where other presets have the same shapes, so that the file itself cannot deny the wrong one."""
    from deepfer_yolo.export.foreign import fitting, form_of
    from deepfer_yolo.runtime.onnx_graph import read_graph

    form = form_of(read_graph(model), settings, model)
    names = [] if form is None else fitting(form, unlike=settings)
    return [f"note: by its shapes it may as well be {', '.join(names)}: see docs/peers.md, and measure it"] * bool(
        names
    )


def _written(
    model: Path, settings: CardConfig, dataset: Path | None, trained_on: Path | None, out: Path | None, overwrite: bool
) -> tuple[Path, Card]:
    """The file that carries the new card, and the card."""
    from deepfer_yolo.cli.options import open_classifier, say_all
    from deepfer_yolo.data.dataset import open_dataset
    from deepfer_yolo.errors import ModelError
    from deepfer_yolo.export.cards import add_metrics, card_checkpoint, card_onnx

    taught = None if trained_on is None else open_dataset(trained_on)
    if model.suffix == ".pt" and settings.order is not None:
        raise ModelError(f"{model} is a checkpoint, and --as is for ONNX files", "export it to ONNX first")
    if model.suffix == ".pt":
        written, made = card_checkpoint(model, settings, overwrite=overwrite, taught=taught)
    elif model.suffix == ".onnx":
        written = out or model.with_name(f"{model.stem}-card.onnx")
        made = card_onnx(model, written, settings, overwrite=overwrite, taught=taught)
    else:
        raise ModelError(f"no card can be made for {model}: neither .pt nor .onnx", "name a checkpoint or an ONNX file")
    if dataset is not None:
        carrier = model if model.suffix == ".pt" else written
        made, lines = add_metrics(
            carrier, open_classifier(carrier), dataset, settings.split, allow_leak=settings.allow_leak
        )
        say_all(lines)
    return written, made
