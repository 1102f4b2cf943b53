"""Counts that are drawn from p(x|z), as the decoder of an export describes it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vaezoo.runtime.manifest import Array


def draw_counts(outputs: Mapping[str, Array], rng: np.random.Generator) -> Array:
    """Draws a library size for each row, and then its counts, `(N, *shape)`, float32.

    Args:
        outputs: The outputs of the decoder; see `vaezoo.likelihoods.counts`. Without `log_dispersion` the counts are
            Poisson ones, and without `dropout_logits` there are no further zeros.
        rng: The random numbers.
    """
    log_fractions = outputs["log_fractions"].astype(np.float64)
    location, scale = outputs["log_library"].astype(np.float64).T
    library = location + scale * rng.standard_normal(len(location))
    rate = np.exp(log_fractions + library.reshape(-1, *[1] * (log_fractions.ndim - 1)))
    if "log_dispersion" in outputs:
        theta = np.exp(outputs["log_dispersion"].astype(np.float64))
        rate = rng.gamma(theta, rate / theta)
    counts = rng.poisson(rate)
    if "dropout_logits" in outputs:
        dropout = 1 / (1 + np.exp(-outputs["dropout_logits"].astype(np.float64)))
        counts[rng.random(counts.shape) < dropout] = 0
    drawn: Array = counts.astype(np.float32)
    return drawn
