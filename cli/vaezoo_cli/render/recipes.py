"""The output of `vaezoo recipes`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from rich.markup import escape
from rich.table import Table

from vaezoo.core.option_values import json_value, show_value
from vaezoo.core.options import config_json
from vaezoo.recipes import Recipe
from vaezoo.training.config import TrainConfig
from vaezoo_cli.render.console import OUT, table


def render_recipes(recipes: Iterable[Recipe]) -> None:
    """Prints the list of recipes."""
    rows = table("recipe", "model", "data", "published", "measured", "summary")
    for r in recipes:
        values = [f"{v.value:g}" if v and v.value is not None else "-" for v in (r.reference, r.measured)]
        rows.add_row(f"[cyan]{escape(r.name)}[/]", r.model, r.data, *values, escape(r.summary))
    OUT.print(rows)
    OUT.print("\nvalues in nats per image; 'vaezoo recipes NAME' shows the settings and the protocols")


def render_recipe(recipe: Recipe) -> None:
    """Prints a recipe. Of the training settings it prints those that differ from the defaults."""
    defaults = config_json(TrainConfig())
    training = {name: value for name, value in config_json(recipe.training).items() if value != defaults[name]}
    sections = {
        "": {"model": recipe.model, "data": recipe.data, "likelihood": recipe.likelihood},
        "options": recipe.options,
        "training": training,
        "evaluation": asdict(recipe.evaluation),
        "reference": asdict(recipe.reference),
        "measured": asdict(recipe.measured) if recipe.measured else {},
    }
    OUT.print(f"[bold cyan]{escape(recipe.name)}[/]  {escape(recipe.summary)}", soft_wrap=True)
    if recipe.notes:
        OUT.print(escape(" ".join(recipe.notes.split())))
    rows = Table.grid(padding=(0, 2, 0, 0))
    for section, values in sections.items():
        present = {name: value for name, value in values.items() if value not in (None, "")}
        for number, (name, value) in enumerate(present.items()):
            rows.add_row("" if number else section, name, escape(show_value(json_value(value))))
    OUT.print()
    OUT.print(rows)
