"""Likelihood, the base class of p(x|z). It gives a decoder's output its meaning.

The output of a decoder is unbounded: logits, never probabilities. The likelihood turns it into a mean, a log-likelihood
or a sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from vaezoo.errors import VaezooError

if TYPE_CHECKING:
    from vaezoo.data.base import Split

Shape = tuple[int, ...]


class Likelihood(nn.Module, ABC):
    """A family of distributions of data, given the output of a decoder.

    It is a module because a family may have parameters, such as a learned sigma. They are trained and saved with
    the model.

    Attributes:
        kinds: The kinds of data that it is a distribution of; see `vaezoo.data.kinds`.
        identity: Whether a decoder puts out data in [0, 1] themselves, and no logits.
    """

    kinds: ClassVar[tuple[str, ...]] = ("unit",)
    identity: bool = False

    def params_shape(self, shape: Shape) -> Shape:
        """Returns the shape of a decoder's output for one example of shape `shape`. By default they are equal."""
        return shape

    @abstractmethod
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Returns log p(x|z), `(B,)`, in nats, summed over the dimensions of each example.

        Args:
            params: The decoder's output, `(B, *params_shape)`.
            x: The data, `(B, *shape)`.
        """

    @abstractmethod
    def mean(self, params: Tensor) -> Tensor:
        """Returns the mean of p(x|z), or its mode for tokens and categories, `(B, *shape)`."""

    @abstractmethod
    def sample(self, params: Tensor) -> Tensor:
        """Draws x from p(x|z), `(B, *shape)`."""

    def outputs(self, params: Tensor) -> dict[str, Tensor]:
        """Returns the outputs of decoder.onnx by name. By default it is the mean, `x_mean`.

        An output must be continuous in `params`. An argmax would differ between PyTorch and ONNX Runtime wherever
        rounding decides.
        """
        return {"x_mean": self.mean(params)}

    def params_of_outputs(self, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """Returns `params` from the outputs of decoder.onnx, and takes its own parameters from them.

        By default it returns None: the outputs do not give p(x|z).
        """
        return None

    def init_from_data(self, train: Split) -> None:
        """Takes what the likelihood needs of the training examples, such as the modes of columns. By default nothing.

        It is called once, before the model is initialised. It must be deterministic, as `VAE.init_from_data`.

        Args:
            train: The training split.
        """

    def params_of_mean(self, mean: Tensor) -> Tensor | None:
        """Returns the parameters whose mean is `mean`, or near it. By default None: there is no simple inverse.

        The initial bias of a decoder is set with it.

        Args:
            mean: `(n,)`, one value for each dimension or for each channel.

        Returns:
            `params_shape((n,))`.
        """
        return None


class ReconstructionScore(Likelihood):
    """A score of reconstructions in place of log p(x|z), for training alone.

    It is not a likelihood: it is not normalised and has no unit. So the model has no ELBO, no NLL and no samples of x.

    Attributes:
        name: Its name, as in `vaezoo.likelihoods.make`.
    """

    name: ClassVar[str]

    @abstractmethod
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Returns the score, `(B,)`, which is 0 for an exact reconstruction and negative for others.

        Args:
            params: The decoder's output, `(B, *params_shape)`.
            x: The data, `(B, *shape)`.
        """

    def sample(self, params: Tensor) -> Tensor:
        """Raises VaezooError: there is no distribution to draw from."""
        raise VaezooError(
            f"likelihood '{self.name}' is a score, not a distribution, so x cannot be drawn", "leave out --draw"
        )


def widen(shape: Shape, n: int) -> Shape:
    """Returns the shape of n parameters for each value of an example: n times as many channels or dimensions.

    The parameters lie side by side. The first `shape[0]` channels hold the first parameter of each value.
    """
    return (n * shape[0], *shape[1:])


def mean_of(params: Tensor, *, unit: bool, identity: bool) -> Tensor:
    """Returns the mean that the parameter of a location stands for.

    Args:
        params: The parameter.
        unit: Whether the data lie in [0, 1].
        identity: Whether the parameter is then the mean itself, and no logit. What leaves [0, 1] is clipped.
    """
    if not unit:
        return params
    return params.clamp(0, 1) if identity else torch.sigmoid(params)


def sum_dims(x: Tensor) -> Tensor:
    """Sums `(B, ...)` over all dimensions but the first and returns `(B,)`."""
    return x.flatten(1).sum(1)
