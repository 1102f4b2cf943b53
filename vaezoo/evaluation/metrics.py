"""The types of an evaluation's results and settings, and the mean over examples with its standard error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

from vaezoo.errors import DivergedError

Binarize = Literal["none", "dynamic", "fixed"]
OnProgress = Callable[[int, int], None]  # called with the number of examples done and the total


class Metric(NamedTuple):
    """One number about a model.

    Attributes:
        name: The name in the literature.
        value: The number, or one number per latent dimension.
        unit: "nats", "bits", "dB", or "" for scores without a unit.
        protocol: How the number was computed. It tells metrics of the same name apart.
        error: Standard error, where the value is a mean.
    """

    name: str
    value: float | tuple[float, ...]
    unit: str
    protocol: str
    error: float | None = None


class EvalConfig(NamedTuple):
    """The settings of an evaluation.

    Attributes:
        binarize: See `vaezoo.evaluation.likelihood.elbo`.
        nll_samples: Samples of z per example for the NLL.
        elbo_samples: Samples of z per example for the ELBO.
        seed: Seed of all random numbers.
    """

    binarize: Binarize
    nll_samples: int
    elbo_samples: int
    seed: int


class Mean(NamedTuple):
    """A mean over the examples.

    Attributes:
        value: The mean.
        error: Its standard error, or None for a single example.
    """

    value: float
    error: float | None


def mean_with_error(values: Tensor) -> Mean:
    """Returns the mean of one value per example, `(N,)`, with its standard error.

    Raises:
        DivergedError: If a value is not finite.
    """
    check_finite(values)
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
    return Mean(values.mean().item(), error)


def check_finite(values: Tensor) -> None:
    """Raises DivergedError unless the values of all examples, `(N, ...)`, are finite."""
    if bad := int((~values.reshape(len(values), -1).isfinite().all(1)).sum()):
        raise DivergedError(
            f"the model's values are not finite for {bad:,} of {len(values):,} examples", "use another checkpoint"
        )
