"""`deepfer tune`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import JsonOption, NameOption

if TYPE_CHECKING:
    from deepfer_yolo.train.tune import TuneResult

_DATA = Annotated[
    Path | None,
    typer.Argument(metavar="DATASET", help="A data set folder, as `deepfer convert` writes it.", show_default=False),
]
_MODEL = Annotated[
    str | None, typer.Option("--model", "-m", help="As for `deepfer train`.", show_default="the shipped deepfer-n.pt")
]
_PRETRAINED = Annotated[
    str | None, typer.Option(help="As for `deepfer train`.", show_default="from scratch for a bare name")
]
_CONFIG = Annotated[
    str | None,
    typer.Option("--config", "-c", help="The recipe to start from: a preset's name or a file.", show_default=False),
]
_SPACE = Annotated[str, typer.Option(help="What to search: a preset of configs/tune or a file.")]
_TRIALS = Annotated[
    int | None, typer.Option(help="Trials in all, those before an interruption included.", show_default="20")
]
_TIME = Annotated[
    str | None, typer.Option(help="Begin no trial after this long: 8h, 90m, or hours.", show_default="no limit")
]
_EPOCHS = Annotated[int | None, typer.Option(help="Epochs of a trial.", show_default="the recipe's")]
_SEED = Annotated[
    int | None, typer.Option(help="Seed of the search; the trainings keep the recipe's.", show_default="0")
]
_RESUME = Annotated[Path | None, typer.Option(help="Go on with the search in this folder.", show_default=False)]


def tune(
    dataset: _DATA = None,
    model: _MODEL = None,
    pretrained: _PRETRAINED = None,
    config: _CONFIG = None,
    space: _SPACE = "default",
    trials: _TRIALS = None,
    time: _TIME = None,
    epochs: _EPOCHS = None,
    seed: _SEED = None,
    name: NameOption = None,
    resume: _RESUME = None,
    json_: JsonOption = False,
) -> None:
    """Search for a better recipe by many trainings, into runs/tune/<name>/, and write the best one as best.yaml.

    Trials are whole training runs in one process, chosen by Optuna's TPE and ended early where they are worse than the
    median. Ctrl-C and SIGTERM save first; --resume goes on, with more --trials or --time where they are given.

    Example: deepfer tune datasets/fer2013 --config fer2013-n --epochs 10 --trials 30 --time 8h
    """
    from deepfer_yolo.cli.output import stderr
    from deepfer_yolo.config import TrainConfig, TuneConfig
    from deepfer_yolo.errors import ConfigError
    from deepfer_yolo.presets import resolve as resolved
    from deepfer_yolo.train import tune as search
    from deepfer_yolo.train.progress import StopSignal

    show = functools.partial(stderr().print, markup=False, soft_wrap=True)
    limits = {"trials": trials, "time": time}
    recipe = {"data": dataset and str(dataset), "model": model, "pretrained": pretrained, "epochs": epochs}
    if resume is not None and any(value is not None for value in (*recipe.values(), config, seed, name)):
        raise ConfigError(
            "--resume goes on with the search's own recipe and takes only --trials and --time",
            f"deepfer tune --resume {resume}",
        )
    with StopSignal() as stop:
        if resume is not None:
            found = search.resume(resume, limits=limits, show=show, should_stop=stop.given)
        else:
            settings = resolved(TuneConfig, space, {**limits, "seed": seed})
            found = search.tune(
                settings, resolved(TrainConfig, config, recipe), name=name, show=show, should_stop=stop.given
            )
    _print(found, as_json=json_)
    if found.stopped:
        show(f"continue with: deepfer tune --resume {found.folder}")
        raise typer.Exit(stop.exit_code)


def _print(found: TuneResult, *, as_json: bool) -> None:
    from deepfer_yolo.cli.output import print_json, stdout
    from deepfer_yolo.report.tables import percent, table
    from deepfer_yolo.train.tune import words

    if as_json:
        print_json(found.to_json())
        return
    rows = [
        [trial.trial, percent(trial.value, 2), trial.epochs, trial.state, words(trial.params)] for trial in found.trials
    ]
    stdout().print(table(("trial", "best %", "epochs", "state", "recipe"), rows))
    if found.best is not None:
        print(f"deepfer train DATASET --config {found.best}")
