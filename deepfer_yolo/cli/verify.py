"""`deepfer verify`: the golden self-test, on the machine where the model will run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepfer_yolo.cli.options import JsonOption
from deepfer_yolo.errors import EXIT_GATE_FAILED


def verify(
    model: Annotated[Path, typer.Argument(help="An exported model, or a .pt with its card beside it.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Prove that a model file answers here as it did where it was made.

    Checks the card against the file, paints the golden inputs again, checks their SHA-256, runs the model and compares. Exit code 3
    where the answers differ.

    Example: deepfer verify best.onnx
    """
    from dataclasses import asdict

    from deepfer_yolo.cli.opening import open_classifier
    from deepfer_yolo.cli.output import print_json
    from deepfer_yolo.runtime.golden import check_golden

    classifier = open_classifier(model)
    result = check_golden(classifier)
    card = classifier.card
    if as_json:
        print_json({"model": str(model), "name": card.name, "precision": card.precision, "provider": classifier.provider} | asdict(result))
    else:
        verdict = "verified" if result.passed else "FAILED"
        print(f"{verdict}: {model} ({card.name}, {card.precision}, {len(card.labels)} labels, input {card.input.size} px, on {classifier.provider})")
        allowed = f"allowed {result.tolerance:.0e}, labels changed {result.n_changed}"
        print(f"golden test: {result.n} painted inputs, max |Δp| {result.max_diff:.1e}, {allowed}")
    if not result.passed:
        raise typer.Exit(EXIT_GATE_FAILED)
