"""`deepfer train`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import AllowLeakOption, ConfigOption, JsonOption, NameOption

if TYPE_CHECKING:
    from deepfer_yolo.config import TrainConfig
    from deepfer_yolo.train.crossval import CrossValidation
    from deepfer_yolo.train.results import TrainResult

_MODELS = "yolo11n-cls, yolo26n-cls, yolov8n-cls (or s, m, l, x), a .pt or a .yaml file."
_SCRATCH = "from scratch for a bare name"
_DATA = Annotated[
    Path | None,
    typer.Argument(metavar="DATASET", help="A data set folder, as `deepfer convert` writes it.", show_default=False),
]
_MODEL = Annotated[str | None, typer.Option("--model", "-m", help=_MODELS, show_default="the shipped deepfer-n.pt")]
_PRETRAINED = Annotated[
    str | None, typer.Option(help="A checkpoint whose matching layers are the start.", show_default=_SCRATCH)
]
_EPOCHS = Annotated[int | None, typer.Option(help="Passes over the training split.", show_default="20")]
_IMGSZ = Annotated[
    int | None, typer.Option(help="Side of the network's input in pixels: a multiple of 32.", show_default="64")
]
_BATCH = Annotated[int | None, typer.Option(help="Pictures a step.", show_default="128")]
_LR0 = Annotated[float | None, typer.Option(help="Learning rate after the warm-up.", show_default="0.01")]
_DEVICE = Annotated[
    str | None, typer.Option(help="cpu, mps, the number of a GPU, or several: 0,1.", show_default="cpu")
]
_THREADS = Annotated[int | None, typer.Option(help="Threads of the CPU.", show_default="2")]
_SEED = Annotated[int | None, typer.Option(help="Seed of everything random.", show_default="0")]
_PRECISION = Annotated[
    str | None, typer.Option(help="fp32, bf16, or auto: bf16 where the hardware has it.", show_default="auto")
]
_FITNESS = Annotated[str | None, typer.Option(help="What picks best.pt: top1 or macro_f1.", show_default="top1")]
_TEACHER = Annotated[
    list[str] | None,
    typer.Option(
        help="A checkpoint whose answers are learned too (distillation); repeated, their mean.", show_default=False
    ),
]
_EXCLUDE = Annotated[
    str | None,
    typer.Option(help="A quarantine list of `deepfer audit`: training pictures to leave out.", show_default=False),
]
_VOTES = Annotated[
    bool | None, typer.Option("--votes", help="Learn the votes of the manifest as soft labels.", show_default=False)
]
_FREEZE = Annotated[int | None, typer.Option(help="Keep the first N layers as they are.", show_default="0")]
_PATIENCE = Annotated[
    int | None, typer.Option(help="Stop after N epochs without a better one; 0 never.", show_default="0")
]
_TIME = Annotated[
    str | None, typer.Option(help="Train this long instead of --epochs: 1.5h, 90m, or hours.", show_default=False)
]
_SCHEDULE = Annotated[
    str | None, typer.Option(help="How the learning rate falls: cosine, or plateau.", show_default="cosine")
]
_LR_DECAY = Annotated[
    float | None, typer.Option(help="Learning rate of each layer, as a share of the next one's.", show_default="1")
]
_CACHE = Annotated[
    str | None, typer.Option(help="Keep decoded pictures in ram, decode files each time, or auto.", show_default="auto")
]
_LOGGER = Annotated[
    str | None, typer.Option(help="Also log to tensorboard, mlflow or wandb, if installed.", show_default=False)
]
_FOLDS = Annotated[
    int | None,
    typer.Option(help="Cross-validate: deal all pictures anew to K folds, one run each.", show_default=False),
]
_GROUPS = "What a fold must not tear apart: subject, duplicate, none, or auto: subjects where known, and copies."
_GROUP_BY = Annotated[str | None, typer.Option(help=_GROUPS, show_default="auto")]
_DRY_RUN = Annotated[bool, typer.Option("--dry-run", help="Print recipe, size and estimated time, and train nothing.")]
_RESUME = Annotated[Path | None, typer.Option(help="Continue the run in this folder.", show_default=False)]


def train(
    dataset: _DATA = None,
    model: _MODEL = None,
    pretrained: _PRETRAINED = None,
    config: ConfigOption = None,
    epochs: _EPOCHS = None,
    time: _TIME = None,
    imgsz: _IMGSZ = None,
    batch: _BATCH = None,
    lr0: _LR0 = None,
    lr_decay: _LR_DECAY = None,
    schedule: _SCHEDULE = None,
    device: _DEVICE = None,
    threads: _THREADS = None,
    seed: _SEED = None,
    precision: _PRECISION = None,
    cache: _CACHE = None,
    fitness: _FITNESS = None,
    teacher: _TEACHER = None,
    exclude: _EXCLUDE = None,
    votes: _VOTES = None,
    allow_leak: AllowLeakOption = None,
    freeze: _FREEZE = None,
    patience: _PATIENCE = None,
    logger: _LOGGER = None,
    folds: _FOLDS = None,
    group_by: _GROUP_BY = None,
    dry_run: _DRY_RUN = False,
    name: NameOption = None,
    resume: _RESUME = None,
    json_: JsonOption = False,
) -> None:
    """Fine-tune a YOLO classifier, or train one from scratch, into runs/train/<name>/.

    Ctrl-C and SIGTERM save first and leave a run that --resume continues. Every key of the recipe can stand in the
    --config file; the resolved one is saved as config.yaml. With --folds each picture is tested once, and mean and
    spread over the folds are printed.

    With --time the schedule ends when the time does. A logger stays off the network: wandb keeps its records in the
    run's folder unless WANDB_MODE says online, mlflow in its local store unless MLFLOW_TRACKING_URI names a server.

    Example: deepfer train datasets/fer2013 --config fer2013-n
    """
    given = locals()  # every option that bears the name of a key of the recipe
    from deepfer_yolo.config import TrainConfig
    from deepfer_yolo.presets import resolve

    flags = {key: given[key] for key in TrainConfig.model_fields if key in given} | {"data": dataset and str(dataset)}
    if resume is not None:
        _refuse_flags(resume, {**flags, "dry_run": dry_run or None, "config": config, "name": name})
        _run(resume, as_json=json_)
    elif dry_run:
        _print_plan(resolve(TrainConfig, config, flags), as_json=json_)
    else:
        _run(resolve(TrainConfig, config, flags), name=name, as_json=json_)


def _run(start: TrainConfig | Path, *, name: str | None = None, as_json: bool) -> None:
    """Train by a recipe, or continue the run in a folder, and print what came out."""
    from deepfer_yolo.cli.output import stderr
    from deepfer_yolo.train import run
    from deepfer_yolo.train.progress import StopSignal

    show = functools.partial(stderr().print, markup=False, soft_wrap=True)
    with StopSignal() as stop:
        if isinstance(start, Path):
            result = run.resume(start, show=show, should_stop=stop.given)
        else:
            result = run.train(start, name=name, show=show, should_stop=stop.given)
    if isinstance(result, run.Stopped):
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
    from deepfer_yolo.cli.output import print_json
    from deepfer_yolo.train.crossval import CrossValidation

    if as_json:
        print_json(result.to_json())
    elif isinstance(result, CrossValidation):
        print("\n".join(result.lines()))
    else:
        val = result.val
        print(f"{_short(result.checkpoint)}  val n={val.n}  top-1 {val.top1:.2%}  macro-F1 {val.macro_f1:.2%}")


def _print_plan(recipe: TrainConfig, *, as_json: bool) -> None:
    from deepfer_yolo.cli.output import print_json
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
    print(f"{found.parameters:,} parameters, {found.gflops:.3f} GFLOP an image, about {time} of training")


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
