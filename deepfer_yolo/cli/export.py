"""`deepfer export`: a checkpoint to a file that runs without torch, with its card and its proof."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import JsonOption, OverwriteOption, options_of
from deepfer_yolo.config import ExportConfig, FaceConfig

if TYPE_CHECKING:
    from deepfer_yolo.export.export import Attempt, ExportResult


@options_of(
    ExportConfig,
    "model format precision fp16_arithmetic data split pictures out batch opset calibration sha256 "
    "version_compatible triton web config overwrite as_json",
)
def export(
    settings: ExportConfig,
    model: Annotated[
        Path,
        typer.Argument(
            help="A YOLO-cls checkpoint (.pt) with its card beside it, or deepfer-n; with --web an ONNX file.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Data set for parity, and for int8's calibration.", show_default="painted faces")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Name of the new file.", show_default="beside MODEL")] = None,
    sha256: Annotated[
        str | None, typer.Option(help="Refuse MODEL unless its SHA-256 begins so.", show_default=False)
    ] = None,
    triton: Annotated[
        Path | None, typer.Option(help="Write a Triton model repository here too.", show_default=False)
    ] = None,
    web: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a page that runs MODEL in the browser instead.", show_default=False),
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write MODEL in a deployable form, and prove that it answers alike.

    The file takes uint8 RGB images (n, S, S, 3) and gives probabilities; its card holds golden answers and the parity
    result. int8 tries one calibration after the other, then fp16, and keeps the first that passes. fp16 in ONNX and
    OpenVINO stores weights in fp16 and calculates in fp32, so that it answers alike on every processor. Where parity
    fails nothing is written and the exit code is 3. --web writes a folder for any web host instead: its page finds and
    labels faces in the visitor's browser, and no image leaves it.

    Example: deepfer export best.pt --format onnx --precision int8 --data datasets/fer2013
    """
    if web is not None:
        has_more = settings != ExportConfig() or any((data, out, sha256, triton))
        _write_web(model, web, overwrite=overwrite, as_json=as_json, has_more=has_more)
        return
    from deepfer_yolo.cli.options import print_json, stderr
    from deepfer_yolo.export.export import export_model
    from deepfer_yolo.export.triton import check_triton
    from deepfer_yolo.runtime.formats import FORMATS

    if triton is not None:
        check_triton(FORMATS[settings.format].suffix)
    if data is None:
        stderr().print("no --data: parity is proven on painted faces only")
    result = export_model(model, settings, out=out, data=data, overwrite=overwrite, sha256=sha256, on_attempt=_say)
    if triton is not None:
        result = _with_triton(result, triton, settings.batch, overwrite=overwrite)
    if as_json:
        print_json(result.to_json())
        return
    _print(result)
    if result.triton is not None:
        print(f"Triton: tritonserver --model-repository {triton}  (model {result.triton.name})")


def _with_triton(result: ExportResult, triton: Path, batch: int | None, *, overwrite: bool) -> ExportResult:
    from dataclasses import replace

    from deepfer_yolo.errors import DeepferError
    from deepfer_yolo.export.triton import write_triton
    from deepfer_yolo.files import explain_os_error

    try:
        served = write_triton(result.path, result.card, triton, batch=batch, overwrite=overwrite)
    except OSError as error:
        explained = explain_os_error(error)
        if explained is None:
            raise
        hint = f"the model itself is written: {result.path}; then run the same command with --overwrite"
        raise DeepferError(f"{explained.message} (Triton's folder)", hint) from error
    return replace(result, triton=served)


def _write_web(model: Path, folder: Path, *, overwrite: bool, as_json: bool, has_more: bool) -> None:
    from deepfer_yolo.cli.options import print_json
    from deepfer_yolo.errors import ConfigError
    from deepfer_yolo.web.bundle import web_detector, write_web

    if has_more:
        raise ConfigError(
            "--web takes a file that is exported already, and no other option but --overwrite",
            f"deepfer export {model} …, then that file with --web {folder}",
        )
    written = write_web(model, folder, detector=web_detector(FaceConfig()), overwrite=overwrite)
    if as_json:
        print_json(written.to_json())
        return
    faces = (
        "finds faces by YuNet" if written.detector else "looks at whole images (deepfer models pull yunet finds faces)"
    )
    print(f"{folder}  {written.n_files} files, {written.n_bytes / 1e6:.1f} MB, {written.model}; {faces}")
    print(f"try it: python -m http.server --directory {folder} 8000, then open http://localhost:8000")


def _say(attempt: Attempt) -> None:
    from deepfer_yolo.cli.options import stderr

    verdict = "passed" if attempt.parity.passed else "failed: " + "; ".join(attempt.parity.failures)
    stderr().print(f"{attempt.name}: {attempt.n_bytes / 1e6:.2f} MB, {verdict}", markup=False)


def _print(result: ExportResult) -> None:
    parity = result.parity
    print(f"{result.path}  {result.n_bytes / 1e6:.2f} MB  {result.card.precision} ({result.attempts[-1].name})")
    print(f"parity on {parity.pictures}:")
    same = f"top-1 agreement {parity.agreement:.2%}, near ties {len(parity.ties)}"
    print(f"  max |Δp| {parity.max_diff:.1e}, mean {parity.mean_diff:.1e}, {same}")
    for note in parity.notes:
        print(f"  {note}")
    for tie in parity.ties[:10]:
        print(f"  tie: {tie.picture}: {tie.reference} became {tie.candidate}, {tie.margin:.1e} apart")
    found = parity.decisions
    if found is not None:
        low, high = found.accuracy_diff_interval
        became = f"{found.accuracy_reference:.2%} became {found.accuracy_candidate:.2%}"
        print(f"  accuracy {became} (difference {low:+.2%} to {high:+.2%}),")
        print(f"  recall falls most for {found.worst_class}: {found.worst_loss + 0.0:.2%}")
