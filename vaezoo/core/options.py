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
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from vaezoo.core.option_values import Json, convert, json_value, part_name, part_of, show_value, type_name
from vaezoo.errors import VaezooError, safe_repr, suggest

ConfigT = TypeVar("ConfigT")


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
        value, is_part = getattr(config, name), part_of(hint) is not None
        default = part_name(value) if is_part else json_value(value)
        options.append(Option(name, type_name(hint), default, help_texts.get(name, "")))
        if is_part:
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
    parts = {name: getattr(config, name) for name, hint in hints.items() if part_of(hint)}
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
        if dot and head in hints and part_of(hints[head]):
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
            hint = _owners_hint({name: hints[name]}, unknown[0], prefix) or f"its options are: {its}"
            raise VaezooError(f"{chosen} has no option '{safe_repr(unknown[0])}'", hint)
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
        if part_of(hint):
            check_types(value)
            continue
        try:
            valid = convert(value, hint) == value  # false for "3", which converts to 3
        except (ValueError, OverflowError, TypeError):
            valid = False
        if not valid:
            raise VaezooError(f"'{name}' takes {type_name(hint)}, not '{safe_repr(value)}'", f"change '{name}'")


def require_positive(option: str, *values: int) -> None:
    """Raises VaezooError unless every value of an option is at least 1."""
    if any(value < 1 for value in values):
        raise VaezooError(f"option '{option}' is {min(values)}", f"give '{option}' at least 1")


def config_json(config: object) -> dict[str, Json]:
    """Returns all options of a config with their values as JSON. Those of a part follow it, as `part.option`."""
    values: dict[str, Json] = {}
    for name, hint in _hints(config).items():
        value = getattr(config, name)
        if part_of(hint):
            values[name] = part_name(value)
            values |= {f"{name}.{option}": v for option, v in config_json(value).items()}
        else:
            values[name] = json_value(value)
    return values


def _owners_hint(hints: Mapping[str, Any], option: str, prefix: str) -> str:
    """Returns a hint that names the parts which have an option, though they are not chosen. Empty if there are none."""
    owners = []
    for name, hint in hints.items():
        if (mark := part_of(hint)) is None:
            continue
        for choice in mark.choices():
            with contextlib.suppress(VaezooError):  # a broken package is reported when its part is chosen
                owners += [f"{prefix}{name}={choice}"] if option in _hints(mark.load(choice)) else []
    return f"choose {' or '.join(owners)}, which {'has' if len(owners) == 1 else 'have'} it" if owners else ""


def _hints(config: object) -> dict[str, Any]:
    types_by_name = typing.get_type_hints(type(config), include_extras=True)
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
    values: Mapping[str, object], hints: Mapping[str, Any], examples: Mapping[str, object], prefix: str
) -> dict[str, Any]:
    """Converts values to the types of their fields. `examples` are values that a hint may show."""
    changes = {}
    for name, value in values.items():
        if name not in hints:
            known = ", ".join(prefix + n for n in hints) or "none"
            hint = suggest(prefix + name, [prefix + n for n in hints], "") or _owners_hint(hints, name, prefix)
            hint = hint or f"the options are: {known}"
            parts = [n for n, part in examples.items() if part_of(hints[n]) and name in _hints(part)]
            hint = f"did you mean '{prefix}{parts[0]}.{name}'?" if parts else hint
            raise VaezooError(f"no option named '{safe_repr(prefix + name)}'", hint)
        if mark := part_of(hints[name]):
            now = examples.get(name)
            changes[name] = now if getattr(now, "part", None) == value else mark.load(str(value))
            continue
        try:
            changes[name] = convert(value, hints[name])
        except (ValueError, OverflowError):
            example = (
                f"{prefix}{name}={show_value(json_value(examples[name])) or '32,64'}"
                if name in examples
                else "another value"
            )
            raise VaezooError(
                f"option '{prefix}{name}' takes {type_name(hints[name])}, not '{safe_repr(value)}'",
                f"for example {example}",
            ) from None
    return changes
