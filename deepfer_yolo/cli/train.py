"""`deepfer train`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import ConfigOption, JsonOption, NameOption, OptionalDatasetArgument, options_of
from deepfer_yolo.presets import resolve
from deepfer_yolo.recipe import TrainConfig

if TYPE_CHECKING:
    from deepfer_yolo.train.crossval import CrossValidation
    from deepfer_yolo.train.results import TrainResult


@options_of(
    TrainConfig,
    "dataset model pretrained config epochs time imgsz batch lr0 lr_decay schedule device threads seed precision cache "
    "fitness soup teacher exclude corrections votes allow_leak freeze patience logger folds group_by dry_run name "
    "resume as_json",
)
def train(
    flags: dict[str, object],
    dataset: OptionalDatasetArgument = None,
    config: ConfigOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print recipe, size and estimated time, and train nothing.")
    ] = False,
    name: NameOption = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a YOLO classifier, or train one from scratch, into runs/train/<name>/.

    Ctrl-C and SIGTERM save first and leave a run that --resume continues. Every key of the recipe can stand in the
    --config file; the resolved one is saved as config.yaml. With --folds each image is tested once, and mean and
    spread over the folds are printed.

    Started by torchrun on several machines, all processes train as one run, which the first of them writes.

    With --time the schedule ends when the time does. A logger stays off the network: wandb keeps its records in the
    run's folder unless WANDB_MODE says online, mlflow in its local store unless MLFLOW_TRACKING_URI names a server.

    Example: deepfer train datasets/fer2013 --config fer2013-n
    """
    flags["data"] = dataset and str(dataset)
    if resume is not None:
        _refuse_flags(resume, {**flags, "dry_run": dry_run or None, "config": config, "name": name})
        _run(resume, as_json=as_json)
    elif dry_run:
        _print_plan(resolve(TrainConfig, config, flags), as_json=as_json)
    else:
        _run(resolve(TrainConfig, config, flags), name=name, as_json=as_json)


def _run(start: TrainConfig | Path, *, name: str | None = None, as_json: bool) -> None:
    """Train by a recipe, or continue the run in a folder, and print what came out."""
    from deepfer_yolo.cli.options import stderr
    from deepfer_yolo.train import run
    from deepfer_yolo.train.progress import StopSignal
    from deepfer_yolo.yolo import RANK

    show = functools.partial(stderr().print, markup=False, soft_wrap=True)
    with StopSignal() as stop:
        if isinstance(start, Path):
            result = run.resume(start, show=show, should_stop=stop.given)
        else:
            result = run.train(start, name=name, show=show, should_stop=stop.given)
    if isinstance(result, run.Stopped):
        if result.is_finished:
            return
        if RANK < 1:
            show(f"continue with: deepfer train --resume {_short(result.folder)}")
        raise typer.Exit(stop.exit_code)
    _print_result(result, as_json=as_json)


def _refuse_flags(resume: Path, flags: dict[str, object]) -> None:
    """Raise ConfigError where anything is given beside --resume."""
    from deepfer_yolo.errors import ConfigError

    given = [f"--{key.replace('_', '-')}" for key, value in flags.items() if value is not None]
    if given:
        shown = ", ".join(given).replace("--data", "DATASET")
        raise ConfigError(
            f"--resume continues a run with its own recipe and takes no {shown}", f"deepfer train --resume {resume}"
        )


def _print_result(result: TrainResult | CrossValidation, *, as_json: bool) -> None:
    from deepfer_yolo.cli.options import print_json
    from deepfer_yolo.train.crossval import CrossValidation

    if as_json:
        print_json(result.to_json())
    elif isinstance(result, CrossValidation):
        print("\n".join(result.lines()))
    else:
        val = result.val
        print(f"{_short(result.checkpoint)}  val n={val.n}  top-1 {val.top1:.2%}  macro-F1 {val.macro_f1:.2%}")


def _print_plan(recipe: TrainConfig, *, as_json: bool) -> None:
    from deepfer_yolo.cli.options import print_json
    from deepfer_yolo.train.plan import plan
    from deepfer_yolo.train.progress import clock

    found = plan(recipe)
    if as_json:
        print_json(found.to_json())
        return
    print("".join(f"{k}: {value}\n" for k, value in found.recipe.model_dump(mode="json").items() if value is not None))
    print("\n".join(found.start))
    counts = ", ".join(f"{label} {n:,}" for label, n in found.train_counts.items())
    print(f"{found.train:,} train and {found.val:,} val images: {counts}")
    if found.runs > 1:
        print(f"the first of {found.runs} folds; the time is for all of them")
    time = clock(found.estimated_s)
    print(f"{found.parameters:,} parameters, {found.gflops:.3f} GFLOP per image, about {time} of training")


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
