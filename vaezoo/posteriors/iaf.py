"""The inverse autoregressive flow posterior (Kingma et al. 2016, arXiv 1606.04934)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.core.precision import to_float32
from vaezoo.errors import VaezooError
from vaezoo.posteriors.base import Head, PosteriorPart, Shape, require_flat
from vaezoo.posteriors.gaussian import LOG_2PI, DiagonalGaussian
from vaezoo.posteriors.made import MADE

GATE_BIAS = 1.5  # the flow starts near the identity, as in section 4 of the paper


class FlowPosterior(NamedTuple):
    """A diagonal Gaussian behind a flow. Its density is known only of z that were drawn, with their noise.

    Attributes:
        mu: Means of the Gaussian, `(B, latents)`.
        logvar: Its log-variances, `(B, latents)`.
        context: What the flow knows about x, `(B, n)`.
        flow: Maps z and context to z' and log |det dz'/dz|, `(B,)`.
    """

    mu: Tensor
    logvar: Tensor
    context: Tensor
    flow: nn.Module

    def rsample(self) -> Tensor:
        return self.rsample_and_log_prob()[0]

    def rsample_and_log_prob(self) -> tuple[Tensor, Tensor]:
        noise = torch.randn(self.mu.shape, device=self.mu.device, dtype=self.mu.dtype)
        z, log_det = self.flow(self.mu + torch.exp(0.5 * self.logvar) * noise, self.context)
        # Change of variables: log q(z') = log N(z; mu, sigma^2) - log |det dz'/dz|.
        return z, -0.5 * (noise.square() + self.logvar + LOG_2PI).sum(1) - log_det

    def log_prob(self, z: Tensor) -> Tensor:
        raise VaezooError("the density behind a flow is known only of z that it drew", "use posterior=diagonal or full")

    def mode(self) -> Tensor:
        """Returns the image of the Gaussian's mode, which is near the mode."""
        z: Tensor = self.flow(self.mu, self.context)[0]
        return z


class InverseAutoregressiveFlow(nn.Module):
    """Algorithm 1 of the paper: z' = s z + (1 - s) m with a gate s, and the order of the latents reversed in each step.

    Args:
        n: Number of latents.
        context: Number of context values.
        hidden: Hidden units of each step's network.
        steps: Number of steps.
    """

    def __init__(self, n: int, context: int, hidden: int, steps: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(MADE(n, context, hidden, 2) for _ in range(steps))

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(len(z))
        for step in self.steps:
            m, raw = step(z, context)
            log_s = F.logsigmoid(raw + GATE_BIAS)
            s = torch.exp(log_s)
            z = (s * z + (1 - s) * m).flip(1)
            log_det = log_det + log_s.sum(1)  # m and s of latent i depend on the latents before i: dz'/dz is triangular
        return z, log_det


class IAFHead(Head):
    """Means, raw log-variances and the context, side by side.

    Args:
        latent_shape: Shape of one latent z, a vector.
        steps: Number of steps of the flow.
        hidden: Hidden units of each step's network.
        context: Number of context values.
    """

    def __init__(self, latent_shape: Shape, steps: int, hidden: int, context: int) -> None:
        super().__init__()
        n = require_flat("posterior=iaf", latent_shape)
        self.sizes = (n, n, context)
        self.inputs = (sum(self.sizes),)
        self.flow = InverseAutoregressiveFlow(n, context, hidden, steps)

    def forward(self, h: Tensor) -> FlowPosterior:
        mu, raw, context = torch.split(to_float32(h), list(self.sizes), 1)
        return FlowPosterior(*DiagonalGaussian.from_raw(mu, raw), context, self.flow)


@dataclass(frozen=True, kw_only=True)
class IAFPart(PosteriorPart):
    """A diagonal Gaussian behind inverse autoregressive flows.

    Attributes:
        steps: Number of flows in a row.
        hidden: Hidden units of the network of each flow.
        context: Number of values that the flows are given about x.

    Raises:
        VaezooError: If a value is not positive.
    """

    part = "iaf"
    density = "of draws"
    steps: int = 2
    hidden: int = 64
    context: int = 16

    def __post_init__(self) -> None:
        require_positive("posterior.steps", self.steps)
        require_positive("posterior.hidden", self.hidden)
        require_positive("posterior.context", self.context)

    def head(self, latent_shape: Shape) -> Head:
        return IAFHead(latent_shape, self.steps, self.hidden, self.context)
