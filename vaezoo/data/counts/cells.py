"""Generated counts of genes in cells: zero-inflated negative binomial given two latents, with all parameters known.

A cell has a type, two latents near the centre of its type, and a library size. The fractions of the genes are a softmax
of a linear function of the latents.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from vaezoo.core.drawing import log_softmax
from vaezoo.data.base import TensorSplit
from vaezoo.data.counts.layout import Array
from vaezoo.data.spec import DataSpec

GENES = 200
TYPES = ("A", "B", "C", "D")
TRAIN = 5_000
TEST = 1_000
RADIUS, SPREAD = 1.2, 0.4  # of the centres of the types around 0, and of the latents around their centre
LIBRARY = (math.log(1_000), 0.35)  # mean and standard deviation of the logarithms of library sizes


class Truth(NamedTuple):
    """The parameters of the counts.

    Attributes:
        centres: The mean of the latents of each type, `(types, 2)`. Their standard deviation is SPREAD. All types are
            equally frequent.
        weights: Of the latents in the logits of the fractions, `(2, genes)`.
        offsets: Of these logits, `(genes,)`.
        log_dispersion: log theta, `(genes,)`.
        dropout_logits: Logits of the probability of a further zero, `(genes,)`.
    """

    centres: Array
    weights: Array
    offsets: Array
    log_dispersion: Array
    dropout_logits: Array


class Cells(NamedTuple):
    """Cells that were drawn.

    Attributes:
        x: Their counts, `(N, genes)`.
        types: The number of their type, `(N,)`.
        library: Their library sizes, `(N,)`. The sum of the counts differs from it.
    """

    x: Array
    types: Array
    library: Array


def make_truth(seed: int = 0) -> Truth:
    """Draws the parameters. Genes with a small fraction have more further zeros."""
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(3)[0])
    angles = 2 * math.pi * np.arange(len(TYPES)) / len(TYPES)
    offsets = 1.2 * rng.standard_normal(GENES)
    return Truth(
        centres=RADIUS * np.stack([np.cos(angles), np.sin(angles)], 1),
        weights=0.7 * rng.standard_normal((2, GENES)),
        offsets=offsets,
        log_dispersion=math.log(3) + 0.6 * rng.standard_normal(GENES),
        dropout_logits=-2 - 0.6 * offsets + 0.3 * rng.standard_normal(GENES),
    )


def log_fractions(truth: Truth, z: Array) -> Array:
    """Returns the logarithms of the fractions of latents `(N, 2)`, `(N, genes)`."""
    return log_softmax(z @ truth.weights + truth.offsets)


def draw(truth: Truth, rng: np.random.Generator, n: int) -> Cells:
    """Draws n cells."""
    types = rng.integers(len(TYPES), size=n)
    z = truth.centres[types] + SPREAD * rng.standard_normal((n, 2))
    library = np.exp(LIBRARY[0] + LIBRARY[1] * rng.standard_normal(n))
    mean = library[:, None] * np.exp(log_fractions(truth, z))
    theta = np.exp(truth.log_dispersion)
    x = rng.poisson(rng.gamma(theta, mean / theta))
    x[rng.random(x.shape) < 1 / (1 + np.exp(-truth.dropout_logits))] = 0
    return Cells(x, types, library)


def draw_splits(seed: int = 0) -> tuple[Cells, Cells]:
    """Draws 5,000 cells for training and 1,000 for testing, from two streams of a seed."""
    truth, streams = make_truth(seed), np.random.SeedSequence(seed).spawn(3)[1:]
    train, test = (draw(truth, np.random.default_rng(s), n) for s, n in zip(streams, (TRAIN, TEST), strict=True))
    return train, test


def load(seed: int = 0) -> tuple[DataSpec, TensorSplit, TensorSplit]:
    """Draws the cells.

    Args:
        seed: The same seed gives the same parameters and cells.

    Returns:
        The description, the training split and the test split. x is `(N, 200)`, float32, and y the number of the type.
    """
    train, test = (
        TensorSplit(torch.from_numpy(cells.x.astype(np.float32)), torch.from_numpy(cells.types))
        for cells in draw_splits(seed)
    )
    data = DataSpec(
        name="cells",
        shape=(GENES,),
        likelihood="zinb",
        kind="count",
        classes=(len(TYPES),),
        class_names=TYPES,
        column_names=tuple(f"gene-{number:03}" for number in range(GENES)),
    )
    return data, train, test
