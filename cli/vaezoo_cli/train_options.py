"""The options of `vaezoo train` that set fields of TrainConfig, generated from its fields and its docstring."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable
from types import NoneType
from typing import Any, Literal, cast, get_args, get_origin

import click
from click.core import ParameterSource

from vaezoo.core.option_values import show_value
from vaezoo.core.options import options_of
from vaezoo.training.config import TrainConfig
from vaezoo_cli.options import F

OPTIONS = options_of(TrainConfig())
SETTINGS = tuple(option.name for option in OPTIONS)


def train_options(f: F) -> F:
    """Adds one option per field of TrainConfig, and passes those that a user gives on as `settings`, name -> text.

    The texts are not checked here but by `vaezoo.core.options.configure`.
    """

    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        context = click.get_current_context()
        values = {name: kwargs.pop(name) for name in SETTINGS}
        given = {
            name: value
            for name, value in values.items()
            if context.get_parameter_source(name) is not ParameterSource.DEFAULT
        }
        return f(*args, settings=given, **kwargs)

    types = typing.get_type_hints(TrainConfig)
    options: list[Callable[[F], F]] = [
        click.option(f"--{option.name.replace('_', '-')}", is_flag=True, help=option.help)
        if option.default is False
        else click.option(
            f"--{option.name.replace('_', '-')}",
            default=show_value(option.default) if option.default not in (None, []) else None,
            metavar=metavar(types[option.name]),
            help=option.help,
        )
        for option in OPTIONS
    ]
    return functools.reduce(lambda command, option: option(command), reversed(options), cast("F", wrapper))


def metavar(kind: Any) -> str:
    """Returns how the help shows the values of a type, such as INTEGER or [adam|adamw]."""
    args = [arg for arg in get_args(kind) if arg not in (NoneType, ...)]
    if get_origin(kind) is Literal:
        return f"[{'|'.join(args)}]"
    if get_origin(kind) is tuple:
        return f"{metavar(args[0])},..."
    if args:  # an optional value
        return metavar(args[0])
    return {int: "INTEGER", float: "FLOAT"}.get(kind, "TEXT")
