"""`deepfer card`: a card for a model that has none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepfer_yolo.cli.options import JsonOption, OverwriteOption


def card(
    model: Annotated[Path, typer.Argument(help="A stock YOLO-cls .pt, or a classifier .onnx.", show_default=False)],
    labels: Annotated[
        str | None, typer.Option(help="Labels in the model's order: a,b,c.", show_default="the file's own")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the input in pixels.", show_default="the file's own")
    ] = None,
    colour: Annotated[str | None, typer.Option(help="What it learned from: grey or rgb.", show_default="rgb")] = None,
    native_px: Annotated[
        int | None, typer.Option(help="Side of the images it learned from: 48 for FER2013.", show_default="any")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.", show_default="the file's stem")] = None,
    mean: Annotated[
        str | None, typer.Option(help="Foreign ONNX: subtracted from 0..1: r,g,b.", show_default=False)
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Foreign ONNX: divides after --mean: r,g,b.", show_default=False)
    ] = None,
    answers: Annotated[
        str | None, typer.Option(help="Foreign ONNX: logits or probs.", show_default="probs if a softmax ends it")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Measure on this data set and write the metrics too.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="Split of --dataset.")] = "val",
    trained_on: Annotated[
        Path | None, typer.Option(help="The data set whose train split it learned.", show_default="the file's own")
    ] = None,
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Go on where the model has learned images that are to judge it.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The new .onnx file.", show_default="STEM-card.onnx")] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the card that a model needs before it can be used here.

    The card of a .pt lies beside it as STEM.json. An .onnx becomes a new file with the card inside; a float (n, 3, S,
    S) graph is wrapped so that it takes uint8 images. What the file does not say must be said here; nothing is
    guessed.

    Example: deepfer card best.pt --colour grey --native-px 48
    """
    from deepfer_yolo.cli.output import print_json, say_all
    from deepfer_yolo.data.dataset import open_dataset
    from deepfer_yolo.errors import ConfigError, ModelError
    from deepfer_yolo.export.cards import Facts, add_metrics, card_checkpoint, card_onnx, parse_labels, parse_numbers

    for flag, value, known in (("--colour", colour, ("grey", "rgb")), ("--answers", answers, ("logits", "probs"))):
        if value is not None and value not in known:
            raise ConfigError(f"{flag}: {' or '.join(known)} is needed, not {value!r}")
    channels = parse_numbers(mean, "--mean"), parse_numbers(std, "--std")
    facts = Facts(parse_labels(labels), size, colour, native_px, name, *channels, answers)
    taught = None if trained_on is None else open_dataset(trained_on)
    if model.suffix == ".pt":
        written, made = card_checkpoint(model, facts, overwrite=overwrite, taught=taught)
    elif model.suffix == ".onnx":
        written = out or model.with_name(f"{model.stem}-card.onnx")
        made = card_onnx(model, written, facts, overwrite=overwrite, taught=taught)
    else:
        raise ModelError(f"no card can be made for {model}: neither .pt nor .onnx", "name a checkpoint or an ONNX file")
    if dataset is not None:
        from deepfer_yolo.cli.options import open_classifier

        carrier = model if model.suffix == ".pt" else written
        made, lines = add_metrics(carrier, open_classifier(carrier), dataset, split, allow_leak=allow_leak)
        say_all(lines)
    if as_json:
        print_json({"path": str(written), "card": made.model_dump(mode="json")})
    else:
        print(f"{written}: {made.name}, {made.input.colour} {made.input.size} px, labels {', '.join(made.labels)}")
        if dataset is not None:
            found = made.metrics
            figures = f"top-1 {found['top1']:.2%}, macro-F1 {found['macro_f1']:.2%}"
            print(f"on {found['dataset']}, {split}, {found['n']} images: {figures}")
