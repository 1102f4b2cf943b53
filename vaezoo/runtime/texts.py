"""Texts from latents: the ids of an autoregressive decoder, chosen one after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vaezoo.core.drawing import Drawing, beam_search
from vaezoo.runtime.graphs import Graphs
from vaezoo.runtime.manifest import Array, AutoregressiveEntry, example_shape


def decode_texts(
    graphs: Graphs,
    loop: AutoregressiveEntry,
    z: Array,
    y: Array | None,
    drawing: Drawing,
    rng: np.random.Generator | None,
) -> Array:
    """Returns the ids of a text for each latent, `(N, length)`, int64.

    Args:
        graphs: Those of the export.
        loop: The length of a text, and the id that ends it.
        z: Latents, `(N, *latent_shape)`.
        y: Labels, if the decoder is conditioned on them.
        drawing: How ids are chosen.
        rng: Draws the ids. Without it they are the most probable.
    """
    if drawing.beam:
        return _search(graphs, loop, z, y, drawing.beam)
    if "greedy" in graphs.sessions and (rng is None or drawing.temperature == 0):
        whole: Array = graphs.run("greedy", graphs.inputs("greedy", {"z": z, "y": y}))[0]
        return whole
    x, ended = np.zeros((len(z), loop["length"]), np.int64), np.zeros(len(z), bool)
    next_logits = _step_by_step(graphs, loop, z, y)
    for position in range(loop["length"]):
        ids = drawing.choose(next_logits(x[:, : position + 1]), rng)
        x[:, position] = np.where(ended, 0, ids)
        ended |= ids == loop["end_id"]
        if ended.all():
            break
    return x


def _search(graphs: Graphs, loop: AutoregressiveEntry, z: Array, y: Array | None, width: int) -> Array:
    """Returns the most probable text that a beam search finds for each latent."""
    rows = None if y is None else np.asarray(y)

    def logits_of(index: Array, x: Array) -> Array:
        return _next_logits(graphs, z[index], None if rows is None else rows[index], x)

    return beam_search(logits_of, len(z), loop["length"], loop["end_id"], width)


def _step_by_step(graphs: Graphs, loop: AutoregressiveEntry, z: Array, y: Array | None) -> Callable[[Array], Array]:
    """Returns a function of ids like `_next_logits`, to be called for each position in turn.

    With a graph `step` it looks at the id before the last one only.
    """
    if "start_id" not in loop or "step" not in graphs.sessions:
        return lambda x: _next_logits(graphs, z, y, x)
    start, size = loop["start_id"], example_shape(graphs.signature("step", "state"))
    state: Array = np.zeros((len(z), *map(int, size)), np.float32)

    def next_logits(x: Array) -> Array:
        nonlocal state
        before = x[:, -2] if x.shape[1] > 1 else np.full(len(x), start)
        inputs = graphs.inputs("step", {"id": before, "state": state, "z": z, "y": y})
        logits, state = graphs.run("step", inputs)
        return logits

    return next_logits


def _next_logits(graphs: Graphs, z: Array, y: Array | None, x: Array) -> Array:
    """Returns the logits of the last of some ids, `(N, ids)`, given those before it."""
    last, length = x.shape[1] - 1, graphs.signature("decoder", "x")["shape"][1]
    if not isinstance(length, str):
        x = np.pad(x, ((0, 0), (0, length - x.shape[1])))
    logits: Array = graphs.run("decoder", graphs.inputs("decoder", {"z": z, "y": y, "x": x}))[0][:, last]
    return logits
