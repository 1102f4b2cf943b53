"""The values of options: their types, their text and their JSON, and options that are parts."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from vaezoo.core.entry_points import Plugin, choose, find_plugins
from vaezoo.errors import PluginError, VaezooError

MAX_VALUES = 1_000  # values of one option; each layer takes a millisecond to build, numbers are columns' scalings

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


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


def part_of(hint: Any) -> PartOf | None:
    """Returns the mark of an option that is a part, or None."""
    return next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, PartOf)), None)


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


def convert(value: object, hint: Any) -> object:
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
                return convert(value, other)
        return convert(value, last)
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
        return tuple(convert(item, args[0]) for item in items)
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


def type_name(hint: Any) -> str:
    """Describes a type in words for users."""
    origin, args = get_origin(hint), get_args(hint)
    if mark := part_of(hint):
        return "one of " + ", ".join(mark.choices())
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(a) for a in args if a is not type(None)) + " or none"
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in args)
    if origin is tuple:
        return {int: "integers", float: "numbers"}.get(args[0], "values") + " separated by commas"
    return {int: "an integer", float: "a number", bool: "true or false", str: "a text"}.get(hint, str(hint))
