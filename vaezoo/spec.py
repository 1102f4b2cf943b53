"""ModelSpec, what an entry point of a model names, and the options of its config."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from vaezoo.data.base import DataSpec
from vaezoo.errors import VaezooError, safe_repr, suggest
from vaezoo.objectives.base import Objective
from vaezoo.objectives.elbo import ELBO
from vaezoo.vae import VAE

ConfigT = TypeVar("ConfigT")
MAX_VALUES = 1_000  # of one option: a layer takes a millisecond to build

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def default_objective(config: object, data: DataSpec) -> ELBO:
    """The objective of a model that names none."""
    return ELBO()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec(Generic[ConfigT]):
    """A model of the zoo.

    Attributes:
        config: An instance of a frozen dataclass: the options and their defaults. Its fields are
            of type int, float, bool, str, Literal, tuple[..., ...] of these, or `... | None`.
        build: Makes the untrained model; raises UnsupportedDataError for data it cannot take.
        objective: Makes what training minimises; the ELBO unless said otherwise.
        summary: One line for the list of models.
        reference: The paper.

    Raises:
        TypeError: If a field is something else, so that a package written for another API fails where it is imported.
    """

    config: ConfigT
    build: Callable[[ConfigT, DataSpec], VAE]
    objective: Callable[[ConfigT, DataSpec], Objective] = default_objective
    summary: str
    reference: str

    def __post_init__(self) -> None:
        if not (dataclasses.is_dataclass(self.config) and not isinstance(self.config, type)):
            raise TypeError(f"the config is {self.config!r}, no instance of a dataclass")
        config_json(self.config)
        if not (callable(self.build) and callable(self.objective)):
            raise TypeError("build and objective must be callable")
        if not (isinstance(self.summary, str) and isinstance(self.reference, str)):
            raise TypeError("summary and reference must be texts")


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a model.

    Attributes:
        name: The option.
        type: What it takes, in words.
        default: Its value, as JSON has it.
        help: What the config's docstring says of it under "Attributes:"; empty where that is silent.
    """

    name: str
    type: str
    default: Json
    help: str


def options_of(config: object) -> list[Option]:
    """Lists the options of a config, in the order of their definition."""
    described = _docstrings(type(config))
    return [
        Option(name, _type_name(hint), json_value(getattr(config, name)), described.get(name, ""))
        for name, hint in _hints(config).items()
    ]


def configure(config: ConfigT, values: Mapping[str, object]) -> ConfigT:
    """Returns `config` with some options changed.

    Args:
        config: A frozen dataclass instance.
        values: Option -> value, a text as a user types it (`hidden="400,200"`) or a value as JSON has it.

    Raises:
        VaezooError: If there is no such option or a value does not fit its type.
    """
    hints = _hints(config)
    changes = _converted(values, hints, {name: getattr(config, name) for name in hints})
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]  # a ModelSpec's config is a dataclass


def construct(cls: type[ConfigT], values: Mapping[str, object]) -> ConfigT:
    """Makes a dataclass of the values that a JSON file has for its fields; raises as `configure` does."""
    changes = _converted(values, typing.get_type_hints(cls), {})
    missing = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.name not in changes]  # type: ignore[arg-type]
    if missing:
        raise VaezooError(f"'{missing[0]}' is missing", f"give '{missing[0]}'")
    return cls(**changes)


def check_types(config: object) -> None:
    """Raises VaezooError unless each option holds a value of its type; for the `__post_init__` of a config."""
    for name, hint in _hints(config).items():
        value = getattr(config, name)
        try:
            fits = _convert(value, hint) == value  # "3" becomes 3, which it is not equal to
        except (ValueError, OverflowError, TypeError):
            fits = False
        if not fits:
            raise VaezooError(f"'{name}' takes {_type_name(hint)}, not '{safe_repr(value)}'", f"change '{name}'")


def config_json(config: object) -> dict[str, Json]:
    """Returns all options of a config with their values, as JSON has them."""
    return {name: json_value(getattr(config, name)) for name in _hints(config)}


def json_value(value: object) -> Json:
    """Returns an option's value as JSON has it: tuples become lists."""
    if isinstance(value, tuple | list):
        return [json_value(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"an option's value is no plain data: {value!r}")


def show_value(value: Json) -> str:
    """Writes an option's value as a user types it."""
    if isinstance(value, list):
        return ",".join(show_value(v) for v in value)
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _hints(config: object) -> dict[str, Any]:
    types_by_name = typing.get_type_hints(type(config))
    return {field.name: types_by_name[field.name] for field in dataclasses.fields(config)}  # type: ignore[arg-type]


def _docstrings(config: type) -> dict[str, str]:
    """Reads what the docstrings of a class and its bases say under "Attributes:", `name: text` in Google style."""
    found: dict[str, str] = {}
    for cls in reversed(config.__mro__[:-1]):
        section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE):
            found[name] = " ".join(text.split())
    return found


def _converted(
    values: Mapping[str, object], hints: Mapping[str, Any], examples: Mapping[str, object]
) -> dict[str, Any]:
    """Brings values to their fields' types; `examples` are values that a hint may show."""
    changes = {}
    for name, value in values.items():
        if name not in hints:
            known = ", ".join(hints) or "none"
            raise VaezooError(f"no option named '{safe_repr(name)}'", suggest(name, hints, f"the options are: {known}"))
        try:
            changes[name] = _convert(value, hints[name])
        except (ValueError, OverflowError):
            fits = (
                f"{name}={show_value(json_value(examples[name])) or '32,64'}" if name in examples else "another value"
            )
            raise VaezooError(
                f"option '{name}' takes {_type_name(hints[name])}, not '{safe_repr(value)}'", f"for example {fits}"
            ) from None
    return changes


def _convert(value: object, hint: Any) -> object:
    """Brings a text or a JSON value to an option's type; ValueError where that is impossible."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None or value == "none":
            return None
        return _convert(value, next(a for a in args if a is not type(None)))
    if origin is Literal:
        if value in args:
            return value
        raise ValueError
    if origin is tuple:
        parts = [p for p in value.split(",") if p] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            parts = [parts]
        if len(parts) > MAX_VALUES:
            raise VaezooError(f"{len(parts):,} values for one option", f"give at most {MAX_VALUES:,}")
        return tuple(_convert(p, args[0]) for p in parts)
    if hint is bool:
        return _to_bool(value)
    if hint is str and isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError
    if hint is int and (isinstance(value, str) or value == int(value)) and abs(int(value)) < 2**63:
        return int(value)
    if hint is float and math.isfinite(float(value)):
        return float(value)
    raise ValueError


def _to_bool(value: object) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ValueError


def _type_name(hint: Any) -> str:
    """Describes a type in the words of a user."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(a) for a in args if a is not type(None)) + " or none"
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in args)
    if origin is tuple:
        return {int: "integers", float: "numbers"}.get(args[0], "values") + " separated by commas"
    return {int: "an integer", float: "a number", bool: "true or false", str: "a text"}.get(hint, str(hint))
