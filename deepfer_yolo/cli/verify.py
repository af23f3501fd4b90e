"""`deepfer verify`: the golden self-test, on the machine where the model will run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import JsonOption, options_of
from deepfer_yolo.config import VerifyConfig
from deepfer_yolo.errors import EXIT_GATE_FAILED

if TYPE_CHECKING:
    from deepfer_yolo.runtime.card import Card


@options_of(VerifyConfig, "model provider sha256 timeout_s as_json")
def verify(
    settings: VerifyConfig,
    model: Annotated[
        Path, typer.Argument(help="An exported model, or a .pt with its card beside it.", show_default=False)
    ],
    sha256: Annotated[
        str | None, typer.Option(help="Refuse MODEL unless its SHA-256 begins so.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that a model file answers here as it did where it was made.

    Checks the card against the file, opens it in a child process first where a native library could crash, paints the
    golden inputs again, checks their SHA-256, runs the model and compares. Exit code 3 where the answers differ; the
    cause is named where a probe finds it, as in parity. A slow machine may need a longer --timeout-s; other commands
    know then that this file opens here.

    Example: deepfer verify best.onnx
    """
    from dataclasses import asdict

    from deepfer_yolo.cli.options import open_classifier, print_json
    from deepfer_yolo.records import plain
    from deepfer_yolo.runs import int8_note
    from deepfer_yolo.runtime.causes import golden_cause
    from deepfer_yolo.runtime.classifier import opened_file
    from deepfer_yolo.runtime.first_contact import first_contact
    from deepfer_yolo.runtime.golden import check_golden
    from deepfer_yolo.runtime.model_file import check_pin, digest, is_for_torch, locate

    file, provider = locate(model), settings.provider
    check_pin(file, sha256)
    if not is_for_torch(file):
        first_contact(opened_file(file, provider), provider, settings.timeout_s)
    classifier = open_classifier(file, provider=provider)
    result = check_golden(classifier)
    cause = None if result.passed else golden_cause(classifier)
    card = classifier.card
    note = int8_note(card.precision, classifier.provider)
    if as_json:
        facts = {
            "model": str(file),
            "sha256": digest(file),
            "name": card.name,
            "precision": card.precision,
            "provider": classifier.provider,
        }
        print_json(facts | asdict(result) | {"cause": plain(cause), "note": note})
    else:
        what = f"{_described(card)}, on {classifier.provider}"
        print(f"{'verified' if result.passed else 'FAILED'}: {file} ({what})")
        allowed = f"allowed {result.tolerance:.0e}, labels changed {result.n_changed}"
        print(f"golden test: {result.n} painted inputs, max |Δp| {result.max_diff:.1e}, {allowed}")
        for line in () if cause is None else cause.lines:
            print(line)
        if note is not None:
            print(f"note: {note}")
        print(f"SHA-256 {digest(file)}")
    if not result.passed:
        raise typer.Exit(EXIT_GATE_FAILED)


def _described(card: Card) -> str:
    how = f"{card.precision}, calculated in {card.arithmetic}" if card.arithmetic else card.precision
    return f"{card.name}, {how}, {len(card.labels)} labels, input {card.input.size} px"
