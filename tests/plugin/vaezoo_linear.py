"""The linear VAE of Lucas et al. 2019, arXiv 1911.02469: probabilistic PCA as an autoencoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaezoo import VAE, DataSpec, DiagonalGaussian, ModelSpec


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of linear.

    Attributes:
        latent_dim: Number of latent dimensions.
    """

    latent_dim: int = 8


class LinearVAE(VAE):
    """Linear encoder and decoder. The log-variances do not depend on x."""

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(data, latent_shape=(config.latent_dim,))
        self.encoder = nn.Linear(data.dims, config.latent_dim)
        self.raw = nn.Parameter(torch.zeros(config.latent_dim))
        self.decoder = nn.Linear(config.latent_dim, data.dims)

    def encode(self, x: Tensor) -> DiagonalGaussian:
        mu = self.encoder(x.flatten(1))
        return DiagonalGaussian.from_raw(mu, self.raw.expand_as(mu))

    def decode(self, z: Tensor) -> Tensor:
        return torch.unflatten(self.decoder(z), 1, self.data.shape)  # logits


SPEC = ModelSpec(config=Config(), build=LinearVAE, summary="Linear VAE", reference="arXiv 1911.02469")
