"""`deepfer tune`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import JsonOption, NameOption, OptionalDatasetArgument, options_of
from deepfer_yolo.errors import ConfigError
from deepfer_yolo.presets import resolve, shown_default
from deepfer_yolo.recipe import TrainConfig, TuneConfig

if TYPE_CHECKING:
    from deepfer_yolo.train.tune import TuneResult

_OF_THE_SEARCH = ("seed", "study", "heartbeat_s")
_RECIPE, _AS_TRAIN = TrainConfig.model_fields, "As for `deepfer train`."


@options_of(
    TuneConfig,
    "dataset model pretrained config space trials time epochs seed storage study heartbeat name resume as_json",
)
def tune(
    flags: dict[str, object],
    dataset: OptionalDatasetArgument = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help=_AS_TRAIN, show_default=shown_default(_RECIPE["model"])),
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help=_AS_TRAIN, show_default=shown_default(_RECIPE["pretrained"]))
    ] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help="The recipe to start from: a preset's name or a file.", show_default=False),
    ] = None,
    space: Annotated[str, typer.Option(help="What to search: a preset of configs/tune or a file.")] = "default",
    epochs: Annotated[int | None, typer.Option(help="Epochs of a trial.", show_default="the recipe's")] = None,
    name: NameOption = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the search in this folder.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search for a better recipe by many trainings, into runs/tune/<name>/, and write the best one as best.yaml.

    Trials are whole training runs in one process, chosen by Optuna's TPE and ended early where they are worse than the
    median. Ctrl-C and SIGTERM save first; --resume goes on, with more --trials or --time where they are given.

    With --storage, the same command on any number of machines is one more worker of the same search. A trial whose
    worker dies is begun anew by another, and all of them end with the same table.

    Example: deepfer tune datasets/fer2013 --config fer2013-n --epochs 10 --trials 30 --time 8h
    """
    from deepfer_yolo.cli.options import stderr
    from deepfer_yolo.train import tune as search
    from deepfer_yolo.train.progress import StopSignal

    show = functools.partial(stderr().print, markup=False, soft_wrap=True)
    recipe = {"data": dataset and str(dataset), "model": model, "pretrained": pretrained, "epochs": epochs}
    with StopSignal() as stop:
        if resume is None:
            settings, start = resolve(TuneConfig, space, flags), resolve(TrainConfig, config, recipe)
            found = search.tune(settings, start, name=name, show=show, should_stop=stop.given)
        elif any(value is not None for value in (*recipe.values(), config, *map(flags.get, _OF_THE_SEARCH), name)):
            raise ConfigError(
                "--resume goes on with the search's own recipe and takes only --trials, --time and --storage",
                f"deepfer tune --resume {resume}",
            )
        else:
            found = search.resume(resume, limits=flags, show=show, should_stop=stop.given)
    _print(found, as_json=as_json)
    if found.stopped:
        again = " --storage URL" if flags.get("storage") is not None else ""
        show(f"continue with: deepfer tune --resume {found.folder}{again}")
        raise typer.Exit(stop.exit_code)


def _print(found: TuneResult, *, as_json: bool) -> None:
    from deepfer_yolo.cli.options import print_json, stdout
    from deepfer_yolo.report.page import percent, table
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
