"""The model card of a pretrained model, README.md, made from card.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaezoo.pretrained import Pretrained

TEMPLATE = """# {name}

{model} trained on {data}. It has {parameters:,} parameters. The weights are stored in float16, which changes -ELBO by
{rounding:+.4f} nats.

Trained with:

```
vaezoo train --recipe {recipe}
```

Use:

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
    """Returns the model card in Markdown."""
    fields = {field: getattr(card, field) for field in card.__slots__ if field != "evaluations"}
    return TEMPLATE.format(**fields, evaluations="\n\n".join(metrics_table(record) for record in card.evaluations))


def metrics_table(evaluation: Mapping[str, Any]) -> str:
    """Returns the metrics of one evaluation as a table. Metrics per latent dimension are left out."""
    examples, total = evaluation["examples"], evaluation["total"]
    count = f"{examples:,} of {total:,}" if examples < total else f"{total:,}"
    rows = [
        f"| {metric['name']} | {format_value(metric)} | {metric['unit']} | {escape_pipes(metric['protocol'])} |"
        for metric in evaluation["metrics"]
        if not isinstance(metric["value"], list | tuple)
    ]
    head = f"Metrics on the {evaluation['split']} split of {evaluation['data']}, {count} examples:"
    return "\n".join([head, "", "| metric | value | unit | protocol |", "|---|---|---|---|", *rows])


def escape_pipes(text: str) -> str:
    """Escapes the characters that would end a cell of a table."""
    return text.replace("|", r"\|")


def format_value(metric: Mapping[str, Any]) -> str:
    """Returns the value of a metric with its standard error."""
    if isinstance(metric["value"], int):
        return str(metric["value"])
    error = f" ± {metric['error']:.2g}" if metric["error"] else ""
    return f"{metric['value']:{'.2f' if metric['unit'] == 'nats' else '#.4g'}}{error}"
