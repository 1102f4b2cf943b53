"""Latents from the prior, ids from logits, and rows of a table from a decoder's output."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from vaezoo.errors import VaezooError
from vaezoo.runtime.graphs import Graphs
from vaezoo.runtime.manifest import Array, AutoregressiveEntry, example_shape


def draw_latents(graphs: Graphs, n: int, y: Array | None, rng: np.random.Generator) -> Array:
    """Draws n latents from the prior, `(n, *latent_shape)`; see `OnnxVAE.sample` for the errors."""
    prior = graphs.manifest["prior"]
    if prior == "standard-normal":
        return rng.standard_normal((n, *graphs.manifest["latent_shape"]), dtype=np.float32)
    if prior == "graph":
        shape = example_shape(graphs.signature("prior", "noise"))
        noise = rng.standard_normal((n, *map(int, shape)), dtype=np.float32)
        return graphs.run("prior", graphs.inputs("prior", {"noise": noise, "y": y}))[0]
    if prior == "autoregressive":
        latent_shape = graphs.manifest["latent_shape"]
        length = math.prod(latent_shape)
        ids = np.zeros((n, length), np.int64)
        for position in range(length):
            inputs = graphs.inputs("prior", {"z": ids.reshape(n, *latent_shape), "y": y})
            ids[:, position] = draw_ids(graphs.run("prior", inputs)[0][:, position], rng)
        return ids.reshape(n, *latent_shape)
    raise VaezooError(
        f"{graphs.manifest['model']} has a custom prior, which this export does not hold",
        "draw z yourself and call decode, or sample from the run folder",
    )


def draw_text(
    logits: Callable[[Array], Array],
    n: int,
    loop: AutoregressiveEntry,
    has_free_length: bool,
    rng: np.random.Generator | None,
) -> Array:
    """Returns n texts whose ids are drawn one by one, `(n, length)`.

    Args:
        logits: Gives the logits `(n, T, ids)` of the next id at each position of ids `(n, T)`.
        n: Number of texts.
        loop: Their length, and the id that ends a text.
        has_free_length: Whether `logits` takes the ids so far alone.
        rng: Draws the ids. Without it they are the most probable.
    """
    x, ended = np.zeros((n, loop["length"]), np.int64), np.zeros(n, bool)
    for position in range(loop["length"]):
        own = logits(x[:, : position + 1] if has_free_length else x)[:, position]
        ids = own.argmax(-1) if rng is None else draw_ids(own, rng)
        x[:, position] = np.where(ended, 0, ids)
        ended |= ids == loop["end_id"]
        if ended.all():
            break
    return x


def draw_ids(logits: Array, rng: np.random.Generator) -> Array:
    """Draws one id from each row of logits `(N, ids)`. The largest of logit + Gumbel noise has the softmax's odds."""
    ids: Array = (logits + rng.gumbel(size=logits.shape)).argmax(-1)
    return ids


def table_rows(output: Array, columns: Sequence[str]) -> Array:
    """Returns rows `(N, columns)` from the decoder's output, in which a category has k probabilities side by side.

    Args:
        output: `(N, ...)`.
        columns: `name:real` or `name:k`.
    """
    sizes = [column.rpartition(":")[2] for column in columns]
    widths = [int(size) if size.isdigit() else 1 for size in sizes]
    parts = np.split(output, np.cumsum(widths)[:-1], axis=1)
    rows = [part.argmax(1) if size.isdigit() else part[:, 0] for part, size in zip(parts, sizes, strict=True)]
    return np.stack(rows, 1).astype(output.dtype)
