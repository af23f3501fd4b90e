"""What a section of the configuration is made of, and how a preset, a yaml file and flags become a checked one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from deepfer_yolo.errors import ConfigError, did_you_mean, redact

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Config(BaseModel):
    """Base of all sections: frozen, and unknown keys are errors."""

    # A command uses one section; to make the validators of all takes 30 ms.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)
    FOLDER: ClassVar[str] = ""
    """Of `configs/`, where it is not called as the section is."""

    @model_validator(mode="before")
    @classmethod
    def _no_truth_values_for_numbers(cls, values: Any) -> Any:
        """Refuse yes, no, on and off, which yaml reads as truth values, where they would pass as 1 and 0."""
        for name, field in cls.model_fields.items() if isinstance(values, dict) else ():
            value = values.get(name)
            parts = value if isinstance(value, list | tuple) else [value]
            if any(isinstance(part, bool) for part in parts) and not _takes_bool(field.annotation):
                raise ValueError(f"{name}: yes, no, on, off, true and false are no value of it")
        return values


def _takes_bool(annotation: Any) -> bool:
    """Whether a key of this type may be a truth value."""
    return annotation in (bool, Any) or any(_takes_bool(part) for part in get_args(annotation))


ConfigT = TypeVar("ConfigT", bound=Config)
MAX_YAML_BYTES = 1_000_000


def key(
    default: Any,
    text: str,
    *,
    shown: str | None = None,
    flags: str = "",
    metavar: str | None = None,
    envvar: str | None = None,
    **bounds: Any,
) -> Any:
    """One setting of a section: its default, its help and its bounds.

    `shown` is the default in words, where the value does not say it, and "" where help shows none. The rest is for the
    command line: other `flags` than the key's own, what stands for a value, and the environment variable.
    """
    extra: dict[str, Any] = {"shown": shown, "flags": flags, "metavar": metavar, "envvar": envvar}
    return Field(default, description=text, json_schema_extra=extra, **bounds)


def extra_of(field: FieldInfo, name: str) -> Any:
    """What `key` noted beside a field: shown, flags, metavar or envvar."""
    return field.json_schema_extra.get(name) if isinstance(field.json_schema_extra, dict) else None


def shown_default(field: FieldInfo) -> str:
    """The default of a key as help shows it; "" where nothing is set."""
    shown, value = extra_of(field, "shown"), field.get_default(call_default_factory=True)
    if shown is not None or value is None or isinstance(value, dict | Config):
        return shown or ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def as_hours(value: Any) -> Any:
    """A duration in hours from a number, as Ultralytics takes it, or a text such as ``1.5h``, ``90m`` or ``30s``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*([hms]?)", value.strip()) if isinstance(value, str) else None
    return float(match[1]) / {"": 1, "h": 1, "m": 60, "s": 3600}[match[2]] if match else value


