"""The Gaussian likelihood with a fixed, learned or optimal standard deviation, or one for each value."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core import distributed
from vaezoo.errors import VaezooError
from vaezoo.likelihoods.base import Likelihood, Shape, mean_of, sum_dims, widen
from vaezoo.likelihoods.bernoulli import MIN_MEAN

MIN_SIGMA = 1e-3  # a quarter of one of 256 grey levels: a smaller sigma would fit the rounding of the data


class Gaussian(Likelihood):
    """Normal noise around a mean, with one sigma for all dimensions.

    For data in [0, 1], `params` are the logits of the mean. For real data they are the mean itself. With `identity`
    they are always the mean of the density, which may leave [0, 1], and `mean` clips it.

    Args:
        sigma: The standard deviation, in one of three forms. A positive number is fixed. "learned" is one parameter
            that is trained with the model. "optimal" is the maximum-likelihood value of each training batch in closed
            form (Rybkin et al. 2021, arXiv 2006.13202). Evaluation uses its running average.
        unit: Whether the data lie in [0, 1].
        identity: Whether `params` are the mean even then.

    Raises:
        VaezooError: If `sigma` is not one of these.
    """

    kinds = ("unit", "real")
    MOMENTUM = 0.01  # of the running average

    def __init__(self, sigma: float | str = 1.0, *, unit: bool = True, identity: bool = False) -> None:
        super().__init__()
        self.unit, self.identity = unit, identity
        self.optimal = sigma == "optimal"
        if sigma == "learned":
            self.log_sigma: Tensor = nn.Parameter(torch.zeros(()))
        elif self.optimal:
            self.register_buffer("log_sigma", torch.zeros(()))
        elif isinstance(sigma, str) or not (sigma > 0 and math.isfinite(sigma)):
            raise VaezooError(
                f"gaussian sigma '{sigma}' is not a positive number",
                "use a number, learned, optimal or heteroscedastic",
            )
        else:
            self.register_buffer("log_sigma", torch.tensor(math.log(sigma)), persistent=False)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        square = (x - self._location(params)).square()
        log_sigma = self.log_sigma.clamp(min=math.log(MIN_SIGMA))
        if self.optimal and self.training:
            # The likelihood is highest where sigma^2 is the mean squared error over the whole batch and all
            # dimensions. Its gradient by sigma is zero there, so sigma can be a constant.
            mean = distributed.global_batch_mean(square.detach().flatten(1).mean(1))
            log_sigma = 0.5 * torch.log(mean.clamp(min=MIN_SIGMA**2))
            with torch.no_grad():
                self.log_sigma.lerp_(log_sigma, self.MOMENTUM)
        # log N(x; mean, sigma^2) = -(x - mean)^2 / (2 sigma^2) - log sigma - log(2 pi) / 2
        return sum_dims(-0.5 * square * torch.exp(-2 * log_sigma) - log_sigma - 0.5 * math.log(2 * math.pi))

    def mean(self, params: Tensor) -> Tensor:
        return mean_of(params, unit=self.unit, identity=self.identity)

    def sample(self, params: Tensor) -> Tensor:
        mean = self._location(params)
        return mean + torch.exp(self.log_sigma) * torch.randn_like(mean)

    def params_of_mean(self, mean: Tensor) -> Tensor:
        return torch.logit(mean, MIN_MEAN) if self.unit and not self.identity else mean

    def _location(self, params: Tensor) -> Tensor:
        """Returns the mean of the density. A clipped one would have no gradient."""
        return params if self.identity else self.mean(params)


class HeteroscedasticGaussian(Likelihood):
    """Normal noise whose sigma is an output of the decoder, one for each value (Kingma and Welling 2014, appendix C.2).

    `params` hold the mean of each value as in `Gaussian`, and then a raw value r for each sigma = MIN_SIGMA + exp(r).
    Where the data are constant, the density would else grow without bound.

    Args:
        unit: Whether the data lie in [0, 1].
    """

    kinds = ("unit", "real")

    def __init__(self, *, unit: bool = True) -> None:
        super().__init__()
        self.unit = unit

    def params_shape(self, shape: Shape) -> Shape:
        return widen(shape, 2)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        log_sigma = self._log_sigma(params)
        square = (x - self.mean(params)).square()
        # log N(x; mean, sigma^2) = -(x - mean)^2 / (2 sigma^2) - log sigma - log(2 pi) / 2
        return sum_dims(-0.5 * square * torch.exp(-2 * log_sigma) - log_sigma - 0.5 * math.log(2 * math.pi))

    def mean(self, params: Tensor) -> Tensor:
        raw = params.chunk(2, 1)[0]
        return torch.sigmoid(raw) if self.unit else raw

    def sample(self, params: Tensor) -> Tensor:
        mean = self.mean(params)
        return mean + torch.exp(self._log_sigma(params)) * torch.randn_like(mean)

    def params_of_mean(self, mean: Tensor) -> Tensor:
        raw = torch.logit(mean, MIN_MEAN) if self.unit else mean
        return torch.cat([raw, torch.zeros_like(raw)])

    def _log_sigma(self, params: Tensor) -> Tensor:
        """Returns log(MIN_SIGMA + exp(r)), `(B, *shape)`."""
        lowest = math.log(MIN_SIGMA)
        return lowest + F.softplus(params.chunk(2, 1)[1] - lowest)
