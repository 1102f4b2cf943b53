"""The log-cosh score of reconstructions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vaezoo.errors import VaezooError
from vaezoo.likelihoods.base import ReconstructionScore, sum_dims
from vaezoo.likelihoods.bernoulli import MIN_MEAN


class LogCosh(ReconstructionScore):
    """-log(cosh(a (x - mean))) / a, summed over the dimensions.

    Chen, Chen and Chen 2019, "Log Hyperbolic Cosine Loss Improves Variational Auto-Encoder". For small errors it is
    -a/2 times the square, and for large ones minus the absolute error.

    Args:
        sharpness: a. The larger it is, the smaller are the errors that count by their absolute value.
        unit: Whether the data lie in [0, 1]. If so, `params` are the logits of the mean.

    Raises:
        VaezooError: If a is not a positive number.
    """

    name = "log-cosh"
    kinds = ("unit", "real")

    def __init__(self, sharpness: float | str = 10.0, *, unit: bool = True) -> None:
        super().__init__()
        if isinstance(sharpness, str) or not (sharpness > 0 and math.isfinite(sharpness)):
            raise VaezooError(f"log-cosh sharpness '{sharpness}' is not a positive number", "use a number such as 10")
        self.sharpness = sharpness
        self.unit = unit

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        u = self.sharpness * (x - self.mean(params)).abs()
        # log cosh(u) = u + log(1 + exp(-2u)) - log 2 for u >= 0, where no exponential can overflow
        return -sum_dims(u + F.softplus(-2 * u) - math.log(2)) / self.sharpness

    def mean(self, params: Tensor) -> Tensor:
        return torch.sigmoid(params) if self.unit else params

    def params_of_mean(self, mean: Tensor) -> Tensor:
        return torch.logit(mean, MIN_MEAN) if self.unit else mean