def as_list(value: Any) -> Any:
    """The parts of a text such as ``1,32``."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def as_numbers(value: Any) -> Any:
    """The parts of a text such as ``0.5,0.4,0.3``; one number is a list of one."""
    return [value] if isinstance(value, int | float) else as_list(value)


def as_pairs(value: Any) -> Any:
    """A mapping from texts such as ``old=new``."""
    if not isinstance(value, list | tuple):
        return value
    pairs = [str(text).partition("=") for text in value]
    wrong = ["".join(pair) for pair in pairs if not all(pair)]
    if wrong:
        raise ValueError(f"'{wrong[0]}' is not KEY=VALUE")
    return {name: text for name, _, text in pairs}


def one_or_three(values: tuple[float, ...]) -> tuple[float, ...]:
    """The numbers of one grey or three colour channels. Raises ValueError for two."""
    if len(values) == 2:
        raise ValueError("takes one number, or one for each of three channels")
    return values


Count = Annotated[int, Field(ge=1)]
Threads = Annotated[int, Field(ge=1, le=64)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(ge=0, le=1)]
Grey = Annotated[float, Field(ge=0, le=255)]
Hours = Annotated[float, BeforeValidator(as_hours), Field(gt=0, le=10_000)]
Texts = tuple[str, ...]
Labels = Annotated[tuple[str, ...], BeforeValidator(as_list)]
Numbers = Annotated[tuple[int, ...], BeforeValidator(as_list)]
Channels = Annotated[
    tuple[float, ...], BeforeValidator(as_numbers), Field(min_length=1, max_length=3), AfterValidator(one_or_three)
]
Pairs = Annotated[dict[str, str], BeforeValidator(as_pairs)]


def resolve(section: type[ConfigT], source: str | None = None, flags: Mapping[str, Any] | None = None) -> ConfigT:
    """One configuration from defaults, then `source` (a preset's name or a yaml file), then `flags` that are not None,
    each under its key or the key without its unit.

    Raises ConfigError that lists every problem: the key, what was given, what was expected, the nearest known key.
    """
    path = None if source is None else find_preset(section.FOLDER or _folder(section), source)
    names = {key_of(section, name): name for name, value in (flags or {}).items() if value is not None}
    given = {key: (flags or {})[name] for key, name in names.items()}
    try:
        return section.model_validate((read_yaml(path) if path else {}) | given)
    except ValidationError as error:
        hint = f"deepfer {_folder(section)} --help" if path is None else f"keys: {', '.join(section.model_fields)}"
        raise ConfigError(_describe(error, section, path, names), hint) from None


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
            f"no preset named '{source}' in configs/{folder}{did_you_mean(source, names)}",
            f"presets: {', '.join(names) or 'none'}",
        )
    return names[source]


def configs_dir() -> Path:
    """Where the presets are: inside an installed wheel, else at the top of the source tree."""
    packaged = Path(__file__).parent / "configs"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "configs"


def read_yaml(path: Path) -> dict[str, Any]:
    """A yaml mapping as a dictionary. Raises ConfigError with line and column where it is not one."""
    if path.stat().st_size > MAX_YAML_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_YAML_BYTES // 1_000_000} MB: is this the right file?")
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid yaml: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold 'key: value' lines, not a {type(content).__name__}")
    return content


def load_yaml(text: str) -> Any:
    """What a yaml text holds. Raises ValueError where it is none, or a key stands twice."""
    try:
        return yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 (it is a safe one)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    except (ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError) as error:
        # What PyYAML's own constructors raise for `!!int x`, `!!bool x` or the 99th of a month.
        raise ValueError(f"a value that is not of its type ({error})") from None


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice, of which yaml would take the last, and aliases (*a) and merged mappings (<<),
    which may double what they hold many times over.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem=f"'*{event.anchor[:40]}' is not read here", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """The mapping of a node."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.CollectionNode):
                continue  # refused by yaml itself
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(problem="'<<' is not read here", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def to_yaml(config: BaseModel) -> str:
    """The resolved configuration as yaml, keys in the order of declaration; passwords in URLs are left out."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Redacting, sort_keys=False)


class _Redacting(yaml.SafeDumper):
    """Writes texts without the passwords of URLs in them, and what stands there twice as often as it does."""

    def ignore_aliases(self, _: Any) -> bool:
        """True: they would not be read."""
        return True


_Redacting.add_representer(str, lambda dumper, text: dumper.represent_str(redact(text)))


def _folder(section: type[BaseModel]) -> str:
    return section.__name__.removesuffix("Config").lower()


def problem_text(problem: ErrorDetails, section: type[BaseModel], names: Mapping[str, str] | None = None) -> str:
    """One value that `section` refuses: its key, or what `names` calls it, what was given, what was expected."""
    name = cut(".".join((names or {}).get(str(part), str(part)) for part in problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{name}'{did_you_mean(name, section.model_fields)}"
    if problem["type"] == "value_error":
        return f"{name}: {cut(str(problem['ctx']['error']))}" if name else cut(str(problem["ctx"]["error"]))
    if problem["type"] == "tuple_type":
        return f"{name}: input should be a list, such as [a, b], not {cut(repr(problem['input']))}"
    return f"{name}: {problem['msg'][0].lower()}{problem['msg'][1:]}, not {cut(repr(problem['input']))}"


def cut(text: str, n: int = 80) -> str:
    """`text` with at most `n` characters of what may be thousands."""
    return text if len(text) <= n else f"{text[: n - 1]}…"


def _describe(error: ValidationError, section: type[BaseModel], path: Path | None, names: Mapping[str, str]) -> str:
    places: dict[str, list[str]] = {}
    for problem in error.errors():
        is_flag = path is None or (bool(problem["loc"]) and problem["loc"][0] in names)
        text = problem_text(problem, section, names)
        places.setdefault("the command line" if is_flag else str(path), []).append(text)
    return "; ".join(f"{place}: {'; '.join(lines)}" for place, lines in places.items())
