"""`deepfer parity`: two models proven equal, or not, on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import JsonOption, options_of
from deepfer_yolo.config import ParityConfig
from deepfer_yolo.errors import EXIT_GATE_FAILED, ConfigError

if TYPE_CHECKING:
    from deepfer_yolo.export.parity import Parity


@options_of(ParityConfig, "reference candidate data split pictures precision provider config as_json")
def parity(
    settings: ParityConfig,
    reference: Annotated[Path, typer.Argument(help="The model that is right by definition.", show_default=False)],
    candidate: Annotated[
        Path,
        typer.Argument(
            help="The model that must answer like it, or a csv of what a program of yours answers.", show_default=False
        ),
    ],
    data: Annotated[Path | None, typer.Option(help="Data set to compare on.", show_default="painted faces")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two models on the same images: first what they are fed, then what they answer.

    fp32 must agree to 1e-4 and on every label; fp16 to 5e-3 and 99.8 % of labels; int8 on 98 %, without losing
    accuracy. Exit code 3 where a line is missed; a cause is named where doing that one thing otherwise brings the two
    together: red and blue exchanged, a resize without antialias or a canvas's, bf16, sums of int8 that overflow.

    Examples: deepfer parity best.pt best-int8.onnx --data datasets/fer2013
              deepfer parity best.onnx my-app.csv --data datasets/fer2013
    """
    from deepfer_yolo.cli.options import open_classifier, print_json
    from deepfer_yolo.export.parity import choose_sample, compare, compare_answers

    left = open_classifier(reference, threads=2)
    if candidate.suffix == ".csv":
        if data is None:
            raise ConfigError("answers in a csv are to the images of a data set", "name it: --data DATASET")
        found = compare_answers(left, candidate, data, settings)
    else:
        right = open_classifier(candidate, provider=settings.provider, threads=2)
        sample = choose_sample(data, settings.split, left.labels, settings.pictures)
        found = compare(left, right, sample, settings.precision, explain=True)
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
    if not found.passed:
        raise typer.Exit(EXIT_GATE_FAILED)


def _print(found: Parity) -> None:
    print(f"{'equal' if found.passed else 'NOT EQUAL'} by the lines of {found.precision}, on {found.pictures}")
    for failure in found.failures:
        print(f"  missed: {failure}")
    for line in () if found.cause is None else found.cause.lines:
        print(f"  {line}")
    print(f"preprocessing: largest difference {found.input_diff} of 255")
    same = f"top-1 agreement {found.agreement:.2%}, near ties {len(found.ties)}"
    print(f"answers: max |Δp| {found.max_diff:.1e}, mean {found.mean_diff:.1e}, {same}")
    for note in found.notes:
        print(note)
    decided = found.decisions
    if decided is not None:
        low, high = decided.accuracy_diff_interval
        became = f"{decided.accuracy_reference:.2%} became {decided.accuracy_candidate:.2%}"
        print(f"accuracy: {became}, difference {low:+.2%} to {high:+.2%} (95 %, paired)")
        print(f"calibration error: {decided.ece_reference:.3f} became {decided.ece_candidate:.3f}")
        print(f"worst class: {decided.worst_class}, recall falls by {decided.worst_loss:.2%}")
    print("worst images:")
    for row in found.worst:
        changed = row.reference if row.reference == row.candidate else f"{row.reference} became {row.candidate}"
        print(f"  |Δp| {row.diff:.1e}  {row.picture}  {changed}")
