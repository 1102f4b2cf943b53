"""vaezoo pretrained [NAME]"""

from __future__ import annotations

from dataclasses import asdict

import click

from vaezoo_cli.options import json_option, print_json


@click.command()
@click.argument("name", required=False)
@json_option
def pretrained(name: str | None, as_json: bool) -> None:
    """List the pretrained models that come with vaezoo, or show the card of one.

    sample, reconstruct, encode, plot, eval, export and bench take a NAME where they take a run.
    """
    from vaezoo.pretrained import find_pretrained, list_pretrained

    found = [find_pretrained(name)] if name else list_pretrained()
    if as_json:
        described = [{**asdict(card), "path": str(card.path)} for card in found]
        print_json(described[0] if name else {"pretrained": described})
        return
    from vaezoo_cli.render.pretrained import render_card, render_pretrained

    if name:
        render_card(found[0])
    else:
        render_pretrained(found)
