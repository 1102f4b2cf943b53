"""Builds a likelihood from its name."""

from __future__ import annotations

import contextlib

from vaezoo.errors import VaezooError, suggest
from vaezoo.likelihoods.base import Likelihood
from vaezoo.likelihoods.bernoulli import Bernoulli
from vaezoo.likelihoods.continuous_bernoulli import ContinuousBernoulli
from vaezoo.likelihoods.gaussian import Gaussian

PLAIN = {"bernoulli": Bernoulli, "continuous-bernoulli": ContinuousBernoulli}  # likelihoods without a parameter
NAMES = (*PLAIN, "gaussian")


def make_likelihood(text: str) -> Likelihood:
    """Builds the likelihood that `text` names.

    Args:
        text: `bernoulli`, `continuous-bernoulli` or `gaussian`. The last may be followed by its sigma: `gaussian:0.1`,
            `gaussian:learned`, `gaussian:optimal`. `gaussian` alone has sigma 1. The loss is then half the squared
            error.

    Raises:
        VaezooError: If there is no such likelihood.
    """
    name, colon, sigma = text.partition(":")
    if name == "gaussian":
        if not colon:
            return Gaussian()
        with contextlib.suppress(ValueError):
            return Gaussian(float(sigma))
        return Gaussian(sigma)  # learned, optimal, or refused
    if name in PLAIN and not colon:
        return PLAIN[name]()
    raise VaezooError(f"no likelihood named '{text}'", suggest(text, NAMES, f"use one of {', '.join(NAMES)}"))
