"""vaezoo show MODEL"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from vaezoo_cli.options import json_option, parse_options, print_json

if TYPE_CHECKING:
    from vaezoo import Registration
    from vaezoo_cli.render.models import InputRow, ModelRow

# The input shapes to show: images from 8x8 to 256x256, one with odd sides, and a vector.
SHAPES = ((1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 33, 45), (3, 64, 64), (3, 128, 128), (3, 256, 256), (100,))


@click.command()
@click.argument("model")
@click.option("-o", "options", multiple=True, metavar="NAME=VALUE", help="Set an option of the model.")
@json_option
def show(model: str, options: tuple[str, ...], as_json: bool) -> None:
    """Show a model's options and parameters.

    Parameters are counted for several input shapes.
    """
    from vaezoo.core.options import configure, options_of
    from vaezoo.registry import find_model

    registration = find_model(model)
    spec = registration.load()
    values = parse_options(options)
    model_options = options_of(configure(spec.config, values))
    inputs = [count_parameters(registration, values, shape) for shape in SHAPES]
    row: ModelRow = {
        "name": registration.name,
        "distribution": registration.distribution,
        "version": registration.version,
        "summary": spec.summary,
        "reference": spec.reference,
    }
    if as_json:
        print_json({**row, "options": [asdict(option) for option in model_options], "inputs": inputs})
        return
    from vaezoo_cli.render.models import render_model

    render_model(row, model_options, inputs)


def count_parameters(registration: Registration, options: dict[str, str], shape: tuple[int, ...]) -> InputRow:
    """Counts the parameters of each module of a model for an input shape, if the model supports it."""
    import torch

    from vaezoo import DataSpec, UnsupportedDataError

    data = DataSpec(name="example", shape=shape)
    try:
        with torch.device("meta"):  # allocates no memory
            _, vae, objective = registration.build(options, data)
    except UnsupportedDataError:
        return {"shape": list(shape), "parameters": None}
    modules = [*vae.named_children(), *objective.named_children()]
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in modules}
    return {"shape": list(shape), "parameters": {name: count for name, count in counts.items() if count}}
