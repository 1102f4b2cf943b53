"""The von Mises-Fisher posterior: latents on the unit sphere (Davidson et al. 2018, arXiv 1804.00891)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vaezoo.core.bessel import log_bessel
from vaezoo.core.precision import to_float32
from vaezoo.errors import VaezooError
from vaezoo.posteriors.base import Head, PosteriorPart, Shape, require_flat

# Of log(kappa / m), which starts in the middle. At the lower bound the KL is 0.001 m, and draws still depend on x.
MIN_LOG_KAPPA, MAX_LOG_KAPPA = -3.0, 7.0
PROPOSALS = 16  # of which the first that is accepted is taken. At least 66% are, so none of 16 is in one of 3e7 draws
NODES = 32  # of the quadrature of the gradient
TAIL = 8.0  # standard deviations of the angle over which it goes
TINY = 1e-30  # in place of a number that float32 rounds to 0


class VonMisesFisher(NamedTuple):
    """A direction with a concentration, on the unit sphere in m dimensions.

    The density is C_m(kappa) exp(kappa mu^T z) with respect to the area of the sphere (section 3.1 of the paper).
    C_m(kappa) = kappa^(m/2 - 1) / ((2 pi)^(m/2) I_(m/2 - 1)(kappa)). At kappa = 0 it is uniform.

    Attributes:
        mu: The mean direction, `(B, m)`, of length 1.
        kappa: The concentration, `(B, 1)`.
    """

    mu: Tensor
    kappa: Tensor

    def rsample(self) -> Tensor:
        angle = sample_angle(self.kappa, self.mu.shape[1])
        noise = torch.randn(self.mu.shape, device=self.mu.device, dtype=self.mu.dtype)
        # A uniform direction at a right angle to mu. A reflection that takes a fixed axis to mu, as in the paper, would
        # have no gradient where mu is that axis.
        tangent = F.normalize(noise - (noise * self.mu).sum(1, keepdim=True) * self.mu, dim=1)
        return torch.cos(angle) * self.mu + torch.sin(angle) * tangent

    def log_prob(self, z: Tensor) -> Tensor:
        # mu^T z - 1 = -|z - mu|^2 / 2, which stays exact where z is near mu.
        return self._log_density(-0.5 * (z - self.mu).square().sum(1, keepdim=True), self._bessel()[0])

    def log_density_at_mean(self) -> Tensor:
        """Returns E_q[log q(z|x)], `(B,)`. The density is linear in z, so it is the log-density at the mean of z."""
        log_value, mean_length = self._bessel()
        return self._log_density(mean_length - 1, log_value)

    def mode(self) -> Tensor:
        return self.mu

    def _bessel(self) -> tuple[Tensor, Tensor]:
        """Returns log(I(kappa) exp(-kappa) / kappa^(m/2 - 1)) of the order m/2 - 1, and the length of the mean of z."""
        return log_bessel(self.mu.shape[1] / 2 - 1, self.kappa)

    def _log_density(self, cosine_minus_1: Tensor, log_value: Tensor) -> Tensor:
        log_root = 0.5 * self.mu.shape[1] * math.log(2 * math.pi)
        return (self.kappa * cosine_minus_1 - log_root - log_value).squeeze(1)


def sample_angle(kappa: Tensor, m: int) -> Tensor:
    """Draws the angle between z and the mean direction, with its gradient with respect to kappa.

    The cosine has the density exp(kappa t) (1 - t^2)^((m - 3) / 2), up to a constant. It is drawn by the rejection
    sampling of Ulrich 1984 (algorithm 1 and appendix A of the paper), with a fixed number of proposals instead of a
    loop, so that a training step is one graph.

    The paper adds a score term to the gradient, because what is accepted depends on kappa. The gradient here needs no
    such term: at a fixed value F of the distribution function, d angle/d kappa = -(dF/d kappa) / (dF/d angle). This is
    implicit reparameterization (Figurnov et al. 2018, arXiv 1805.08498).

    Args:
        kappa: `(B, 1)`.
        m: Number of dimensions, at least 2.

    Returns:
        Angles in [0, pi], `(B, 1)`.
    """
    with torch.no_grad():
        angle = _propose_and_choose(kappa, m)
        if not kappa.requires_grad:
            return angle
        slope = angle_slope(angle, kappa, m)
    return angle + slope * (kappa - kappa.detach())


def _propose_and_choose(kappa: Tensor, m: int) -> Tensor:
    """Returns the first accepted proposal of the angle, `(B, 1)`."""
    b = (m - 1) / (2 * kappa + torch.sqrt(4 * kappa.square() + (m - 1) ** 2))
    squares = torch.randn((len(kappa), PROPOSALS, 2, m - 1), device=kappa.device, dtype=kappa.dtype).square().sum(3)
    # The paper's beta variable e ~ Beta((m - 1) / 2, (m - 1) / 2) has e / (1 - e) = odds, and cosine
    # (1 - (1 + b) e) / (1 - (1 - b) e). So the square of tan(angle / 2) is b odds.
    odds = squares[:, :, 0] / squares[:, :, 1].clamp(min=TINY)
    tangent_square = b * odds
    # The logarithm of the acceptance, kappa t + (m - 1) log(1 - x0 t) - c with x0 = (1 - b) / (1 + b), without
    # differences of nearly equal numbers.
    linear = 2 * kappa * b * (1 - odds) / ((1 + tangent_square) * (1 + b))
    log_ratio = torch.log(0.5 * (1 + odds)) + torch.log((1 + b) / (1 + tangent_square))
    uniform = torch.rand(odds.shape, device=kappa.device, dtype=kappa.dtype)
    accepted = linear + (m - 1) * log_ratio >= torch.log(uniform)
    first = accepted.to(torch.int8).argmax(1, keepdim=True)  # the first proposal, if none is accepted
    return 2 * torch.atan(tangent_square.gather(1, first).sqrt())


def angle_slope(angle: Tensor, kappa: Tensor, m: int) -> Tensor:
    """Returns d angle / d kappa at a fixed value of the distribution function, `(B, 1)`.

    With the density p(s) of the angle, exp(kappa cos s) sin(s)^(m - 2) up to a constant, it is minus the integral of
    (cos s - E[cos]) p(s) / p(angle) from 0 to the angle. It is also plus the integral from the angle to pi. The one in
    which cos s - E[cos] has one sign is exact.
    """
    mean = log_bessel(m / 2 - 1, kappa)[1]
    width = TAIL / torch.sqrt(kappa + m - 2 + 1e-6)
    end = torch.where(torch.cos(angle) > mean, (angle - width).clamp(min=0), (angle + width).clamp(max=math.pi))
    # The midpoint rule in y with x = y^3 (10 - 15 y + 6 y^2). At both ends the first and second derivatives of x are 0,
    # so the error is of fourth order.
    y = (torch.arange(NODES, device=kappa.device, dtype=kappa.dtype) + 0.5) / NODES
    s = end + (angle - end) * y**3 * (10 - 15 * y + 6 * y.square())
    # cos s - cos angle as a product, which is exact for near angles.
    cosines = -2 * torch.sin(0.5 * (s + angle)) * torch.sin(0.5 * (s - angle))
    log_sines = torch.log(torch.sin(s).clamp(min=TINY)) - torch.log(torch.sin(angle).clamp(min=TINY))
    ratio = torch.exp(kappa * cosines + (m - 2) * log_sines)
    return (end - angle) * ((torch.cos(s) - mean) * ratio * 30 * (y * (1 - y)).square()).sum(1, keepdim=True) / NODES


class VonMisesFisherHead(Head):
    """The mean direction at any length, then log(kappa / m) before its bounds, around their middle.

    Args:
        m: Number of latent dimensions.
    """

    def __init__(self, m: int) -> None:
        super().__init__()
        self.m = m
        self.inputs = (m + 1,)

    def forward(self, h: Tensor) -> VonMisesFisher:
        direction, raw = torch.split(to_float32(h), [self.m, 1], 1)
        # The length of the mean of z depends on kappa / m. In the middle it is 0.93 for all m.
        middle, half = 0.5 * (MAX_LOG_KAPPA + MIN_LOG_KAPPA), 0.5 * (MAX_LOG_KAPPA - MIN_LOG_KAPPA)
        kappa = self.m * torch.exp(middle + half * torch.tanh(raw / half))
        return VonMisesFisher(F.normalize(direction, dim=1), kappa)


@dataclass(frozen=True, kw_only=True)
class VonMisesFisherPart(PosteriorPart):
    """A direction with a concentration, on the unit sphere."""

    part = "vmf"
    formula = r"q(z \mid x) = C_m(\kappa(x)) \exp(\kappa(x)\,\mu(x)^\top z), \qquad |z| = |\mu(x)| = 1"
    space = "sphere"

    def decoder_scale(self, latent_shape: Shape) -> float:
        """Overridden: the mean square of a coordinate is 1 / m.

        As they are, they hardly move the decoder at first. The KL then wins: on MNIST all latents of most runs died.
        """
        return math.sqrt(latent_shape[0])

    def head(self, latent_shape: Shape) -> Head:
        return VonMisesFisherHead(require_sphere("posterior=vmf", latent_shape))


def require_sphere(part: str, latent_shape: Shape) -> int:
    """Returns the number of latent dimensions. Raises VaezooError if it is 1, in which there is no sphere."""
    m = require_flat(part, latent_shape)
    if m < 2:
        raise VaezooError(f"{part} needs a sphere, and latent_dim={m} has none", "give latent_dim at least 2")
    return m
