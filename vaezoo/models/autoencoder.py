"""The plain autoencoder, a baseline: one code for each picture, nothing random, no KL."""

from __future__ import annotations

from torch import Tensor

from vaezoo.data.base import DataSpec, Part
from vaezoo.distributions import Point, Posterior, StandardNormal
from vaezoo.nn import DenseConfig, dense_decoder, dense_encoder
from vaezoo.objectives import ELBO
from vaezoo.spec import ModelSpec
from vaezoo.vae import VAE, begin_at_mean


class Unpriced(StandardNormal):
    """No code costs anything. Samples are standard normal all the same: the decoder was trained for none of them."""

    def kl_terms(self, posterior: Posterior, z: Tensor) -> Tensor:
        """Overridden: zero, where the KL of a point is infinite."""
        return z.new_zeros((len(z), 1))


class Autoencoder(VAE):
    """The networks of mlp-vae, but one code instead of means and variances.

    Args:
        config: The options.
        data: What the model is made for.
    """

    def __init__(self, config: DenseConfig, data: DataSpec) -> None:
        super().__init__(data, (config.latent_dim,), Unpriced((config.latent_dim,)))
        self.encoder = dense_encoder(config, data, config.latent_dim)
        self.decoder = dense_decoder(config, data)

    def encode(self, x: Tensor) -> Point:
        return Point(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        params: Tensor = self.decoder(z)
        return params

    def begin(self, train: Part) -> None:
        """Overridden: as in GaussianVAE."""
        begin_at_mean(self.decoder, self.likelihood, train)


def objective(config: DenseConfig, data: DataSpec) -> ELBO:
    """Builds the objective: the reconstruction alone."""
    return ELBO(beta=0.0)


SPEC = ModelSpec(
    config=DenseConfig(),
    build=Autoencoder,
    objective=objective,
    summary="Dense encoder and decoder without chance and without KL, a baseline that is no VAE",
    reference="Hinton and Salakhutdinov 2006",
)
