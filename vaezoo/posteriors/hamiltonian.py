"""The Hamiltonian posterior: leapfrog steps move z towards p(z|x) (Caterini et al. 2018, arXiv 1805.11328)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vaezoo.errors import VaezooError
from vaezoo.posteriors.base import Head, JointDensity, Posterior, PosteriorPart, Shape, require_flat
from vaezoo.posteriors.gaussian import DiagonalGaussian, DiagonalGaussianHead

MAX_STEP = 0.5  # of a leapfrog step, as in the paper's code

Tempering = Literal["fixed", "free", "none"]


class Leapfrog(nn.Module):
    """Tempered leapfrog steps, algorithm 1 of the paper, with the energy U(z) = -log p(x, z) and unit masses.

    The momentum starts at the inverse temperature beta_0, as noise / sqrt(beta_0). After step k it is multiplied by
    sqrt(beta_(k-1) / beta_k), and beta_K is 1. So all its factors multiply to 1. A leapfrog step consists of shears,
    which keep volumes. The map from (z, noise) to (z, momentum) therefore has the determinant 1.

    - fixed: 1 / sqrt(beta_k) = (1 - 1 / sqrt(beta_0)) k^2 / K^2 + 1 / sqrt(beta_0), where beta_0 is learned.
    - free: each factor is learned.
    - none: all beta_k are 1.

    Args:
        n: Number of latents. Each has its own step size, which is learned.
        steps: K.
        step_size: Initial size of a step, below `MAX_STEP`.
        tempering: How the temperature falls.
        beta: Initial beta_0, in (0, 1).
    """

    def __init__(self, n: int, steps: int, step_size: float, tempering: Tempering, beta: float) -> None:
        super().__init__()
        self.steps = steps
        self.tempering = tempering
        self.raw_size = nn.Parameter(torch.full((n,), logit(step_size / MAX_STEP)))
        if tempering == "fixed":
            self.raw_beta = nn.Parameter(torch.tensor(logit(beta)))
        elif tempering == "free":
            self.raw_factors = nn.Parameter(torch.full((steps,), logit(beta ** (0.5 / max(1, steps)))))

    def forward(self, z: Tensor, noise: Tensor, gradient: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Moves z.

        Args:
            z: `(B, n)`.
            noise: Standard normal, `(B, n)`.
            gradient: Returns d log p(x, z) / dz, `(B, n)`.

        Returns:
            z and the momentum after the last step, `(B, n)` each.
        """
        size, scales = MAX_STEP * torch.sigmoid(self.raw_size), self.scales()
        momentum, slope = scales[0] * noise, gradient(z)
        for k in range(self.steps):
            z, momentum, slope = leapfrog(z, momentum, slope, size, gradient)
            momentum = momentum * (scales[k + 1] / scales[k])
        return z, momentum

    def scales(self) -> list[Tensor]:
        """Returns 1 / sqrt(beta_k) for k = 0 ... K, `()` each. The last is 1."""
        one = torch.ones_like(self.raw_size[0])
        if self.tempering == "none":
            return [one] * (self.steps + 1)
        if self.tempering == "free":
            scales = [one]
            for factor in torch.sigmoid(self.raw_factors).flip(0).unbind():  # from the last step to the first
                scales.append(scales[-1] / factor)
            return scales[::-1]
        first = torch.rsqrt(torch.sigmoid(self.raw_beta))
        return [*((1 - first) * (k / self.steps) ** 2 + first for k in range(self.steps)), one]


