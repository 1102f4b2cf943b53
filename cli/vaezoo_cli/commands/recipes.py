"""vaezoo recipes [NAME]"""

from __future__ import annotations

from dataclasses import asdict

import click

from vaezoo_cli.options import json_option, print_json


@click.command()
@click.argument("name", required=False)
@json_option
def recipes(name: str | None, as_json: bool) -> None:
    """List the recipes, or show one.

    NAME is a recipe of the list or a .toml file. 'vaezoo train --recipe NAME' trains it.
    """
    from vaezoo.recipes import find_recipe, list_recipes

    selected = [find_recipe(name)] if name else list_recipes()
    if as_json:
        records = [asdict(recipe) for recipe in selected]
        print_json(records[0] if name else {"recipes": records})
        return
    from vaezoo_cli.render.recipes import render_recipe, render_recipes

    if name:
        render_recipe(selected[0])
    else:
        render_recipes(selected)
