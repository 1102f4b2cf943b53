"""vaezoo list"""

from __future__ import annotations

import click

from vaezoo_cli.options import json_option, print_json


@click.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the models, built in and from plugins, and the data."""
    from vaezoo import list_models
    from vaezoo.data.catalog import DATASETS

    models = []
    registrations = list_models()
    for registration in registrations:
        name = registration.name
        if any(name == other.name and registration is not other for other in registrations):
            name = registration.full_name  # a name that two packages claim means neither, or the built-in
        row = {"name": name, "distribution": registration.distribution, "version": registration.version}
        if registration.built_in:
            spec = registration.load()
            row |= {"summary": spec.summary, "reference": spec.reference}
        else:  # a list runs no third party's code, which may fail, hang or end the process
            row |= {"summary": registration.summary, "reference": ""}
        models.append(row)
    if as_json:
        print_json({"models": models, "data": dict(DATASETS)})
        return
    from vaezoo_cli.render.tables import render_datasets, render_models

    render_models(models)
    render_datasets(DATASETS)
