"""VAE, the base class of every model, and GaussianVAE, its most common form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from vaezoo.data.base import DataSpec, Split, mean_example
from vaezoo.likelihoods.base import Likelihood
from vaezoo.likelihoods.bernoulli import Bernoulli
from vaezoo.likelihoods.gaussian import Gaussian
from vaezoo.likelihoods.make import make_likelihood
from vaezoo.posteriors.base import Posterior
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.priors.base import Prior
from vaezoo.priors.standard_normal import StandardNormal

MIN_INITIAL_MEAN = 0.001  # keeps the initial output bias finite: a pixel that is always black has the logit -inf


class VAE(nn.Module, ABC):
    """A model with an encoder q(z|x), a decoder p(x|z) and a prior p(z).

    A new model implements `encode` and `decode`. Training, evaluation and export need nothing else.

    Args:
        data: The data to model.
        latent_shape: Shape of one latent z.
        prior: p(z). The standard normal by default.

    Attributes:
        data: As given.
        latent_shape: As given.
        prior: p(z).
        likelihood: The family of p(x|z) that `data.likelihood` names.
    """

    def __init__(self, data: DataSpec, latent_shape: tuple[int, ...], prior: Prior | None = None) -> None:
        super().__init__()
        self.data = data
        self.latent_shape = latent_shape
        self.prior = StandardNormal(latent_shape) if prior is None else prior
        self.likelihood = make_likelihood(data.likelihood)

    @abstractmethod
    def encode(self, x: Tensor) -> Posterior:
        """Returns q(z|x) for `x` of shape `(B, *data.shape)` in [0, 1]. It must be deterministic."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Returns the parameters of p(x|z), `(B, *data.shape)`, for `z` of shape `(B, *latent_shape)`.

        They are unbounded: logits, never probabilities.
        """

    def init_from_data(self, train: Split) -> None:
        """Initialises weights from the training data. Does nothing by default.

        `vaezoo.train` calls it once, before the first step. It must be deterministic: a training that is killed
        before its first checkpoint starts again and must start the same way.

        Args:
            train: The training split.
        """

    def reconstruct(self, x: Tensor) -> Tensor:
        """Returns the mean of p(x|z) at the mode of q(z|x), `(B, *data.shape)` in [0, 1]."""
        return self.likelihood.mean(self.decode(self.encode(x).mode()))

    def sample(self, n: int) -> Tensor:
        """Returns the mean of p(x|z) for n latents drawn from the prior, `(n, *data.shape)` in [0, 1]."""
        return self.likelihood.mean(self.decode(self.prior.sample(n)))


class GaussianVAE(VAE):
    """A VAE with a diagonal Gaussian posterior, a standard normal prior and two feed-forward networks.

    Args:
        data: The data to model.
        latent_dim: Number of latent dimensions.
        encoder: Maps `(B, *data.shape)` to `(B, 2 * latent_dim)`: means, then raw log-variances.
        decoder: Maps `(B, latent_dim)` to `(B, *data.shape)`.
        init_bias: Whether `init_from_data` sets the decoder's output bias to the mean of the data.
    """

    def __init__(
        self, data: DataSpec, latent_dim: int, encoder: nn.Module, decoder: nn.Module, *, init_bias: bool = True
    ) -> None:
        super().__init__(data, (latent_dim,))
        self.encoder = encoder
        self.decoder = decoder
        self.init_bias = init_bias

    def encode(self, x: Tensor) -> DiagonalGaussian:
        mu, raw = self.encoder(x).chunk(2, dim=1)
        return DiagonalGaussian.from_raw(mu, raw)

    def decode(self, z: Tensor) -> Tensor:
        params: Tensor = self.decoder(z)
        return params

    def init_from_data(self, train: Split) -> None:
        """Overridden: initialises the decoder's output bias, unless `init_bias` is False."""
        if self.init_bias:
            init_output_bias(self.decoder, self.likelihood, train)


@torch.no_grad()
def init_output_bias(decoder: nn.Module, likelihood: Likelihood, train: Split) -> None:
    """Initialises the decoder's output bias to the logits of the data mean, as the code of Burda et al. 2016 does.

    A dense output layer gets the logit of each pixel's mean. A convolution gets the logit of each channel's mean.
    The bias is left as it is in two cases:

    - The decoder is not an `nn.Sequential` that ends in such a layer, with or without `nn.Unflatten` behind it.
    - The likelihood is a continuous Bernoulli. Its mean is not the sigmoid of its parameters. For a pixel of mean
      0.001 the bias would be -1,000, too far for training to correct.

    Args:
        decoder: Returns the likelihood's parameters.
        likelihood: p(x|z).
        train: The split to compute the mean of.
    """
    layers = [m for m in decoder.children() if not isinstance(m, nn.Unflatten)]
    last = layers[-1] if isinstance(decoder, nn.Sequential) and layers else None
    if not isinstance(last, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) or last.bias is None:
        return
    if isinstance(likelihood, Bernoulli | Gaussian):
        mean = mean_example(train)
        mean = mean.flatten() if isinstance(last, nn.Linear) else mean.mean((1, 2))
        last.bias.copy_(torch.logit(mean, MIN_INITIAL_MEAN))


def device_of(module: nn.Module) -> torch.device:
    """Returns the device of a module's parameters, or of its buffers if it has no parameters."""
    return next(chain(module.parameters(), module.buffers())).device


@contextmanager
def eval_mode(*modules: nn.Module) -> Iterator[None]:
    """Puts modules into evaluation mode and disables gradients inside the block.

    Afterwards each submodule is in the mode that it had before.
    """
    modes = {submodule: submodule.training for module in modules for submodule in module.modules()}
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for submodule, mode in modes.items():
            submodule.training = mode
