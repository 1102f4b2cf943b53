"""Options: the fields of a config dataclass, set from the text that a user types or from JSON values.

A config is a frozen dataclass with a default for every field. Its fields are of type int, float, bool, str, Literal,
`tuple[..., ...]` of these, or `... | None`. This module does not import torch, so `vaezoo train --help` stays fast.

An option may also be a part: its value is a config of its own, chosen by name among the entry points of a group. It is
annotated `Annotated[object, PartOf("vaezoo.priors")]`. `prior=vamp` chooses the part, `prior.components=500` sets an
option of it. JSON holds both keys side by side.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from vaezoo.core.entry_points import Plugin, choose, find_plugins
from vaezoo.errors import PluginError, VaezooError, safe_repr, suggest

ConfigT = TypeVar("ConfigT")
MAX_VALUES = 1_000  # values of one option; each layer takes a millisecond to build, numbers are columns' scalings


@dataclass(frozen=True, slots=True)
class PartOf:
    """Marks an option whose value is a part: an instance of a frozen dataclass with a class attribute `part`, its name.

    Attributes:
        group: The entry-point group that names the choices.
    """

    group: str

    def choices(self) -> list[str]:
        """Returns the names of the parts, built-in ones and those of other packages."""
        return sorted({plugin.name for plugin in find_plugins(self.group, Plugin)[0] if plugin.allowed})

    def load(self, name: str) -> object:
        """Returns the part of a name with its default options.

        Raises:
            VaezooError: If there is none.
            PluginError: If its package cannot be imported, or does not name a part.
        """
        what = self.group.rpartition(".")[2].removesuffix("s")
        plugin = choose(name, find_plugins(self.group, Plugin)[0], what, f"use one of {', '.join(self.choices())}")
        part = plugin.load_object()
        part = part() if isinstance(part, type) else part
        if not dataclasses.is_dataclass(part) or getattr(part, "part", None) != plugin.name:
            raise PluginError(
                f"{plugin} is not a dataclass with part = '{plugin.name}'", f"fix or update {plugin.distribution}"
            )
        return part


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
    options = []
    for name, hint in _hints(config).items():
        value, part_of = getattr(config, name), _part_of(hint)
        default = part_name(value) if part_of else json_value(value)
        options.append(Option(name, _type_name(hint), default, help_texts.get(name, "")))
        if part_of:
            options += [dataclasses.replace(o, name=f"{name}.{o.name}") for o in options_of(value)]
    return options


def configure(config: ConfigT, values: Mapping[str, object]) -> ConfigT:
    """Returns a copy of `config` with some options changed.

    Args:
        config: A frozen dataclass instance.
        values: Option -> value. A value is text as a user types it (`hidden="400,200"`), or a JSON value. `part.option`
            names an option of a part. `full_names` tells where `option` alone is enough.

    Raises:
        VaezooError: If there is no such option, or a value is not of its type.
    """
    return _configure(config, full_names(config, values), "")


def full_names(config: object, values: Mapping[str, object]) -> dict[str, object]:
    """Returns options by their full names: `beta` becomes `objective.beta`.

    The name of the part may be left out if the config has no such option itself, and only one of the parts that are
    chosen has it. So `beta` means the same for models that are composed of parts and for others.

    Raises:
        VaezooError: If an option comes under both names.
    """
    hints = _hints(config)
    parts = {name: getattr(config, name) for name, hint in hints.items() if _part_of(hint)}
    parts |= _converted({name: value for name, value in values.items() if name in parts}, hints, parts, "")

    def full_name(name: str) -> str:
        owners = [part for part, value in parts.items() if name in _hints(value)] if name not in hints else []
        return f"{owners[0]}.{name}" if len(owners) == 1 else name

    full = [full_name(name) for name in values]
    if twice := next((name for name in full if full.count(name) > 1), None):
        raise VaezooError(f"option '{twice}' is given twice, once without the name of the part", "give it once")
    return dict(zip(full, values.values(), strict=True))


def _configure(config: ConfigT, values: Mapping[str, object], prefix: str) -> ConfigT:
    """As `configure`. `prefix` is that of the options' names in errors, such as `prior.`."""
    hints = _hints(config)
    nested: dict[str, dict[str, object]] = {}
    plain: dict[str, object] = {}
    for name, value in values.items():
        head, dot, tail = name.partition(".")
        if dot and head in hints and _part_of(hints[head]):
            nested.setdefault(head, {})[tail] = value
        else:
            plain[name] = value
    changes = _converted(plain, hints, {name: getattr(config, name) for name in hints}, prefix)
    for name, options in nested.items():
        part = changes.get(name, getattr(config, name))
        known = _hints(part)
        if unknown := [option for option in options if option.partition(".")[0] not in known]:
            chosen = f"{prefix}{name}={part_name(part)}"
            its = ", ".join(f"{prefix}{name}.{option}" for option in known) or "none"
            raise VaezooError(
                f"{chosen} has no option '{safe_repr(unknown[0])}'",
                f"its options are: {its}; another {name} may have it, chosen with {prefix}{name}=NAME",
            )
        changes[name] = _configure(part, options, f"{prefix}{name}.")
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]  # a ModelSpec's config is a dataclass


