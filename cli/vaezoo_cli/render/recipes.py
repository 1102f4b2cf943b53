"""What `vaezoo recipes` draws."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from rich.markup import escape
from rich.table import Table

from vaezoo.recipes import Recipe
from vaezoo.spec import config_json, json_value, show_value
from vaezoo.training.config import TrainConfig
from vaezoo_cli.render.tables import OUT, table


def render_recipes(recipes: Iterable[Recipe]) -> None:
    """Draws the list of recipes."""
    made = table("recipe", "model", "data", "reported", "measured", "what it is")
    for r in recipes:
        figures = [f"{f.value:g}" if f and f.value is not None else "-" for f in (r.reference, r.measured)]
        made.add_row(f"[cyan]{escape(r.name)}[/]", r.model, r.data, *figures, escape(r.summary))
    OUT.print(made)
    OUT.print("figures in nats per image, where there are any; 'vaezoo recipes NAME' says how they were found")


def render_recipe(recipe: Recipe) -> None:
    """Draws a whole recipe."""
    plain = config_json(TrainConfig())
    training = {k: v for k, v in config_json(recipe.training).items() if v != plain[k]}
    parts = {
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
    made = Table.grid(padding=(0, 2, 0, 0))
    for part, values in parts.items():
        for number, (name, value) in enumerate((k, v) for k, v in values.items() if v not in (None, "")):
            made.add_row("" if number else part, name, escape(show_value(json_value(value))))
    OUT.print()
    OUT.print(made)
