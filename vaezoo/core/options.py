"""Options: the fields of a config dataclass, set from the text that a user types or from JSON values.

A config is a frozen dataclass with a default for every field. Its fields are of type int, float, bool, str, Literal,
`tuple[..., ...]` of these, or `... | None`. This module does not import torch, so `vaezoo train --help` stays fast.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from vaezoo.errors import VaezooError, safe_repr, suggest

ConfigT = TypeVar("ConfigT")
MAX_VALUES = 1_000  # values of one option; each layer takes a millisecond to build

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a config.

    Attributes:
        name: Name of the field.
        type: Accepted values, in words.
        default: The config's value as JSON.
        help: Text of the field in the docstring's "Attributes:" section. Empty if the section does not name it.
    """

    name: str
    type: str
    default: Json
    help: str


def options_of(config: object) -> list[Option]:
    """Returns the options of a config, in the order of its fields."""
    help_texts = _docstrings(type(config))
    return [
        Option(name, _type_name(hint), json_value(getattr(config, name)), help_texts.get(name, ""))
        for name, hint in _hints(config).items()
    ]


def configure(config: ConfigT, values: Mapping[str, object]) -> ConfigT:
    """Returns a copy of `config` with some options changed.

    Args:
        config: A frozen dataclass instance.
        values: Option -> value. A value is text as a user types it (`hidden="400,200"`), or a JSON value.

    Raises:
        VaezooError: If there is no such option, or a value is not of its type.
    """
    hints = _hints(config)
    changes = _converted(values, hints, {name: getattr(config, name) for name in hints})
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]  # a ModelSpec's config is a dataclass


def construct(cls: type[ConfigT], values: Mapping[str, object]) -> ConfigT:
    """Returns an instance of a dataclass with the values of a JSON object.

    Raises:
        VaezooError: If a field is missing or unknown, or a value is not of its type.
    """
    changes = _converted(values, typing.get_type_hints(cls), {})
    missing = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.name not in changes]  # type: ignore[arg-type]
    if missing:
        raise VaezooError(f"'{missing[0]}' is missing", f"give '{missing[0]}'")
    return cls(**changes)


def check_types(config: object) -> None:
    """Checks that each option has a value of its type. Call it in a config's `__post_init__`.

    Raises:
        VaezooError: If a value is of another type.
    """
    for name, hint in _hints(config).items():
        value = getattr(config, name)
        try:
            valid = _convert(value, hint) == value  # false for "3", which converts to 3
        except (ValueError, OverflowError, TypeError):
            valid = False
        if not valid:
            raise VaezooError(f"'{name}' takes {_type_name(hint)}, not '{safe_repr(value)}'", f"change '{name}'")


def config_json(config: object) -> dict[str, Json]:
    """Returns all options of a config with their values as JSON."""
    return {name: json_value(getattr(config, name)) for name in _hints(config)}


def json_value(value: object) -> Json:
    """Returns an option's value as JSON. Tuples become lists.

    Raises:
        TypeError: If JSON has no such value.
    """
    if isinstance(value, tuple | list):
        return [json_value(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"an option's value must be plain data, not {value!r}")


def show_value(value: Json) -> str:
    """Formats an option's value as a user types it."""
    if isinstance(value, list):
        return ",".join(show_value(v) for v in value)
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _hints(config: object) -> dict[str, Any]:
    types_by_name = typing.get_type_hints(type(config))
    return {field.name: types_by_name[field.name] for field in dataclasses.fields(config)}  # type: ignore[arg-type]


def _docstrings(config: type) -> dict[str, str]:
    """Reads the "Attributes:" sections of a class and its bases, in Google style: `name: text`."""
    texts: dict[str, str] = {}
    for cls in reversed(config.__mro__[:-1]):
        section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE):
            texts[name] = " ".join(text.split())
    return texts


def _converted(
    values: Mapping[str, object], hints: Mapping[str, Any], examples: Mapping[str, object]
) -> dict[str, Any]:
    """Converts values to the types of their fields. `examples` are values that a hint may show."""
    changes = {}
    for name, value in values.items():
        if name not in hints:
            known = ", ".join(hints) or "none"
            raise VaezooError(f"no option named '{safe_repr(name)}'", suggest(name, hints, f"the options are: {known}"))
        try:
            changes[name] = _convert(value, hints[name])
        except (ValueError, OverflowError):
            example = (
                f"{name}={show_value(json_value(examples[name])) or '32,64'}" if name in examples else "another value"
            )
            raise VaezooError(
                f"option '{name}' takes {_type_name(hints[name])}, not '{safe_repr(value)}'", f"for example {example}"
            ) from None
    return changes


def _convert(value: object, hint: Any) -> object:
    """Converts text or a JSON value to an option's type.

    Raises:
        ValueError: If that is impossible.
    """
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
        items = [item for item in value.split(",") if item] if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            items = [items]
        if len(items) > MAX_VALUES:
            raise VaezooError(f"{len(items):,} values for one option", f"give at most {MAX_VALUES:,}")
        return tuple(_convert(item, args[0]) for item in items)
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
    """Describes a type in words for users."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(a) for a in args if a is not type(None)) + " or none"
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in args)
    if origin is tuple:
        return {int: "integers", float: "numbers"}.get(args[0], "values") + " separated by commas"
    return {int: "an integer", float: "a number", bool: "true or false", str: "a text"}.get(hint, str(hint))