def construct(cls: type[ConfigT], values: Mapping[str, object]) -> ConfigT:
    """Returns an instance of a dataclass with the values of a JSON object.

    Raises:
        VaezooError: If a field is missing or unknown, or a value is not of its type.
    """
    changes = _converted(values, typing.get_type_hints(cls), {}, "")
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
        if _part_of(hint):
            check_types(value)
            continue
        try:
            valid = _convert(value, hint) == value  # false for "3", which converts to 3
        except (ValueError, OverflowError, TypeError):
            valid = False
        if not valid:
            raise VaezooError(f"'{name}' takes {_type_name(hint)}, not '{safe_repr(value)}'", f"change '{name}'")


def require_positive(option: str, *values: int) -> None:
    """Raises VaezooError unless every value of an option is at least 1."""
    if any(value < 1 for value in values):
        raise VaezooError(f"option '{option}' is {min(values)}", f"give '{option}' at least 1")


def config_json(config: object) -> dict[str, Json]:
    """Returns all options of a config with their values as JSON. Those of a part follow it, as `part.option`."""
    values: dict[str, Json] = {}
    for name, hint in _hints(config).items():
        value = getattr(config, name)
        if _part_of(hint):
            values[name] = part_name(value)
            values |= {f"{name}.{option}": v for option, v in config_json(value).items()}
        else:
            values[name] = json_value(value)
    return values


def part_name(part: object) -> str:
    """Returns the name of a part.

    Raises:
        TypeError: If the value is not a part.
    """
    name = getattr(part, "part", None)
    if not isinstance(name, str) or not dataclasses.is_dataclass(part):
        raise TypeError(f"{part!r} is not a part: a dataclass with a class attribute 'part'")
    return name


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
    types_by_name = typing.get_type_hints(type(config), include_extras=True)
    return {field.name: types_by_name[field.name] for field in dataclasses.fields(config)}  # type: ignore[arg-type]


def _part_of(hint: Any) -> PartOf | None:
    """Returns the mark of an option that is a part, or None."""
    return next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, PartOf)), None)


def _docstrings(config: type) -> dict[str, str]:
    """Reads the "Attributes:" sections of a class and its bases, in Google style: `name: text`."""
    texts: dict[str, str] = {}
    for cls in reversed(config.__mro__[:-1]):
        section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE):
            texts[name] = " ".join(text.split())
    return texts


def _converted(
    values: Mapping[str, object], hints: Mapping[str, Any], examples: Mapping[str, object], prefix: str
) -> dict[str, Any]:
    """Converts values to the types of their fields. `examples` are values that a hint may show."""
    changes = {}
    for name, value in values.items():
        if name not in hints:
            known = ", ".join(prefix + n for n in hints) or "none"
            hint = suggest(prefix + name, [prefix + n for n in hints], f"the options are: {known}")
            parts = [n for n, part in examples.items() if _part_of(hints[n]) and name in _hints(part)]
            hint = f"did you mean '{prefix}{parts[0]}.{name}'?" if parts else hint
            raise VaezooError(f"no option named '{safe_repr(prefix + name)}'", hint)
        if part_of := _part_of(hints[name]):
            now = examples.get(name)
            changes[name] = now if getattr(now, "part", None) == value else part_of.load(str(value))
            continue
        try:
            changes[name] = _convert(value, hints[name])
        except (ValueError, OverflowError):
            example = (
                f"{prefix}{name}={show_value(json_value(examples[name])) or '32,64'}"
                if name in examples
                else "another value"
            )
            raise VaezooError(
                f"option '{prefix}{name}' takes {_type_name(hints[name])}, not '{safe_repr(value)}'",
                f"for example {example}",
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
        *others, last = (a for a in args if a is not type(None))
        for other in others:
            with contextlib.suppress(ValueError, OverflowError):
                return _convert(value, other)
        return _convert(value, last)
    if origin is Literal:
        if value in args:
            return value
        raise ValueError
    if origin is tuple:
        items = [item for item in value.split(",") if item] if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            items = [items]
        if len(items) > MAX_VALUES and args[0] is not float:
            raise VaezooError(f"{len(items):,} values for one option", f"give at most {MAX_VALUES:,}")
        if args[-1] is not Ellipsis and len(items) != len(args):
            raise ValueError
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
    if part_of := _part_of(hint):
        return "one of " + ", ".join(part_of.choices())
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(a) for a in args if a is not type(None)) + " or none"
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in args)
    if origin is tuple:
        return {int: "integers", float: "numbers"}.get(args[0], "values") + " separated by commas"
    return {int: "an integer", float: "a number", bool: "true or false", str: "a text"}.get(hint, str(hint))
