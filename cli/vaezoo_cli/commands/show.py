"""vaezoo show MODEL"""

from __future__ import annotations

from dataclasses import asdict

import click

from vaezoo_cli.options import json_option, parse_options, print_json

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
    config = configure(spec.config, parse_options(options))
    described = {
        "name": registration.name,
        "distribution": registration.distribution,
        "version": registration.version,
        "summary": spec.summary,
        "reference": spec.reference,
        "options": [asdict(option) for option in options_of(config)],
        "inputs": [input_row(spec, config, shape) for shape in SHAPES],
    }
    if as_json:
        print_json(described)
        return
    from vaezoo_cli.draw import draw_model

    draw_model(described)


def input_row(spec: object, config: object, shape: tuple[int, ...]) -> dict[str, object]:
    """Says whether a model takes data of a shape, and then its parameters by part."""
    import torch

    from vaezoo import DataSpec, ModelSpec, UnsupportedDataError

    assert isinstance(spec, ModelSpec)
    data = DataSpec(name="example", shape=shape)
    try:
        with torch.device("meta"):  # counts without allocating
            vae, objective = spec.build(config, data), spec.objective(config, data)
    except UnsupportedDataError:
        return {"shape": list(shape), "parameters": None}
    parts = [*vae.named_children(), *objective.named_children()]
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts}
    return {"shape": list(shape), "parameters": {name: count for name, count in counts.items() if count}}
