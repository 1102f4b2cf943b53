"""The masked autoregressive flow prior (Papamakarios et al. 2017, arXiv 1705.07057).

Its density takes one pass of its networks, and a draw takes one step for each latent. The inverse autoregressive flow
of `posterior=iaf` is the same map in the other direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.errors import VaezooError
from vaezoo.posteriors.base import require_flat
from vaezoo.posteriors.gaussian import LOG_2PI
from vaezoo.posteriors.made import MADE
from vaezoo.priors.base import Prior, PriorPart
from vaezoo.priors.realnvp import LOG_SCALE_BOUND

if TYPE_CHECKING:
    from vaezoo.vae import VAE

MAX_LATENTS = 64  # a draw is one step for each latent, and the exported graph holds all of them


class AutoregressiveStep(nn.Module):
    """One layer: z_i = m_i + noise_i exp(a_i), where m_i and a_i depend on z_1 to z_(i-1) (equations 2 to 5).

    Args:
        n: Number of latents.
        hidden: Hidden units of the network.
    """

    def __init__(self, n: int, hidden: int) -> None:
        super().__init__()
        self.network = MADE(n, 0, hidden, 2)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Maps z towards noise, in one pass. Returns it with log |det d noise / dz|, `(B,)`."""
        shift, raw = self.network(z)
        log_scale = bounded(raw)
        return (z - shift) * torch.exp(-log_scale), -log_scale.sum(1)

    def forward(self, noise: Tensor) -> Tensor:
        """Maps noise towards z, latent by latent.

        Each latent is added to the hidden units once it is known. So all latents together cost one pass of the network,
        and not a pass each.
        """
        first, second = self.network.first, self.network.second
        n = noise.shape[1]
        into = first.weight * first.mask
        out, bias = (second.weight * second.mask).view(2, n, -1), second.bias.view(2, n)  # shifts, then log-scales
        hidden, latents = first.bias.expand(noise.shape[0], -1), []
        for i in range(n):
            shift, raw = F.linear(F.elu(hidden), out[:, i], bias[:, i]).chunk(2, 1)
            latents.append(shift + noise[:, i : i + 1] * torch.exp(bounded(raw)))
            hidden = hidden + latents[-1] * into[:, i]
        return torch.cat(latents, 1)


def bounded(raw: Tensor) -> Tensor:
    """Returns log-scales softly bounded to (-2, 2), as those of `prior=realnvp`."""
    return LOG_SCALE_BOUND * torch.tanh(raw / LOG_SCALE_BOUND)


class MaskedAutoregressiveFlow(Prior):
    """Standard normal noise behind autoregressive layers. The order of the latents is reversed between two of them.

    Args:
        latent_dim: Number of latents.
        hidden: Hidden units of each layer's network.
        steps: Number of layers.
    """

    def __init__(self, latent_dim: int, hidden: int, steps: int) -> None:
        super().__init__()
        self.noise_shape = (latent_dim,)
        self.steps = nn.ModuleList(AutoregressiveStep(latent_dim, hidden) for _ in range(steps))

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        log_det = z.new_zeros(len(z))
        for step in reversed(self.steps):
            z, term = cast("AutoregressiveStep", step).inverse(z)
            z, log_det = z.flip(1), log_det + term
        # Change of variables: log p(z) = log N(noise; 0, 1) + log |det d noise / dz|. A reversal has determinant 1.
        return log_det - 0.5 * (z.square() + LOG_2PI).sum(1)

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        for step in self.steps:
            noise = step(noise.flip(1))
        return noise


@dataclass(frozen=True, kw_only=True)
class MAFPart(PriorPart):
    """Standard normal noise behind masked autoregressive flows.

    Attributes:
        steps: Number of flows in a row.
        hidden: Hidden units of the network of each flow.

    Raises:
        VaezooError: If a value is not positive.
    """

    part = "maf"
    formula = (
        r"p(z) = \mathcal{N}(f(z); 0, I) \left|\det \frac{\partial f(z)}{\partial z}\right|, \qquad f"
        r" \text{ of steps } z_j \mapsto \frac{z_j - \mu_j(z_{<j})}{\sigma_j(z_{<j})}"
    )
    steps: int = 4
    hidden: int = 64

    def __post_init__(self) -> None:
        require_positive("prior.steps", self.steps)
        require_positive("prior.hidden", self.hidden)

    def build(self, vae: VAE) -> Prior:
        """Builds the prior. Raises VaezooError for more latents than can be drawn one after another."""
        n = require_flat("prior=maf", vae.latent_shape)
        if n > MAX_LATENTS:
            raise VaezooError(
                f"prior=maf draws latents one after another, at most {MAX_LATENTS}, but the model has {n}",
                "use prior=realnvp, or a smaller latent_dim",
            )
        return MaskedAutoregressiveFlow(n, self.hidden, self.steps)
