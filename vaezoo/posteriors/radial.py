"""The radial flow posterior (Rezende and Mohamed 2015, arXiv 1505.05770)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.posteriors.base import Head, PosteriorPart, Shape, require_flat
from vaezoo.posteriors.flow import FlowHead, step_parameters


class RadialFlow(nn.Module):
    """Equation 14 of the paper: z' = z + beta (z - c) / (alpha + r), with a centre c and r = |z - c|.

    The flow is invertible where alpha > 0 and beta > -alpha. So alpha = softplus(.) and beta = softplus(.) - alpha, as
    in appendix A.2 of the paper.

    Args:
        n: Number of latents.
        steps: Number of steps.
    """

    def __init__(self, n: int, steps: int) -> None:
        super().__init__()
        self.n = n
        self.steps = steps

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Maps z and the parameters of all steps: c, and the raw values of alpha and of alpha + beta."""
        log_det = z.new_zeros(len(z))
        for c, raw_alpha, raw_sum in step_parameters(context, self.steps, (self.n, 1, 1)):
            alpha, alpha_plus_beta = F.softplus(raw_alpha), F.softplus(raw_sum)
            r = torch.linalg.vector_norm(z - c, dim=1, keepdim=True)
            z = z + (alpha_plus_beta - alpha) / (alpha + r) * (z - c)
            # With h = 1 / (alpha + r), dz'/dz scales by 1 + beta h + beta h' r along z - c, and by 1 + beta h across.
            # As quotients of positive sums they are 1 + beta h = (r + alpha + beta) h and
            # 1 + beta h + beta h' r = 1 + alpha beta h^2 = (r^2 + 2 alpha r + alpha (alpha + beta)) h^2.
            log_h = -torch.log(alpha + r)
            across = torch.log(r + alpha_plus_beta) + log_h
            along = torch.log(r.square() + 2 * alpha * r + alpha * alpha_plus_beta) + 2 * log_h
            log_det = log_det + ((self.n - 1) * across + along).squeeze(1)
        return z, log_det


@dataclass(frozen=True, kw_only=True)
class RadialPart(PosteriorPart):
    """A diagonal Gaussian behind radial flows, whose parameters come from the encoder.

    Attributes:
        steps: Number of flows in a row.

    Raises:
        VaezooError: If it is not positive.
    """

    part = "radial"
    formula = (
        r"z_t = z_{t-1} + \frac{\beta_t}{\alpha_t + |z_{t-1} - c_t|} (z_{t-1} - c_t),"
        r" \qquad z_0 \sim \mathcal{N}(\mu(x), \mathrm{diag}\,\sigma^2(x)), \qquad \alpha_t, \beta_t, c_t"
        r" \text{ from } x"
    )
    density = "of draws"
    steps: int = 4

    def __post_init__(self) -> None:
        require_positive("posterior.steps", self.steps)

    def head(self, latent_shape: Shape) -> Head:
        n = require_flat("posterior=radial", latent_shape)
        return FlowHead(n, self.steps * (n + 2), RadialFlow(n, self.steps))
