"""A VAE of dense layers, for pictures and vectors of any size."""

from __future__ import annotations

from vaezoo.data.base import DataSpec
from vaezoo.nn import DenseConfig, dense_decoder, dense_encoder
from vaezoo.spec import ModelSpec
from vaezoo.vae import GaussianVAE


def build(config: DenseConfig, data: DataSpec) -> GaussianVAE:
    """Builds the model for any data."""
    encoder = dense_encoder(config, data, 2 * config.latent_dim)
    return GaussianVAE(data, config.latent_dim, encoder, dense_decoder(config, data))


SPEC = ModelSpec(
    config=DenseConfig(),
    build=build,
    summary="Dense encoder and decoder, for pictures and vectors of any size",
    reference="Kingma and Welling 2014, arXiv 1312.6114",
)
