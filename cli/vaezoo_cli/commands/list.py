"""vaezoo list"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vaezoo_cli.options import json_option, print_json

if TYPE_CHECKING:
    from vaezoo_cli.render.models import ModelRow


@click.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the models, the parts of composed models, and the data sets.

    Models and parts are built in or come from plugins. None is imported, so a broken plugin does no harm. What a list
    of models says is read from their sources. Posterior, prior and objective are those by default. A part is chosen
    with an option, such as -o prior=vamp. 'vaezoo show MODEL' shows which models have these options.
    """
    from vaezoo.core.option_values import PartOf
    from vaezoo.data.catalog import DATASETS
    from vaezoo.registry import list_models

    registrations = list_models()
    parts = {option: PartOf(f"vaezoo.{option}s").choices() for option in ("posterior", "prior", "objective")}
    models: list[ModelRow] = []
    for registration in registrations:
        others = [other for other in registrations if other is not registration]
        ambiguous = registration.name in (other.name for other in others)
        about = registration.describe()
        models.append(
            {
                "name": registration.full_name if ambiguous else registration.name,
                "distribution": registration.distribution,
                "version": registration.version,
                "posterior": about.posterior,
                "prior": about.prior,
                "objective": about.objective,
                "summary": about.summary,
                "reference": about.reference,
            }
        )
    if as_json:
        print_json({"models": models, "parts": parts, "data": dict(DATASETS)})
        return
    from vaezoo_cli.render.models import render_datasets, render_models, render_parts

    render_models(models)
    render_parts(parts)
    render_datasets(DATASETS)
