"""The continuous Bernoulli likelihood."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.likelihoods.base import Likelihood, sum_dims


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
        return sum_dims(params * (x - 0.5) - torch.where(near, series, far))

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
