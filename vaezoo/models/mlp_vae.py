"""A VAE of dense layers, for pictures and vectors of any size."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vaezoo.data.base import DataSpec
from vaezoo.nn import Activation, mlp, positive
from vaezoo.spec import ModelSpec
from vaezoo.vae import GaussianVAE


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of mlp-vae.

    Attributes:
        latent_dim: Number of latent dimensions.
        hidden: Sizes of the encoder's hidden layers; the decoder has them in reverse.
        activation: Between the layers.
    """

    latent_dim: int = 20
    hidden: tuple[int, ...] = (256, 128)
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        positive("latent_dim", self.latent_dim)
        positive("hidden", *self.hidden)


def build(config: Config, data: DataSpec) -> GaussianVAE:
    """Builds the model for any data."""
    inward = (data.dims, *config.hidden, 2 * config.latent_dim)
    outward = (config.latent_dim, *reversed(config.hidden), data.dims)
    return GaussianVAE(
        data,
        config.latent_dim,
        nn.Sequential(nn.Flatten(), *mlp(inward, config.activation)),
        nn.Sequential(*mlp(outward, config.activation), nn.Unflatten(1, data.shape)),
    )


SPEC = ModelSpec(
    config=Config(),
    build=build,
    summary="Dense encoder and decoder, for pictures and vectors of any size",
    reference="Kingma and Welling 2014, arXiv 1312.6114",
)
