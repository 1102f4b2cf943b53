"""What `vaezoo pretrained` draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from vaezoo_cli.draw import OUT, table

if TYPE_CHECKING:
    from vaezoo import Pretrained

COLUMNS = ("-ELBO", "NLL-5000")


def draw_pretrained(cards: Sequence[Pretrained]) -> None:
    """Draws the list of pretrained models."""
    made = table("pretrained", "parameters", "recipe", *COLUMNS, "on")
    for card in cards:
        told: Any = card.evaluations[0]
        found = {figure["name"]: f"{figure['value']:.2f}" for figure in told["figures"] if figure["name"] in COLUMNS}
        on = f"{told['part']} part of {told['data']}"
        figures = [found.get(name, "-") for name in COLUMNS]
        made.add_row(f"[cyan]{escape(card.name)}[/]", f"{card.parameters:,}", card.recipe, *figures, on)
    OUT.print(made)
    OUT.print("figures in nats per image; 'vaezoo pretrained NAME' says how each was found")


def draw_card(card: Pretrained) -> None:
    """Draws a model's card."""
    OUT.print(escape((card.path / "README.md").read_text()), soft_wrap=True)


def plain(card: Pretrained) -> dict[str, object]:
    """Returns a card as JSON has it."""
    from dataclasses import asdict

    return {**asdict(card), "path": str(card.path)}
