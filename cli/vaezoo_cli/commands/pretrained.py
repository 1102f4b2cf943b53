"""vaezoo pretrained [NAME]"""

from __future__ import annotations

import click

from vaezoo.errors import VaezooError, suggest
from vaezoo_cli.options import json_option, print_json


@click.command()
@click.argument("name", required=False)
@json_option
def pretrained(name: str | None, as_json: bool) -> None:
    """List the pretrained models that come with vaezoo, or show the card of one.

    sample, reconstruct, encode, plot, eval, export and bench take a NAME where they take a run.
    """
    from vaezoo import list_pretrained
    from vaezoo_cli.draw_pretrained import draw_card, draw_pretrained, plain

    cards = list_pretrained()
    known = [card.name for card in cards]
    if name is not None and name not in known:
        raise VaezooError(f"no pretrained model named '{name}'", suggest(name, known, "see 'vaezoo pretrained'"))
    chosen = [card for card in cards if name in (None, card.name)]
    if as_json:
        print_json(plain(chosen[0]) if name else {"pretrained": [plain(card) for card in chosen]})
    elif name:
        draw_card(chosen[0])
    else:
        draw_pretrained(chosen)
