"""Priors of codes: whole numbers that a quantizer makes, one at each position of a grid."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.posteriors.base import Posterior
from vaezoo.priors.base import Autoregressive, Prior
from vaezoo.transformer import Transformer


class UniformCodes(Prior):
    """All codes are equally probable at each position, so the KL is log K for each.

    Args:
        size: Number of codes (K).
        latent_shape: Shape of the grid.
    """

    codes: int

    def __init__(self, size: int, latent_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.codes = size
        self.noise_shape = latent_shape
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # holds type and device
        self.zero: Tensor

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        uniform = 0.5 * (1 + torch.erf(noise / math.sqrt(2)))  # the normal distribution function
        return torch.clamp((self.codes * uniform).to(torch.int64), 0, self.codes - 1)

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        return self.zero.new_full((len(z),), -math.log(self.codes) * math.prod(z.shape[1:]))

    def kl_terms(self, posterior: Posterior, z: Tensor, *given: Tensor) -> Tensor:
        """Overridden: log q(z|x) is the logarithm of a probability, 0, so there is log K for each position."""
        return self.zero.new_full((len(z), math.prod(z.shape[1:])), math.log(self.codes))


class CodeTransformer(Prior):
    """p(z) = prod_t p(z_t | z_1 ... z_(t-1)), each factor of which is a softmax of a causal transformer.

    The positions of a grid follow each other row by row, as in the PixelCNN prior of the VQ-VAE (van den Oord et al.
    2017, arXiv 1711.00937, section 3.3).

    Args:
        size: Number of codes (K).
        latent_shape: Shape of the grid.
        hidden: Features of each position, a multiple of 16.
        layers: Number of layers.
    """

    codes: int

    def __init__(self, size: int, latent_shape: tuple[int, ...], hidden: int, layers: int) -> None:
        super().__init__()
        length = math.prod(latent_shape)
        self.codes = size
        self.autoregressive = Autoregressive(length, shape=latent_shape)
        self.transformer = Transformer(size + 1, length, hidden, layers)  # the last id begins a grid
        self.output = nn.Linear(hidden, size)

    def id_logits(self, z: Tensor, *given: Tensor) -> Tensor:
        before = F.pad(z.flatten(1)[:, :-1], (1, 0), value=self.codes)
        position = torch.arange(before.shape[1], device=z.device)
        visible = position.unsqueeze(1) >= position  # (T, T)
        logits: Tensor = self.output(self.transformer(self.transformer.embed(before), visible))
        return logits

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        return -self._surprise(z).sum(1)

    def kl_terms(self, posterior: Posterior, z: Tensor, *given: Tensor) -> Tensor:
        """Overridden: log q(z|x) is 0, as for UniformCodes. There is one part for each position."""
        return self._surprise(z)

    def _surprise(self, z: Tensor) -> Tensor:
        """Returns -log p(z_t | z_1 ... z_(t-1)), `(B, T)`."""
        logits = self.id_logits(z).float()
        return F.cross_entropy(logits.transpose(1, 2), z.flatten(1), reduction="none")
