"""Builds a likelihood from its name."""

from __future__ import annotations

import contextlib

from vaezoo.errors import VaezooError, suggest
from vaezoo.likelihoods.base import Likelihood
from vaezoo.likelihoods.bernoulli import Bernoulli
from vaezoo.likelihoods.continuous_bernoulli import ContinuousBernoulli
from vaezoo.likelihoods.gaussian import Gaussian

NAMES = ("bernoulli", "continuous-bernoulli", "gaussian")


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
    if name in NAMES and not colon:
        return Bernoulli() if name == "bernoulli" else ContinuousBernoulli()
    raise VaezooError(f"no likelihood named '{text}'", suggest(text, NAMES, f"use one of {', '.join(NAMES)}"))
