"""The plain autoencoder, a deterministic baseline without KL."""

from __future__ import annotations

from torch import Tensor

from vaezoo.data.base import Split
from vaezoo.data.spec import DataSpec
from vaezoo.gaussian_vae import init_output_bias
from vaezoo.nn.mlp import MLPConfig, mlp_decoder, mlp_encoder
from vaezoo.objectives.elbo import ELBO
from vaezoo.posteriors.delta import Delta
from vaezoo.priors.standard_normal import ZeroKLPrior
from vaezoo.spec import ModelSpec
from vaezoo.vae import VAE


class Autoencoder(VAE):
    """The networks of mlp-vae, with one latent vector instead of means and variances.

    Args:
        config: The options.
        data: The data to model.
    """

    def __init__(self, config: MLPConfig, data: DataSpec) -> None:
        super().__init__(data, (config.latent_dim,), ZeroKLPrior((config.latent_dim,)))
        self.encoder = mlp_encoder(config, data, config.latent_dim)
        self.decoder = mlp_decoder(config, data)

    def encode(self, x: Tensor) -> Delta:
        return Delta(self.encoder(self.data.features(x)))

    def decode(self, z: Tensor) -> Tensor:
        params: Tensor = self.decoder(z)
        return params

    def init_from_data(self, train: Split) -> None:
        """Overridden: initialises the decoder's output bias, as GaussianVAE does."""
        init_output_bias(self.decoder, self.likelihood, train)


def objective(config: MLPConfig, data: DataSpec) -> ELBO:
    """Returns the objective: the reconstruction alone."""
    return ELBO(beta=0.0)


SPEC = ModelSpec(
    config=MLPConfig(),
    build=Autoencoder,
    objective=objective,
    summary="Dense encoder and decoder, deterministic and without KL: a baseline",
    reference="Hinton and Salakhutdinov 2006",
    parts={"posterior": "delta", "prior": "zero-kl", "objective": "elbo"},
)
