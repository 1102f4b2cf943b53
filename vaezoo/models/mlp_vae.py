"""A VAE of dense layers, for images and vectors of any size."""

from __future__ import annotations

from vaezoo.data.base import DataSpec
from vaezoo.nn.mlp import MLPConfig, mlp_decoder, mlp_encoder
from vaezoo.spec import ModelSpec
from vaezoo.vae import GaussianVAE


def build(config: MLPConfig, data: DataSpec) -> GaussianVAE:
    """Builds the model. It accepts any data."""
    encoder = mlp_encoder(config, data, 2 * config.latent_dim)
    return GaussianVAE(data, config.latent_dim, encoder, mlp_decoder(config, data))


SPEC = ModelSpec(
    config=MLPConfig(),
    build=build,
    summary="Dense encoder and decoder, for images and vectors of any size",
    reference="Kingma and Welling 2014, arXiv 1312.6114",
)
