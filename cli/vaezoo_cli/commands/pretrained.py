"""vaezoo pretrained [NAME]"""

from __future__ import annotations

from dataclasses import asdict

import click

from vaezoo_cli.options import json_option, print_json


@click.command()
@click.argument("name", required=False)
@json_option
def pretrained(name: str | None, as_json: bool) -> None:
    """List the pretrained models, or show one.

    Every command that takes a run accepts a NAME in its place.
    """
    from vaezoo.pretrained import find_pretrained, list_pretrained

    cards = [find_pretrained(name)] if name else list_pretrained()
    if as_json:
        records = [{**asdict(card), "path": str(card.path)} for card in cards]
        print_json(records[0] if name else {"pretrained": records})
        return
    from vaezoo_cli.render.pretrained import render_card, render_pretrained

    if name:
        render_card(cards[0])
    else:
        render_pretrained(cards)
