"""The continuous Bernoulli likelihood."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.likelihoods.base import Likelihood, sum_dims


class ContinuousBernoulli(Likelihood):
    """The Bernoulli's formula, normalised over [0, 1] (Loaiza-Ganem and Cunningham 2019, arXiv 1907.06845).

    `params` are logits eta. The density is the exponential family p(x) = exp(eta x - A(eta)) with
    A(eta) = log((exp(eta) - 1) / eta). Its mean is A'(eta). At eta = 0 both are 0/0. Near it their Taylor series
    replace them, to single precision.

    It has no `params_of_mean`. For a pixel of mean 0.001 the parameter would be -1,000, too far for training to
    correct.
    """

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        # With h = |eta| / 2, log p(x) = eta (x - 1/2) - log(sinh(h) / h). This form is symmetric in eta.
        half = 0.5 * params.abs()
        near = half < 0.5
        # Away from 0: log(sinh(h) / h) = h + log(1 - exp(-2h)) - log(2h), where no exponential can overflow.
        far_half = torch.where(near, 1.0, half)  # keeps log(0) out of the gradient of the other branch
        far = far_half + torch.log1p(-torch.exp(-2 * far_half)) - torch.log(2 * far_half)
        # Near 0: log(sinh(h) / h) = h^2/6 - h^4/180 + h^6/2835 - h^8/37800 + ...
        square = torch.where(near, half, 0.0).square()
        series = square * (1 / 6 - square * (1 / 180 - square * (1 / 2835 - square / 37800)))
        return sum_dims(params * (x - 0.5) - torch.where(near, series, far))

    def mean(self, params: Tensor) -> Tensor:
        near = params.abs() < 0.5
        # Away from 0: A'(eta) = 1 / (1 - exp(-eta)) - 1 / eta for eta > 0, and A'(-eta) = 1 - A'(eta).
        size = torch.where(near, 1.0, params.abs())
        upper = -1 / torch.expm1(-size) - 1 / size  # expm1 of a positive number would overflow
        far = torch.where(params > 0, upper, 1 - upper)
        # Near 0: A'(eta) = 1/2 + eta/12 - eta^3/720 + eta^5/30240 - eta^7/1209600 + ...
        eta = torch.where(near, params, 0.0)
        square = eta.square()
        series = 0.5 + eta * (1 / 12 - square * (1 / 720 - square * (1 / 30240 - square / 1209600)))
        return torch.where(near, series, far)

    def sample(self, params: Tensor) -> Tensor:
        u = torch.rand_like(params)
        near = params.abs() < 1e-3  # the density is flat to within 0.05 % there
        rate = torch.where(near, 1.0, params.abs())
        # For eta < 0 the inverse of the distribution function is -log(1 + u (exp(-|eta|) - 1)) / |eta|. For eta > 0
        # the distribution is its mirror image.
        x = -torch.log1p(u * torch.expm1(-rate)) / rate
        return torch.where(near, u, torch.where(params > 0, 1 - x, x))
