"""vaezoo show MODEL"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from vaezoo_cli.options import json_option, parse_options, print_json

if TYPE_CHECKING:
    from vaezoo import VAE, DataSpec, Objective, Registration
    from vaezoo_cli.render.models import InputRow, ModelRow

# Images from 8x8 to 256x256, one with odd sides, and a vector.
SHAPES = ((1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 33, 45), (3, 64, 64), (3, 128, 128), (3, 256, 256), (100,))
LABELS = 10  # classes, for a model that is conditioned on labels


@click.command()
@click.argument("model")
@click.option("-o", "options", multiple=True, metavar="NAME=VALUE", help="Set an option of the model.")
@json_option
def show(model: str, options: tuple[str, ...], as_json: bool) -> None:
    """Show a model's options and parameters.

    Parameters are counted for several inputs: images, a vector, a series, a table and texts.
    """
    from vaezoo.core.options import configure, options_of
    from vaezoo.registry import find_model

    registration = find_model(model)
    spec = registration.load()
    values = parse_options(options)
    model_options = options_of(configure(spec.config, values))
    inputs = [count_parameters(registration, values, data) for data in example_inputs()]
    parts = spec.part_names()
    row: ModelRow = {
        "name": registration.name,
        "distribution": registration.distribution,
        "version": registration.version,
        "posterior": parts["posterior"],
        "prior": parts["prior"],
        "objective": parts["objective"],
        "summary": spec.summary,
        "reference": spec.reference,
    }
    if as_json:
        print_json({**row, "options": [asdict(option) for option in model_options], "inputs": inputs})
        return
    from vaezoo_cli.render.models import render_model

    render_model(row, model_options, inputs)


def example_inputs() -> list[DataSpec]:
    """Returns the inputs to show, at least one of each kind of data."""
    from vaezoo import DataSpec
    from vaezoo_cli.render.console import show_shape

    columns = (*(f"c{i}:real" for i in range(5)), "c5:2", "c6:3")
    return [
        *(DataSpec(name=show_shape(shape), shape=shape) for shape in SHAPES),
        DataSpec(name="series of 2x32", shape=(2, 32), kind="real", likelihood="gaussian"),
        DataSpec(name="table of 7 columns", shape=(7,), kind="table", likelihood="table", columns=columns),
        DataSpec(name="counts of 50 columns", shape=(50,), kind="count", likelihood="zinb"),
        DataSpec(name="text of 16 ids of 28", shape=(16,), kind="tokens", likelihood="categorical", vocabulary=28),
    ]


def count_parameters(registration: Registration, options: dict[str, str], data: DataSpec) -> InputRow:
    """Counts the parameters of each module of a model for an input."""
    built = build_example(registration, options, data)
    if built is None:
        return {"input": data.name, "shape": list(data.shape), "parameters": None}
    vae, objective = built
    own = {"model": [*vae.parameters(recurse=False), *objective.parameters(recurse=False)]}
    modules = [*vae.named_children(), *objective.named_children()]
    parts = own | {name: [*module.parameters()] for name, module in modules}
    counts = {name: sum(p.numel() for p in parameters) for name, parameters in parts.items()}
    parameters = {name: count for name, count in counts.items() if count}
    return {"input": vae.data.name, "shape": list(data.shape), "parameters": parameters}


def build_example(registration: Registration, options: dict[str, str], data: DataSpec) -> tuple[VAE, Objective] | None:
    """Builds a model for an input, without memory for its weights. Labels are added if the model needs them.

    Returns None for an input that the model does not support.
    """
    import torch

    from vaezoo import UnsupportedDataError

    labelled = replace(data, name=f"{data.name} and {LABELS} classes", classes=(LABELS,))
    for example in (data, labelled):
        with contextlib.suppress(UnsupportedDataError), torch.device("meta"):
            _, vae, objective = registration.build(options, example)
            return vae, objective
    return None
