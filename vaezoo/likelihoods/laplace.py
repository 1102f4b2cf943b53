"""The Laplace likelihood with a fixed or learned scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vaezoo.errors import VaezooError
from vaezoo.likelihoods.base import Likelihood, mean_of, sum_dims
from vaezoo.likelihoods.bernoulli import MIN_MEAN
from vaezoo.likelihoods.gaussian import MIN_SIGMA


class Laplace(Likelihood):
    """Laplace noise around a mean, with one scale b for all dimensions. With b = 1 the loss is the absolute error.

    The constant log 2b belongs to it, so that it is a density. For data in [0, 1], `params` are the logits of the mean.
    For real data they are the mean itself. `identity` is as in `Gaussian`.

    Args:
        scale: b. A positive number is fixed. "learned" is one parameter that is trained with the model.
        unit: Whether the data lie in [0, 1].
        identity: Whether `params` are the mean even then.

    Raises:
        VaezooError: If `scale` is not one of these.
    """

    kinds = ("unit", "real")

    def __init__(self, scale: float | str = 1.0, *, unit: bool = True, identity: bool = False) -> None:
        super().__init__()
        self.unit, self.identity = unit, identity
        if scale == "learned":
            self.log_scale: Tensor = nn.Parameter(torch.zeros(()))
        elif isinstance(scale, str) or not (scale > 0 and math.isfinite(scale)):
            raise VaezooError(f"laplace scale '{scale}' is not a positive number", "use a number, or learned")
        else:
            self.register_buffer("log_scale", torch.tensor(math.log(scale)), persistent=False)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        log_scale = self.log_scale.clamp(min=math.log(MIN_SIGMA))
        # log p(x) = -|x - mean| / b - log 2b
        return sum_dims(-(x - self._location(params)).abs() * torch.exp(-log_scale) - log_scale - math.log(2))

    def mean(self, params: Tensor) -> Tensor:
        return mean_of(params, unit=self.unit, identity=self.identity)

    def sample(self, params: Tensor) -> Tensor:
        mean = self._location(params)
        # The difference of two exponential variables of scale b has this distribution.
        first, second = (torch.empty_like(mean).exponential_() for _ in range(2))
        return mean + torch.exp(self.log_scale) * (first - second)

    def params_of_mean(self, mean: Tensor) -> Tensor:
        return torch.logit(mean, MIN_MEAN) if self.unit and not self.identity else mean

    def _location(self, params: Tensor) -> Tensor:
        """Returns the centre of the density. A clipped one would have no gradient."""
        return params if self.identity else self.mean(params)
