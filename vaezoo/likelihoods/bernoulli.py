"""The Bernoulli likelihood."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vaezoo.likelihoods.base import Likelihood, sum_dims

MIN_MEAN = 0.001  # of `params_of_mean`: a pixel that is always black would have the logit -inf


class Bernoulli(Likelihood):
    """Independent bits. `params` are their logits.

    For grey levels between 0 and 1 this is the usual binary cross-entropy. It can be used as a loss and compared
    between models, but it is not a normalised likelihood.
    """

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        return -sum_dims(F.binary_cross_entropy_with_logits(params, x, reduction="none"))

    def mean(self, params: Tensor) -> Tensor:
        return torch.sigmoid(params)

    def sample(self, params: Tensor) -> Tensor:
        return torch.bernoulli(self.mean(params))

    def params_of_mean(self, mean: Tensor) -> Tensor:
        return torch.logit(mean, MIN_MEAN)
