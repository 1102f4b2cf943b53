"""Builds a likelihood from its name."""

from __future__ import annotations

from vaezoo.errors import VaezooError, suggest
from vaezoo.likelihoods.base import Likelihood
from vaezoo.likelihoods.bernoulli import Bernoulli
from vaezoo.likelihoods.continuous_bernoulli import ContinuousBernoulli
from vaezoo.likelihoods.gaussian import Gaussian

NAMES = ("bernoulli", "continuous-bernoulli", "gaussian")


def make_likelihood(text: str) -> Likelihood:
    """Builds the likelihood that `text` names.

    Args:
        text: `bernoulli`, `continuous-bernoulli`, or `gaussian`, the last optionally with its
            sigma: `gaussian:0.1`, `gaussian:learned`, `gaussian:optimal`; `gaussian` alone has sigma 1,
            which makes the loss half the squared error.

    Raises:
        VaezooError: If there is no such likelihood.
    """
    name, colon, sigma = text.partition(":")
    if name == "gaussian":
        try:
            return Gaussian(float(sigma)) if colon and sigma not in ("learned", "optimal") else Gaussian(sigma or 1.0)
        except ValueError:
            raise VaezooError(
                f"gaussian sigma '{sigma}' is no positive number", "use a number, learned or optimal"
            ) from None
    if name in NAMES and not colon:
        return Bernoulli() if name == "bernoulli" else ContinuousBernoulli()
    raise VaezooError(f"no likelihood named '{text}'", suggest(text, NAMES, f"use one of {', '.join(NAMES)}"))
