"""The RealNVP prior: standard normal noise behind affine couplings (Dinh et al. 2017, arXiv 1605.08803)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.posteriors.base import require_flat
from vaezoo.posteriors.gaussian import LOG_2PI
from vaezoo.priors.base import Prior, PriorPart

if TYPE_CHECKING:
    from vaezoo.vae import VAE

LOG_SCALE_BOUND = 2.0  # a coupling scales by exp(-2) to exp(2)


class Coupling(nn.Module):
    """An affine coupling: one half of the latents decides how the other half is shifted and scaled.

    Args:
        n: Number of latents.
        hidden: Hidden units of the network.
        parity: Which half decides: the latents of even or of odd number.
    """

    def __init__(self, n: int, hidden: int, parity: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(n, hidden),
            nn.LeakyReLU(),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(),
            nn.Linear(hidden, 2 * n),
        )
        self.register_buffer("mask", ((torch.arange(n) + parity) % 2).float(), persistent=False)
        self.mask: Tensor

    def shift_and_log_scale(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Returns shift and log-scale, `(B, n)` each, zero for the half that decides."""
        shift, raw = self.network(z * self.mask).chunk(2, 1)
        changed = 1 - self.mask
        return shift * changed, LOG_SCALE_BOUND * torch.tanh(raw / LOG_SCALE_BOUND) * changed

    def forward(self, noise: Tensor) -> Tensor:
        """Maps noise towards z."""
        shift, log_scale = self.shift_and_log_scale(noise)
        return noise * torch.exp(log_scale) + shift

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Maps z towards noise. Returns it with log |det d noise / dz|, `(B,)`."""
        shift, log_scale = self.shift_and_log_scale(z)
        return (z - shift) * torch.exp(-log_scale), -log_scale.sum(1)


class RealNVP(Prior):
    """Standard normal noise behind affine couplings, which have closed inverses.

    Args:
        latent_dim: Number of latents.
        hidden: Hidden units of each coupling's network.
        couplings: Number of couplings.
    """

    def __init__(self, latent_dim: int, hidden: int, couplings: int) -> None:
        super().__init__()
        self.noise_shape = (latent_dim,)
        self.couplings = nn.ModuleList(Coupling(latent_dim, hidden, i) for i in range(couplings))

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        log_det = z.new_zeros(len(z))
        for coupling in reversed(self.couplings):
            z, term = cast("Coupling", coupling).inverse(z)
            log_det = log_det + term
        # Change of variables: log p(z) = log N(noise; 0, 1) + log |det d noise / dz|.
        return log_det - 0.5 * (z.square() + LOG_2PI).sum(1)

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        for coupling in self.couplings:
            noise = coupling(noise)
        return noise


@dataclass(frozen=True, kw_only=True)
class RealNVPPart(PriorPart):
    """Standard normal noise behind affine couplings.

    Attributes:
        couplings: Number of couplings.
        hidden: Hidden units of the network of each coupling.

    Raises:
        VaezooError: If a value is not positive.
    """

    part = "realnvp"
    formula = (
        r"p(z) = \mathcal{N}(f(z); 0, I) \left|\det \frac{\partial f(z)}{\partial z}\right|, \qquad f"
        r" \text{ of affine couplings}"
    )
    couplings: int = 4
    hidden: int = 64

    def __post_init__(self) -> None:
        require_positive("prior.couplings", self.couplings)
        require_positive("prior.hidden", self.hidden)

    def build(self, vae: VAE) -> Prior:
        return RealNVP(require_flat("prior=realnvp", vae.latent_shape), self.hidden, self.couplings)
