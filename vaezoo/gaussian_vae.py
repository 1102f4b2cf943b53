"""GaussianVAE: a diagonal Gaussian posterior over two feed-forward networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaezoo.data.base import Split, mean_example
from vaezoo.data.spec import DataSpec
from vaezoo.likelihoods.base import Likelihood
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.vae import VAE


class GaussianVAE(VAE):
    """A VAE with a diagonal Gaussian posterior, a standard normal prior and two feed-forward networks.

    Args:
        data: The data to model.
        latent_dim: Number of latent dimensions.
        encoder: Maps features `(B, *data.features_shape)` to `(B, 2 * latent_dim)`: means, then raw log-variances.
        decoder: Maps `(B, latent_dim)` to `(B, *data.params_shape)`.
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
        mu, raw = self.encoder(self.data.features(x)).chunk(2, dim=1)
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
    """Initialises the decoder's output bias for the data mean, as the code of Burda et al. 2016 does.

    A dense output layer gets the parameters of each value's mean. A convolution gets those of each channel's mean.
    The bias is left as it is in two cases:

    - The decoder is not an `nn.Sequential` that ends in such a layer, with or without `nn.Unflatten` behind it.
    - The likelihood does not give the parameters of a mean; see `Likelihood.params_of_mean`.

    Args:
        decoder: Returns the likelihood's parameters.
        likelihood: p(x|z).
        train: The split to compute the mean of.
    """
    layers = [m for m in decoder.children() if not isinstance(m, nn.Unflatten)]
    last = layers[-1] if isinstance(decoder, nn.Sequential) and layers else None
    convolutions = nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d
    if not isinstance(last, nn.Linear | convolutions) or last.bias is None:
        return
    if likelihood.params_of_mean(torch.zeros(1)) is None:
        return
    mean = mean_example(train)
    by_channel = isinstance(last, convolutions)
    params = likelihood.params_of_mean(mean.mean(tuple(range(1, mean.ndim))) if by_channel else mean.flatten())
    assert params is not None
    last.bias.copy_(params)
