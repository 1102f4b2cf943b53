"""What `vaezoo pretrained` draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.markdown import Markdown
from rich.markup import escape

from vaezoo_cli.render.tables import OUT, table

if TYPE_CHECKING:
    from vaezoo import Pretrained

COLUMNS = ("-ELBO", "NLL-5000")


def render_pretrained(cards: Sequence[Pretrained]) -> None:
    """Draws the list of pretrained models."""
    made = table("pretrained", "parameters", "recipe", *COLUMNS, "on")
    for card in cards:
        told: Any = [e for e in card.evaluations if e["data"] == card.data]
        found = {figure["name"]: figure["value"] for evaluation in told for figure in evaluation["metrics"]}
        figures = [f"{found[name]:.2f}" if name in found else "-" for name in COLUMNS]
        pixels = "grey levels" if told[0]["config"]["binarize"] == "none" else "bits"
        on = f"{told[0]['split']} part of {card.data}, {pixels}"
        made.add_row(f"[cyan]{escape(card.name)}[/]", f"{card.parameters:,}", card.recipe, *figures, on)
    OUT.print(made)
    OUT.print("figures in nats per image; 'vaezoo pretrained NAME' says how each was found")


def render_card(card: Pretrained) -> None:
    """Draws a model's card; as Markdown where it goes to a file."""
    text = (card.path / "README.md").read_text()
    OUT.print(Markdown(text) if OUT.is_terminal else escape(text), soft_wrap=not OUT.is_terminal)
