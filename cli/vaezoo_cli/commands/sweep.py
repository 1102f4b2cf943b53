"""vaezoo sweep MODEL"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from vaezoo.errors import DivergedError, VaezooError
from vaezoo_cli.data_options import TrainingData, training_data_options
from vaezoo_cli.options import json_option, option_names_as_typed, parse_options, print_json
from vaezoo_cli.train_options import SETTINGS, train_options

if TYPE_CHECKING:
    from vaezoo import Cell


@click.command(context_settings={"show_default": True})
@click.argument("model")
@training_data_options("digits")
@click.option("-o", "options", multiple=True, metavar="NAME=VALUE,...", help="Model option; see 'vaezoo show MODEL'.")
@click.option("--out", type=click.Path(), metavar="FOLDER", help="Folder of the sweep.  [default: sweeps/MODEL-DATA]")
@click.option("--likelihood", metavar="NAME", help="As in 'vaezoo train'.  [default: that of the data]")
@click.option("--scale", metavar="NAME", help="As in 'vaezoo train'.")
@train_options
@json_option
def sweep(
    model: str,
    data: TrainingData,
    options: tuple[str, ...],
    out: str | None,
    likelihood: str | None,
    scale: str | None,
    as_json: bool,
    settings: Mapping[str, object],
) -> None:
    """Train a model once for each combination of values.

    Several values of an option are separated by commas: -o beta=1,2,4 --seed 0,1,2. If an option takes a list, its
    values are separated by semicolons: -o "hidden=400,200;100".

    The trainings run one after the other, each in a folder of its own. The same command continues a sweep that was
    stopped. A training that fails is recorded and passed over, and the exit code is 4. 'vaezoo compare' shows the table
    again.
    """
    from rich.markup import escape

    import vaezoo
    from vaezoo.registry import find_model
    from vaezoo_cli.render.compare import render_comparison
    from vaezoo_cli.render.train import TrainingView

    if {"steps", "epochs"} <= settings.keys():
        raise VaezooError("--steps and --epochs both set the length of the training", "give one of them")
    config = find_model(model).load().config
    with option_names_as_typed(SETTINGS):
        axes = {n: one_or_more(split_values(vaezoo.TrainConfig(), n, str(text))) for n, text in settings.items()}
        chosen = {n: one_or_more(split_values(config, n, text)) for n, text in parse_options(options).items()}
        dataset = data.load(likelihood, scale)
        with TrainingView() as view:

            def show(cell: Cell, number: int, total: int) -> None:
                how = "done" if cell.error is None else f"failed: {cell.error.splitlines()[0]}"
                view.line(escape(f"{number} of {total}: {cell.name} {how}"))

            cells = vaezoo.sweep(
                model,
                dataset,
                options=chosen,
                settings=axes,
                out=out,
                on_cell=show,
                on_start=view.start,
                on_report=view.report,
            )
    folder = cells[0].path.parent
    comparison = vaezoo.compare([folder])
    if as_json:
        print_json(comparison.as_dict())
    else:
        render_comparison(comparison, next_step=f"vaezoo compare {folder} --out compare.png")
    if any(cell.error for cell in cells):
        click.get_current_context().exit(DivergedError.exit_code)


def split_values(config: object, name: str, text: str) -> list[str]:
    """Returns the values that a user typed for an option.

    The values of an option that takes a list are separated by semicolons, because commas separate the list's items.
    """
    takes_list = isinstance(getattr(config, name, None), tuple)
    return [part.strip() for part in text.split(";" if takes_list or ";" in text else ",")]


def one_or_more(values: list[str]) -> object:
    """Returns the list of several values, which vary, or a single value, which does not."""
    return values if len(values) > 1 else values[0]
