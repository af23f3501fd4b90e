"""How a preset, a yaml file and flags become one checked configuration."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from deepfer_yolo.errors import ConfigError, redact

ConfigT = TypeVar("ConfigT", bound=BaseModel)


def resolve(section: type[ConfigT], source: str | None = None, flags: Mapping[str, Any] | None = None) -> ConfigT:
    """One configuration from defaults, then `source` (a preset's name or a yaml file), then `flags` that are not None.

    Raises ConfigError that lists every problem: the key, what was given, what was expected, the nearest known key.
    """
    values: dict[str, Any] = {}
    place = "the command line"
    if source is not None:
        path = find_preset(_folder(section), source)
        values, place = read_yaml(path), str(path)
    values |= {key: value for key, value in (flags or {}).items() if value is not None}
    try:
        return section.model_validate(values)
    except ValidationError as error:
        hint = f"deepfer {_folder(section)} --help" if source is None else f"keys: {', '.join(section.model_fields)}"
        raise ConfigError(_describe(error, section, place), hint) from None


def key_of(section: type[BaseModel], flag: str) -> str:
    """The key that a flag sets: the one of its name, which may add the unit that the flag leaves out.

    `--max-age` sets `max_age_s`.
    """
    return next((key for key in section.model_fields if re.fullmatch(f"{flag}(_(s|per_s|px))?", key)), flag)


def find_preset(folder: str, source: str) -> Path:
    """The file behind `--config`: a path when it looks like one, else the preset `configs/<folder>/<source>.yaml`."""
    if source.endswith((".yaml", ".yml")) or "/" in source or "\\" in source:
        path = Path(source)
        if not path.is_file():
            raise ConfigError(f"no such configuration file: {path}", "check the path, or name a preset without .yaml")
        return path
    names = {path.stem: path for path in sorted((configs_dir() / folder).glob("*.yaml"))}
    if source not in names:
        raise ConfigError(
            f"no preset named '{source}' in configs/{folder}{_nearest(source, names)}",
            f"presets: {', '.join(names) or 'none'}",
        )
    return names[source]


def configs_dir() -> Path:
    """Where the presets are: inside an installed wheel, else at the top of the source tree."""
    packaged = Path(__file__).parent / "configs"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "configs"


def read_yaml(path: Path) -> dict[str, Any]:
    """A yaml mapping as a dictionary. Raises ConfigError with line and column where it is not one."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid yaml: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold 'key: value' lines, not a {type(content).__name__}")
    return content


def to_yaml(config: BaseModel) -> str:
    """The resolved configuration as yaml, keys in the order of declaration; passwords in URLs are left out."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Redacting, sort_keys=False)


class _Redacting(yaml.SafeDumper):
    """Writes texts without the passwords of URLs in them."""


_Redacting.add_representer(str, lambda dumper, text: dumper.represent_str(redact(text)))


def _folder(section: type[BaseModel]) -> str:
    return section.__name__.removesuffix("Config").lower()


def _describe(error: ValidationError, section: type[BaseModel], place: str) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key '{key}'{_nearest(key, section.model_fields)}")
        else:
            lines.append(f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}, not {problem['input']!r}")
    return f"{place}: " + "; ".join(lines)


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""
