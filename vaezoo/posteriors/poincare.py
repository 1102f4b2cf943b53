"""The wrapped normal posterior in the Poincare ball (Mathieu et al. 2019, arXiv 1901.06033).

The ball is a model of hyperbolic space. It holds the points z with c |z|^2 < 1 and has the curvature -c. A length at z
counts lambda(z) times, with lambda(z) = 2 / (1 - c |z|^2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vaezoo.core.precision import to_float32
from vaezoo.errors import VaezooError
from vaezoo.posteriors.base import Head, PosteriorPart, Shape, require_flat
from vaezoo.posteriors.gaussian import LOG_2PI, DiagonalGaussian

# Distances from the origin times sqrt(c). 1 - sqrt(c) |z| is 2 exp(-distance), and float32 has steps of 6e-8 there.
MAX_DISTANCE = 12.0  # draws that are further away are moved back to it
MEAN_BOUND = 10.0  # that of a mean, softly
TINY = 1e-30  # in place of a length of 0


class WrappedNormal(NamedTuple):
    """A normal distribution in the tangent space of a mean, wrapped around the ball by the exponential map.

    v ~ N(0, sigma^2) and z = exp_mu(v / lambda(mu)), so |v| is the distance of z from mu.

    Attributes:
        mu: The means in the ball, `(B, n)`.
        logvar: Logarithms of the variances of v, `(B, n)`.
        curvature: c.
    """

    mu: Tensor
    logvar: Tensor
    curvature: float

    def rsample(self) -> Tensor:
        noise = torch.randn(self.mu.shape, device=self.mu.device, dtype=self.mu.dtype)
        return wrap(self.mu, torch.exp(0.5 * self.logvar) * noise, self.curvature)

    def log_prob(self, z: Tensor) -> Tensor:
        """Returns the density with respect to the volume dz of the coordinates, as that of every other posterior."""
        v = unwrap(self.mu, z, self.curvature)
        log_normal: Tensor = -0.5 * (v.square() * torch.exp(-self.logvar) + self.logvar + LOG_2PI).sum(1)
        return log_normal + log_volume_ratio(v, z, self.curvature)

    def mode(self) -> Tensor:
        return self.mu


def length(v: Tensor) -> Tensor:
    """Returns the Euclidean norms of vectors `(B, n)`, `(B, 1)`. The gradient at 0 is 0."""
    norm: Tensor = torch.linalg.vector_norm(v, dim=1, keepdim=True)
    return norm


def gap(z: Tensor, c: float) -> Tensor:
    """Returns 1 - c |z|^2, `(B, 1)`."""
    return 1 - c * z.square().sum(1, keepdim=True)


def wrap_origin(v: Tensor, c: float, bound: float = MAX_DISTANCE) -> Tensor:
    """Returns the point at the distance |v| from the origin in the direction of v, exp_0(v / 2), `(B, n)`.

    It is tanh(sqrt(c) |v| / 2) v / (sqrt(c) |v|). Distances above `bound` / sqrt(c) become this bound.
    """
    distance = math.sqrt(c) * length(v)
    return torch.tanh(0.5 * distance.clamp(max=bound)) / distance.clamp(min=TINY) * v


def wrap(mu: Tensor, v: Tensor, c: float) -> Tensor:
    """Returns exp_mu(v / lambda(mu)), the point at the distance |v| from mu, `(B, n)`.

    It is the Moebius sum of mu and y = exp_0(v / 2). With D = (1 - c |mu|^2) (1 - c |y|^2) + c |mu + y|^2 this sum is
    mu + (1 - c |mu|^2) (y + c |y|^2 mu) / D. The usual form is less exact near the rim, where its terms cancel.
    """
    y = wrap_origin(v, c)
    divisor = gap(mu, c) * gap(y, c) + c * (mu + y).square().sum(1, keepdim=True)
    z = mu + gap(mu, c) * (y + c * y.square().sum(1, keepdim=True) * mu) / divisor
    limit = math.tanh(0.5 * MAX_DISTANCE) / math.sqrt(c)
    return z * (limit / length(z).clamp(min=TINY)).clamp(max=1)


def unwrap(mu: Tensor, z: Tensor, c: float) -> Tensor:
    """Returns v with z = exp_mu(v / lambda(mu)), `(B, n)`.

    The direction is that of the Moebius sum of -mu and z, (1 - c |mu|^2) d - c |d|^2 mu with d = z - mu, up to a
    positive factor. The distance is 2 / sqrt(c) asinh(sqrt(c) |d| / sqrt((1 - c |mu|^2) (1 - c |z|^2))).
    """
    d = z - mu
    direction = gap(mu, c) * d - c * d.square().sum(1, keepdim=True) * mu
    ratio = math.sqrt(c) * length(d) * torch.rsqrt(gap(mu, c) * gap(z, c))
    distance = 2 / math.sqrt(c) * torch.asinh(ratio)
    return distance / length(direction).clamp(min=TINY) * direction


def log_volume_ratio(v: Tensor, z: Tensor, c: float) -> Tensor:
    """Returns log |det dv/dz| for z = exp_mu(v / lambda(mu)), `(B,)`.

    The hyperbolic volume at the distance r = |v| is (sinh(sqrt(c) r) / (sqrt(c) r))^(n - 1) dv, and lambda(z)^n dz.
    """
    n = v.shape[1]
    r = (math.sqrt(c) * length(v)).clamp(min=1e-4)  # below, sinh(r) / r is 1 to float32
    # log(sinh(r) / r), where exp(r) may overflow.
    log_sinh = r + torch.log(-torch.expm1(-2 * r)) - math.log(2) - torch.log(r)
    return (n * (math.log(2) - torch.log(gap(z, c))) - (n - 1) * log_sinh).squeeze(1)


class WrappedNormalHead(Head):
    """Means as vectors from the origin, whose lengths are distances, then raw log-variances.

    Args:
        n: Number of latents.
        curvature: c.
    """

    def __init__(self, n: int, curvature: float) -> None:
        super().__init__()
        self.inputs = (2 * n,)
        self.curvature = curvature

    def forward(self, h: Tensor) -> WrappedNormal:
        tangent, raw = to_float32(h).chunk(2, 1)
        _, logvar = DiagonalGaussian.from_raw(tangent, raw)
        distance = math.sqrt(self.curvature) * length(tangent)
        shorter = MEAN_BOUND * torch.tanh(distance / MEAN_BOUND) / distance.clamp(min=TINY)
        return WrappedNormal(wrap_origin(shorter * tangent, self.curvature), logvar, self.curvature)


@dataclass(frozen=True, kw_only=True)
class PoincarePart(PosteriorPart):
    """A wrapped normal in the Poincare ball.

    Attributes:
        curvature: c > 0, for the curvature -c. The ball has the radius 1 / sqrt(c).

    Raises:
        VaezooError: If it is not positive.
    """

    part = "poincare"
    formula = (
        r"z = \exp_{\mu(x)}\left(\frac{v}{\lambda(\mu(x))}\right),"
        r" \qquad v \sim \mathcal{N}(0, \mathrm{diag}\,\sigma^2(x)), \qquad \lambda(\mu) = \frac{2}{1 - c\,|\mu|^2}"
    )
    curvature: float = 1.0

    def __post_init__(self) -> None:
        require_curvature("posterior.curvature", self.curvature)

    @property
    def space(self) -> str:
        return ball_name(self.curvature)

    def head(self, latent_shape: Shape) -> Head:
        return WrappedNormalHead(require_ball("posterior=poincare", latent_shape, self.curvature), self.curvature)


def ball_name(curvature: float) -> str:
    """Returns the name of the space. Balls of different curvatures are different spaces."""
    return f"ball of curvature -{curvature}"


def require_curvature(option: str, curvature: float) -> None:
    """Raises VaezooError unless c is positive."""
    if not curvature > 0:
        raise VaezooError(
            f"option '{option}' is {curvature:g}", f"give '{option}' more than 0; 0 is posterior=diagonal"
        )


def require_ball(part: str, latent_shape: Shape, curvature: float) -> int:
    """Returns the number of latents. Raises VaezooError if draws of the prior would leave what float32 can hold."""
    n = require_flat(part, latent_shape)
    # The distance of a draw from the origin is chi distributed: above sqrt(n) + 4 with a probability below 1e-4.
    largest = (MAX_DISTANCE / (math.sqrt(n) + 4)) ** 2
    if curvature > largest:
        raise VaezooError(
            f"with {n} latents and curvature {curvature:g}, {part} comes so near the rim that float32 is not exact",
            f"give both curvatures at most {math.floor(largest * 100) / 100:g}, or fewer latents",
        )
    return n
