"""vaezoo show MODEL"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from vaezoo_cli.options import json_option, parse_options, print_json

if TYPE_CHECKING:
    from vaezoo import Registration

# What a model is tried on, to say which inputs it takes.
SHAPES = ((1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 33, 45), (3, 64, 64), (3, 128, 128), (3, 256, 256), (100,))


@click.command()
@click.argument("model")
@click.option("-o", "options", multiple=True, metavar="NAME=VALUE", help="Show the model with an option changed.")
@json_option
def show(model: str, options: tuple[str, ...], as_json: bool) -> None:
    """Show a model's options, parameters and inputs."""
    from vaezoo.registry import find_model
    from vaezoo.spec import configure, options_of

    registration = find_model(model)
    spec = registration.load()
    changed = parse_options(options)
    config = configure(spec.config, changed)
    described = {
        "name": registration.name,
        "distribution": registration.distribution,
        "version": registration.version,
        "summary": spec.summary,
        "reference": spec.reference,
        "options": [asdict(option) for option in options_of(config)],
        "inputs": [input_row(registration, changed, shape) for shape in SHAPES],
    }
    if as_json:
        print_json(described)
        return
    from vaezoo_cli.render.tables import render_model

    render_model(described)


def input_row(registration: Registration, options: dict[str, str], shape: tuple[int, ...]) -> dict[str, object]:
    """Says whether a model takes data of a shape, and then its parameters by part."""
    import torch

    from vaezoo import DataSpec, UnsupportedDataError

    data = DataSpec(name="example", shape=shape)
    try:
        with torch.device("meta"):  # counts without allocating
            _, vae, objective = registration.build(options, data)
    except UnsupportedDataError:
        return {"shape": list(shape), "parameters": None}
    parts = [*vae.named_children(), *objective.named_children()]
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts}
    return {"shape": list(shape), "parameters": {name: count for name, count in counts.items() if count}}
