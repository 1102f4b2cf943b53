"""Posteriors that are a diagonal Gaussian behind a normalizing flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaezoo.core.precision import to_float32
from vaezoo.errors import VaezooError
from vaezoo.posteriors.base import Head
from vaezoo.posteriors.gaussian import LOG_2PI, DiagonalGaussian


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


def step_parameters(context: Tensor, steps: int, sizes: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """Returns the parameters of each step of a flow, `(B, size)` for each of the sizes.

    Args:
        context: `(B, steps * sum(sizes))`: the first parameter of each step, then the second of each, and so on.
        steps: Number of steps.
        sizes: The size of each parameter.
    """
    parts = torch.split(context, [steps * size for size in sizes], 1)
    columns = [torch.unflatten(part, 1, (steps, size)).unbind(1) for part, size in zip(parts, sizes, strict=True)]
    return list(zip(*columns, strict=True))  # a generator could not be compiled


class FlowHead(Head):
    """Means, raw log-variances and the context of a flow, side by side.

    Args:
        n: Number of latents.
        context: Number of context values.
        flow: As in `FlowPosterior`.
    """

    def __init__(self, n: int, context: int, flow: nn.Module) -> None:
        super().__init__()
        self.sizes = (n, n, context)
        self.inputs = (sum(self.sizes),)
        self.flow = flow

    def forward(self, h: Tensor) -> FlowPosterior:
        mu, raw, context = torch.split(to_float32(h), list(self.sizes), 1)
        return FlowPosterior(*DiagonalGaussian.from_raw(mu, raw), context, self.flow)
