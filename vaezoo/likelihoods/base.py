"""Likelihood: the meaning of a decoder's outputs.

A decoder's output has the shape of the data and is unbounded: logits, never probabilities. The likelihood turns
it into a mean, a log-likelihood or a sample. Log-likelihoods are in nats, summed over the dimensions of an example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


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


def sum_dims(x: Tensor) -> Tensor:
    """Sums `(B, ...)` over all dimensions but the first and returns `(B,)`."""
    return x.flatten(1).sum(1)
