"""The card of a pretrained model for people, README.md, made from card.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaezoo.pretrained import Pretrained

TEMPLATE = """# {name}

{model}, trained on {data} by `vaezoo train --recipe {recipe}`. {parameters:,} parameters, kept in float16, which
changes -ELBO by {rounding:+.4f} nats.

```
vaezoo sample {name}
vaezoo export {name} --onnx
```

```python
run = vaezoo.load("{model}", pretrained="{data}")
```

{evaluations}

Licence: {license}.

SHA-256 of the weights: `{sha256}`
"""


def card_text(card: Pretrained) -> str:
    """Returns the card in Markdown."""
    fields = {field: getattr(card, field) for field in card.__slots__ if field != "evaluations"}
    return TEMPLATE.format(**fields, evaluations="\n\n".join(table(told) for told in card.evaluations))


def table(told: Mapping[str, Any]) -> str:
    """Returns the figures of one evaluation, all but those by dimension, as a table."""
    of = f"{told['examples']:,} of {told['total']:,}" if told["examples"] < told["total"] else f"{told['total']:,}"
    rows = [
        f"| {figure['name']} | {number(figure)} | {figure['unit']} | {figure['protocol'].replace('|', chr(92) + '|')} |"
        for figure in told["metrics"]
        if not isinstance(figure["value"], list | tuple)
    ]
    head = f"On the {told['split']} part of {told['data']}, {of} examples:"
    return "\n".join([head, "", "| figure | value | | how |", "|---|---|---|---|", *rows])


def number(figure: Mapping[str, Any]) -> str:
    """Returns a value with its standard error."""
    if isinstance(figure["value"], int):
        return str(figure["value"])
    error = f" ± {figure['error']:.2g}" if figure["error"] else ""
    return f"{figure['value']:{'.2f' if figure['unit'] == 'nats' else '#.4g'}}{error}"