def leapfrog(
    z: Tensor, momentum: Tensor, slope: Tensor, size: Tensor, gradient: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Takes one leapfrog step. With the momentum reversed it leads back.

    Args:
        z: `(B, n)`.
        momentum: `(B, n)`.
        slope: The gradient at z.
        size: Step sizes, `(n,)`.
        gradient: As in `Leapfrog.forward`.

    Returns:
        z, the momentum, and the gradient at the new z.
    """
    momentum = momentum + 0.5 * size * slope
    z = z + size * momentum
    slope = gradient(z)
    return z, momentum + 0.5 * size * slope, slope


def logit(p: float) -> float:
    """Returns the number whose sigmoid is p."""
    return math.log(p) - math.log1p(-p)


class HamiltonianPosterior(NamedTuple):
    """Gaussian latents, moved by leapfrog steps.

    z and its momentum are drawn together. What comes with a draw as log q(z|x) is
    log q_0(z_0) + log N(noise) - log N(momentum), for the Gaussian q_0. With it, log p(x, z) - log q(z|x) is the
    paper's estimate of the ELBO, and its exponential is an unbiased estimate of p(x). So it serves training,
    importance-weighted bounds and NLL alike.

    Attributes:
        mu: Means of q_0, `(B, latents)`.
        logvar: Its log-variances, `(B, latents)`.
        x: The examples, whose p(x, z) is followed.
        y: Their labels, or None.
        leapfrog: The steps.
        model: Gives log p(x, z).
    """

    mu: Tensor
    logvar: Tensor
    x: Tensor
    y: Tensor | None
    leapfrog: Leapfrog
    model: JointDensity

    def rsample(self) -> Tensor:
        return self.rsample_and_log_prob()[0]

    def rsample_and_log_prob(self) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.mu.device.type, enabled=False):  # forces in bfloat16 would be noise
            base = DiagonalGaussian(self.mu, self.logvar)
            start = base.rsample()
            noise = torch.randn(start.shape, device=start.device, dtype=start.dtype)
            z, momentum = self.leapfrog(start, noise, self._gradient)
            return z, base.log_prob(start) + 0.5 * (momentum.square() - noise.square()).sum(1)

    def log_prob(self, z: Tensor) -> Tensor:
        raise VaezooError(
            "the density after leapfrog steps is known only of z that they reached", "use posterior=diagonal or full"
        )

    def mode(self) -> Tensor:
        """Returns the mode of q_0, before the leapfrog steps."""
        return self.mu

    def outputs(self) -> dict[str, Tensor]:
        """Returns the parameters of q_0."""
        return {"mu": self.mu, "logvar": self.logvar}

    def _gradient(self, z: Tensor) -> Tensor:
        """Returns d log p(x, z) / dz, through which gradients flow again in training."""
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():  # also where the model is only evaluated
            point = z if z.requires_grad else z.detach().requires_grad_()
            log_joint = self.model.log_joint(point, self.x, self.y)
            (gradient,) = torch.autograd.grad(log_joint.sum(), point, create_graph=differentiable)
        return gradient


class HamiltonianHead(Head):
    """Means and raw log-variances of the Gaussian before the leapfrog steps.

    Args:
        n: Number of latents.
        leapfrog: The steps.
    """

    def __init__(self, n: int, leapfrog: Leapfrog) -> None:
        super().__init__()
        self.base = DiagonalGaussianHead((n,))
        self.inputs = self.base.inputs
        self.leapfrog = leapfrog
        if leapfrog.steps:
            self.left_out = (
                f"The model moves each z by {leapfrog.steps} leapfrog steps along gradients of its decoder. "
                "encoder.onnx leaves them out: it gives the Gaussian before the steps."
            )

    def forward(self, h: Tensor) -> Posterior:
        posterior: Posterior = self.base(h)
        return posterior

    def follow(self, posterior: Posterior, model: JointDensity, x: Tensor, y: Tensor | None) -> Posterior:
        """Overridden: adds the leapfrog steps."""
        assert isinstance(posterior, DiagonalGaussian)
        return HamiltonianPosterior(*posterior, x, y, self.leapfrog, model)


@dataclass(frozen=True, kw_only=True)
class HamiltonianPart(PosteriorPart):
    """A diagonal Gaussian, and leapfrog steps along the gradient of log p(x, z).

    Attributes:
        steps: Number of leapfrog steps. Each takes a gradient of the decoder. 0: the diagonal Gaussian.
        step_size: Size of a step before training, below 0.5. It is learned for each latent dimension.
        tempering: How the temperature falls to 1: quadratically from a learned one (fixed), by a learned factor in each
            step (free), or not at all (none).
        inverse_temperature: That of the first step before training, between 0 and 1. The paper calls it beta_0.

    Raises:
        VaezooError: If a value is out of range.
    """

    part = "hamiltonian"
    formula = (
        r"(z_0, \rho_0) \mapsto (z_K, \rho_K) \text{ by leapfrog steps}, \qquad \log q = \log q_0(z_0 \mid x)"
        r" + \log \mathcal{N}(\varepsilon; 0, I) - \log \mathcal{N}(\rho_K; 0, I), \qquad \rho_0"
        r" = \frac{\varepsilon}{\sqrt{\beta_0}}"
    )
    density = "of draws"
    follows_joint = True
    steps: int = 3
    step_size: float = 0.1
    tempering: Tempering = "fixed"
    inverse_temperature: float = 0.8

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise VaezooError(f"option 'posterior.steps' is {self.steps}", "give at least 0")
        if not 0 < self.step_size < MAX_STEP:
            raise VaezooError(
                f"option 'posterior.step_size' is {self.step_size:g}", f"give more than 0 and less than {MAX_STEP}"
            )
        if not 0 < self.inverse_temperature < 1:
            raise VaezooError(
                f"option 'posterior.inverse_temperature' is {self.inverse_temperature:g}",
                "give more than 0 and less than 1",
            )

    def head(self, latent_shape: Shape) -> Head:
        n = require_flat("posterior=hamiltonian", latent_shape)
        steps = Leapfrog(n, self.steps, self.step_size, self.tempering, self.inverse_temperature)
        return HamiltonianHead(n, steps)
