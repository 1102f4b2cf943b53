"""The inverse autoregressive flow posterior (Kingma et al. 2016, arXiv 1606.04934)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.posteriors.base import Head, PosteriorPart, Shape, require_flat
from vaezoo.posteriors.flow import FlowHead
from vaezoo.posteriors.made import MADE

GATE_BIAS = 1.5  # the flow starts near the identity, as in section 4 of the paper


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
    formula = (
        r"z_t = s_t \odot z_{t-1} + (1 - s_t) \odot m_t,"
        r" \qquad z_0 \sim \mathcal{N}(\mu(x), \mathrm{diag}\,\sigma^2(x)), \qquad \log q(z_T \mid x)"
        r" = \log q(z_0 \mid x) - \sum_{t=1}^{T} \sum_j \log s_{t,j}"
    )
    density = "of draws"
    steps: int = 2
    hidden: int = 64
    context: int = 16

    def __post_init__(self) -> None:
        require_positive("posterior.steps", self.steps)
        require_positive("posterior.hidden", self.hidden)
        require_positive("posterior.context", self.context)

    def head(self, latent_shape: Shape) -> Head:
        n = require_flat("posterior=iaf", latent_shape)
        return FlowHead(n, self.context, InverseAutoregressiveFlow(n, self.context, self.hidden, self.steps))
