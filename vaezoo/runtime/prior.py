"""Latents from the prior of an export."""

from __future__ import annotations

import math

import numpy as np

from vaezoo.core.drawing import Drawing
from vaezoo.errors import VaezooError
from vaezoo.runtime.graphs import Graphs
from vaezoo.runtime.manifest import Array, example_shape


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
            ids[:, position] = Drawing().choose(graphs.run("prior", inputs)[0][:, position], rng)
        return ids.reshape(n, *latent_shape)
    raise VaezooError(
        f"{graphs.manifest['model']} has a custom prior, which this export does not hold",
        "draw z yourself and call decode, or sample from the run folder",
    )
