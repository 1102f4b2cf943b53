"""Likelihood, the base class of p(x|z). It gives a decoder's output its meaning.

The output of a decoder has the shape of the data and is unbounded: logits, never probabilities. The likelihood turns it
into a mean, a log-likelihood or a sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Likelihood(nn.Module, ABC):
    """A family of distributions of data in [0, 1], given the output of a decoder.

    It is a module because a family may have parameters, such as a learned sigma. They are trained and saved with
    the model.
    """

    @abstractmethod
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Returns log p(x|z), `(B,)`, in nats, summed over the dimensions of each example.

        Args:
            params: The decoder's output, `(B, *shape)`.
            x: Data in [0, 1], `(B, *shape)`.
        """

    @abstractmethod
    def mean(self, params: Tensor) -> Tensor:
        """Returns the mean of p(x|z), in [0, 1], in the shape of `params`."""

    @abstractmethod
    def sample(self, params: Tensor) -> Tensor:
        """Draws x from p(x|z), in the shape of `params`."""


def sum_dims(x: Tensor) -> Tensor:
    """Sums `(B, ...)` over all dimensions but the first and returns `(B,)`."""
    return x.flatten(1).sum(1)
