"""What a variational autoencoder is: VAE, and the form that most of them have, GaussianVAE."""

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

MIN_MEAN = 0.001  # of a pixel that training begins with; a black one's logit would be infinite


class VAE(nn.Module, ABC):
    """A model with an encoder q(z|x), a decoder p(x|z) and a prior p(z).

    A model of your own implements `encode` and `decode`; training, evaluation and export follow.

    Args:
        data: What the model is made for.
        latent_shape: Shape of one latent z.
        prior: p(z); the standard normal unless given.

    Attributes:
        data: As given.
        latent_shape: As given.
        prior: p(z).
        likelihood: p(x|z), the family that `data.likelihood` names.
    """

    def __init__(self, data: DataSpec, latent_shape: tuple[int, ...], prior: Prior | None = None) -> None:
        super().__init__()
        self.data = data
        self.latent_shape = latent_shape
        self.prior = StandardNormal(latent_shape) if prior is None else prior
        self.likelihood = make_likelihood(data.likelihood)

    @abstractmethod
    def encode(self, x: Tensor) -> Posterior:
        """Returns q(z|x) for `x` of shape `(B, *data.shape)` in [0, 1]. Draws nothing at random."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Returns the parameters of p(x|z), `(B, *data.shape)`, unbounded: logits, never probabilities."""

    def init_from_data(self, train: Split) -> None:
        """Sets what the first weights take from the data. Does nothing unless overridden.

        `vaezoo.train` calls it once, before the first step. It must draw nothing at random: a training that is killed
        before its first checkpoint begins again, and in the same way.

        Args:
            train: The training part.
        """

    def reconstruct(self, x: Tensor) -> Tensor:
        """Returns the mean image for the most probable code of x, `(B, *data.shape)` in [0, 1]."""
        return self.likelihood.mean(self.decode(self.encode(x).mode()))

    def sample(self, n: int) -> Tensor:
        """Returns the mean images of n latents drawn from the prior, `(n, *data.shape)` in [0, 1]."""
        return self.likelihood.mean(self.decode(self.prior.sample(n)))


class GaussianVAE(VAE):
    """A diagonal Gaussian posterior and a standard normal prior over two feed-forward networks.

    Args:
        data: What the model is made for.
        latent_dim: Number of latent dimensions.
        encoder: Maps `(B, *data.shape)` to `(B, 2 * latent_dim)`: means, then raw log-variances.
        decoder: Maps `(B, latent_dim)` to `(B, *data.shape)`.
    """

    def __init__(self, data: DataSpec, latent_dim: int, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__(data, (latent_dim,))
        self.encoder = encoder
        self.decoder = decoder

    def encode(self, x: Tensor) -> DiagonalGaussian:
        mu, raw = self.encoder(x).chunk(2, dim=1)
        return DiagonalGaussian.from_raw(mu, raw)

    def decode(self, z: Tensor) -> Tensor:
        params: Tensor = self.decoder(z)
        return params

    def init_from_data(self, train: Split) -> None:
        """Overridden: an untrained decoder puts out the mean of the data, see `init_output_bias`."""
        init_output_bias(self.decoder, self.likelihood, train)


@torch.no_grad()
def init_output_bias(decoder: nn.Module, likelihood: Likelihood, train: Split) -> None:
    """Sets the last bias of a decoder to the logits of the data's mean, as the code of Burda et al. 2016 does.

    A dense layer gets the logit of each pixel's mean, a convolution that of each channel's. Nothing is changed where
    the decoder is no `nn.Sequential` that ends in one of these (and `nn.Unflatten`), and where the mean is no sigmoid
    of the parameters: a pixel of mean 0.001 would be -1,000 for the continuous Bernoulli, too far to come back from.

    Args:
        decoder: Puts out the likelihood's parameters.
        likelihood: p(x|z).
        train: What the mean is taken of.
    """
    layers = [m for m in decoder.children() if not isinstance(m, nn.Unflatten)]
    last = layers[-1] if isinstance(decoder, nn.Sequential) and layers else None
    if not isinstance(last, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) or last.bias is None:
        return
    if isinstance(likelihood, Bernoulli | Gaussian):
        mean = mean_example(train)
        mean = mean.flatten() if isinstance(last, nn.Linear) else mean.mean((1, 2))
        last.bias.copy_(torch.logit(mean, MIN_MEAN))


def device_of(module: nn.Module) -> torch.device:
    """Returns the device that a module's parameters, or its buffers if it has none, lie on."""
    return next(chain(module.parameters(), module.buffers())).device


@contextmanager
def eval_mode(*modules: nn.Module) -> Iterator[None]:
    """Puts modules into evaluation mode, without gradients, and each of their modules back into its own mode after."""
    modes = {part: part.training for module in modules for part in module.modules()}
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
