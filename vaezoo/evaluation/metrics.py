"""What an evaluation gives: figures, each with all that makes it comparable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

Binarize = Literal["none", "dynamic", "fixed"]
OnProgress = Callable[[int, int], None]


class Metric(NamedTuple):
    """A number about a model.

    Attributes:
        name: What literature calls it.
        value: The number, or one for each latent dimension.
        unit: "nats", "bits", "dB", or "" for scores without a unit.
        protocol: How it was found, in words that tell it from others of the same name.
        error: Standard error, where it is a mean.
    """

    name: str
    value: float | tuple[float, ...]
    unit: str
    protocol: str
    error: float | None = None


class EvalConfig(NamedTuple):
    """What an evaluation may choose.

    Attributes:
        binarize: See `vaezoo.evaluation.likelihood.bound`.
        nll_samples: Latents for each example of the NLL.
        elbo_samples: Latents for each example of the bound.
        seed: Determines all chance.
    """

    binarize: Binarize
    nll_samples: int
    elbo_samples: int
    seed: int
