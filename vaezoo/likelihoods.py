"""p(x|z): what the numbers that a decoder puts out mean.

A decoder's output has the shape of the data and is unbounded: logits, never probabilities. The
likelihood turns it into the mean picture, a log-likelihood or a sample. All log-likelihoods are
summed over the dimensions of an example, never averaged, and given in nats.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo import ranks
from vaezoo.errors import VaezooError, suggest

NAMES = ("bernoulli", "continuous-bernoulli", "gaussian")


class Likelihood(nn.Module, ABC):
    """A family of distributions over data in [0, 1], given a decoder's output.

    It is a module because a family may have parameters of its own (a learned sigma); they are
    trained and saved with the model.
    """

    @abstractmethod
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Returns log p(x|z), `(B,)`, in nats, for `params` and `x` of shape `(B, *shape)`."""

    @abstractmethod
    def mean(self, params: Tensor) -> Tensor:
        """Returns the mean of p(x|z), in [0, 1], in the shape of `params`."""

    @abstractmethod
    def sample(self, params: Tensor) -> Tensor:
        """Draws x from p(x|z), in the shape of `params`."""


class Bernoulli(Likelihood):
    """Each dimension is a coin; `params` are its logits.

    With grey levels in x instead of bits this is the usual binary cross-entropy: a fine loss and
    a fine number to compare, but not a normalised likelihood.
    """

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        return -_sum(F.binary_cross_entropy_with_logits(params, x, reduction="none"))

    def mean(self, params: Tensor) -> Tensor:
        return torch.sigmoid(params)

    def sample(self, params: Tensor) -> Tensor:
        return torch.bernoulli(self.mean(params))


class ContinuousBernoulli(Likelihood):
    """The Bernoulli's formula, normalised over [0, 1] (Loaiza-Ganem and Cunningham 2019, arXiv 1907.06845).

    In terms of the logit eta it is the exponential family p(x) = exp(eta x - A(eta)) with
    A(eta) = log((exp(eta) - 1) / eta), whose mean is A'(eta). Both are 0/0 at eta = 0 and are
    replaced there by their Taylor series, to single precision.
    """

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        half = 0.5 * params.abs()
        near = half < 0.5
        far_half = torch.where(near, 1.0, half)  # keeps log(0) out of the gradient of the other branch
        far = far_half + torch.log1p(-torch.exp(-2 * far_half)) - torch.log(2 * far_half)
        square = torch.where(near, half, 0.0).square()
        series = square * (1 / 6 - square * (1 / 180 - square * (1 / 2835 - square / 37800)))
        return _sum(params * (x - 0.5) - torch.where(near, series, far))

    def mean(self, params: Tensor) -> Tensor:
        near = params.abs() < 0.5
        size = torch.where(near, 1.0, params.abs())
        upper = -1 / torch.expm1(-size) - 1 / size  # for eta > 0; expm1 of a positive number would overflow
        far = torch.where(params > 0, upper, 1 - upper)
        eta = torch.where(near, params, 0.0)
        square = eta.square()
        series = 0.5 + eta * (1 / 12 - square * (1 / 720 - square * (1 / 30240 - square / 1209600)))
        return torch.where(near, series, far)

    def sample(self, params: Tensor) -> Tensor:
        u = torch.rand_like(params)
        near = params.abs() < 1e-3  # there the density is flat to within 0.05 %
        rate = torch.where(near, 1.0, params.abs())
        # The inverse of the distribution function for eta < 0; for eta > 0 the distribution is its mirror image.
        x = -torch.log1p(u * torch.expm1(-rate)) / rate
        return torch.where(near, u, torch.where(params > 0, 1 - x, x))


class Gaussian(Likelihood):
    """Normal noise of one sigma around a mean in [0, 1]; `params` are the logits of the mean.

    Args:
        sigma: The standard deviation, a number; or "learned", one parameter trained with the rest;
            or "optimal", the value that maximises the likelihood of each training batch in closed
            form (Rybkin et al. 2021, arXiv 2006.13202) and, in evaluation, its running average.

    Raises:
        VaezooError: If `sigma` is neither of these, or not positive.
    """

    MOMENTUM = 0.01
    SMALLEST = 1e-3  # a quarter of one of 256 grey levels: finer would fit the rounding of the data

    def __init__(self, sigma: float | str = 1.0) -> None:
        super().__init__()
        self.optimal = sigma == "optimal"
        if sigma == "learned":
            self.log_sigma: Tensor = nn.Parameter(torch.zeros(()))
        elif self.optimal:
            self.register_buffer("log_sigma", torch.zeros(()))
        elif isinstance(sigma, str) or not (sigma > 0 and math.isfinite(sigma)):
            raise VaezooError(f"gaussian sigma '{sigma}' is no positive number", "use a number, learned or optimal")
        else:
            self.register_buffer("log_sigma", torch.tensor(math.log(sigma)), persistent=False)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        square = (x - self.mean(params)).square()
        log_sigma = self.log_sigma.clamp(min=math.log(self.SMALLEST))
        if self.optimal and self.training:
            mean = ranks.batch_mean(square.detach().flatten(1).mean(1))
            log_sigma = 0.5 * torch.log(mean.clamp(min=self.SMALLEST**2))
            with torch.no_grad():
                self.log_sigma.lerp_(log_sigma, self.MOMENTUM)
        return _sum(-0.5 * square * torch.exp(-2 * log_sigma) - log_sigma - 0.5 * math.log(2 * math.pi))

    def mean(self, params: Tensor) -> Tensor:
        return torch.sigmoid(params)

    def sample(self, params: Tensor) -> Tensor:
        mean = self.mean(params)
        return mean + torch.exp(self.log_sigma) * torch.randn_like(mean)


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


def _sum(x: Tensor) -> Tensor:
    """Sums over all dimensions but the first."""
    return x.flatten(1).sum(1)
