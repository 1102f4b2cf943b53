"""The planar flow posterior (Rezende and Mohamed 2015, arXiv 1505.05770)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.posteriors.base import Head, PosteriorPart, Shape, require_flat
from vaezoo.posteriors.flow import FlowHead, step_parameters

SHIFT = math.log(math.e - 1)  # softplus(SHIFT) = 1
MIN_SQUARE = 1e-12  # of w: below, the flow is a translation


class PlanarFlow(nn.Module):
    """Equations 10 to 12 of the paper: z' = z + u tanh(w z + b), with log |det dz'/dz| = log(1 + tanh'(w z + b) w u).

    The flow is invertible where w u > -1. Appendix A.1 of the paper moves u along w, so that w u becomes
    m(w u) = softplus(w u) - 1. That m is -0.31 at 0, so the new u is unbounded where w is small. Here it is
    m(w u) = softplus(w u + log(e - 1)) - 1, with the same range and m(0) = 0.

    Args:
        n: Number of latents.
        steps: Number of steps.
    """

    def __init__(self, n: int, steps: int) -> None:
        super().__init__()
        self.n = n
        self.steps = steps

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Maps z and the parameters of all steps: u, w and b."""
        log_det = z.new_zeros(len(z))
        for u, w, b in step_parameters(context, self.steps, (self.n, self.n, 1)):
            wu = (w * u).sum(1, keepdim=True)
            slope = F.softplus(wu + SHIFT)  # 1 + m(w u)
            u = u + (slope - 1 - wu) * w / w.square().sum(1, keepdim=True).clamp(min=MIN_SQUARE)
            h = torch.tanh((w * z).sum(1, keepdim=True) + b)
            z = z + u * h
            # 1 + (1 - h^2) m, as a sum of two positive terms.
            log_det = log_det + torch.log(h.square() + (1 - h.square()) * slope).squeeze(1)
        return z, log_det


@dataclass(frozen=True, kw_only=True)
class PlanarPart(PosteriorPart):
    """A diagonal Gaussian behind planar flows, whose parameters come from the encoder.

    Attributes:
        steps: Number of flows in a row.

    Raises:
        VaezooError: If it is not positive.
    """

    part = "planar"
    formula = (
        r"z_t = z_{t-1} + u_t \tanh(w_t^\top z_{t-1} + b_t),"
        r" \qquad z_0 \sim \mathcal{N}(\mu(x), \mathrm{diag}\,\sigma^2(x)), \qquad u_t, w_t, b_t \text{ from } x"
    )
    density = "of draws"
    steps: int = 4

    def __post_init__(self) -> None:
        require_positive("posterior.steps", self.steps)

    def head(self, latent_shape: Shape) -> Head:
        n = require_flat("posterior=planar", latent_shape)
        return FlowHead(n, self.steps * (2 * n + 1), PlanarFlow(n, self.steps))
