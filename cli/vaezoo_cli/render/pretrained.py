"""The output of `vaezoo pretrained`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from rich.markdown import Markdown
from rich.markup import escape

from vaezoo_cli.render.console import OUT, table

if TYPE_CHECKING:
    from vaezoo import Pretrained

METRICS = ("-ELBO", "NLL-5000")


def render_pretrained(cards: Sequence[Pretrained]) -> None:
    """Prints the list of pretrained models."""
    rows = table("name", "parameters", "recipe", *METRICS, "evaluated on")
    for card in cards:
        evaluations = [cast("Mapping[str, Any]", e) for e in card.evaluations if e["data"] == card.data]
        values = {metric["name"]: metric["value"] for evaluation in evaluations for metric in evaluation["metrics"]}
        cells = [f"{values[name]:.2f}" if name in values else "-" for name in METRICS]
        pixels = "grey levels" if evaluations[0]["config"]["binarize"] == "none" else "bits"
        split = f"{evaluations[0]['split']} split of {card.data}, {pixels}"
        rows.add_row(f"[cyan]{escape(card.name)}[/]", f"{card.parameters:,}", card.recipe, *cells, split)
    OUT.print(rows)
    OUT.print("\nvalues in nats per image; 'vaezoo pretrained NAME' shows all metrics and their protocols")


def render_card(card: Pretrained) -> None:
    """Prints the model card of a pretrained model, formatted on a terminal and as Markdown elsewhere."""
    text = (card.path / "README.md").read_text("utf-8")
    OUT.print(Markdown(text) if OUT.is_terminal else escape(text), soft_wrap=not OUT.is_terminal)
