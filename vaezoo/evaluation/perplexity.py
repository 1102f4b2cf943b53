"""Perplexity of texts: how many ids, words or characters the model is undecided between, on average."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from vaezoo.core.tokenizer import Tokenizer
from vaezoo.data.base import Split
from vaezoo.data.spec import DataSpec
from vaezoo.evaluation.batches import iter_batches
from vaezoo.evaluation.metrics import Metric

MAX_EXPONENT = 700  # a larger one has no exponential, and its perplexity is left out


class Unit(NamedTuple):
    """What the nats of texts are divided by.

    Attributes:
        name: Its name.
        count: The number of them in a text. The end of a text counts as one.
    """

    name: str
    count: Callable[[str], int]


UNITS = (Unit("word", lambda text: len(text.split()) + 1), Unit("character", lambda text: len(text) + 1))


def perplexity_metrics(data: DataSpec, split: Split, nats: float, source: str) -> list[Metric]:
    """Returns exp(nats / units) for ids, words and characters.

    The nats of all texts are divided by the number of units of all texts, as is usual for language models. Words are
    what white space separates. Numbers of characters compare models with different tokenizers.

    Args:
        data: The data of the model.
        split: The texts.
        nats: -ELBO or NLL of a text, the mean over the split.
        source: The name of that metric.

    Returns:
        The perplexities. Empty for data other than texts.
    """
    if data.kind != "tokens":
        return []
    kind = data.make_kind()
    names = ["id", *(unit.name for unit in UNITS if data.tokenizer)]
    totals = dict.fromkeys(names, 0.0)
    tokenizer = Tokenizer(data.tokenizer, data.symbols)
    for batch in iter_batches(split, "none", 0, torch.device("cpu")):
        totals["id"] += float(kind.count(batch.x).sum())
        texts = tokenizer.to_texts(batch.x.numpy()) if data.tokenizer else []
        for unit in UNITS:
            if unit.name in totals:
                totals[unit.name] += sum(map(unit.count, texts))
    about = f"exp({source} / {{}}s of a text), its end included"
    return [
        Metric(f"{source} perplexity per {name}", math.exp(nats * len(split) / total), "", about.format(name))
        for name, total in totals.items()
        if total and nats * len(split) / total < MAX_EXPONENT
    ]
