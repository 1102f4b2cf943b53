"""Tests of whether draws come from a density: exact identities whose two sides are compared within standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vaezoo.posteriors.gaussian import LOG_2PI
from vaezoo.posteriors.von_mises_fisher import VonMisesFisher

DIRECTIONS = 8  # onto which the draws are projected
MAX_ERRORS = 7.0  # standard errors that a mean may be away. Checks have a fixed seed, so a result does not vary
SLACK = 1e-3  # of a mean that should be 0, because float32 is not exact
MIN_SHARE = 0.5  # of draws that count, by their weights: with fewer, a mean weight says little
MIN_KURTOSIS = 2.2  # of each dimension: that of a Gaussian is 3, and of several modes it is less


def deviation(values: Tensor, slack: float = SLACK) -> float:
    """Returns how many standard errors the mean of values `(N,)` is away from 0, beyond a slack."""
    values = values.detach().double()
    distance = max(0.0, abs(float(values.mean())) - slack)
    return distance / (float(values.std()) / math.sqrt(len(values)) + 1e-12)


def score_at(x: Tensor, log_prob: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns d log p(x)/dx, of the shape of x. It is 0 if log p does not depend on x."""
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        log_p = log_prob(x).sum()
        return torch.autograd.grad(log_p, x)[0] if log_p.requires_grad else torch.zeros_like(x)


def score_deviation(z: Tensor, log_prob: Callable[[Tensor], Tensor], *, unit: bool = False) -> float:
    """Compares draws with the gradient of a log-density. Returns the largest deviation, in standard errors.

    Categories in draws on R are left out.

    For z ~ p with score s = d log p/dz and a function f, E[f(z) s + f'(z)] = 0, if f p is 0 at the ends (Stein's
    identity). On R, f is a constant and a linear function, along random directions u: E[u s] = 0 and
    E[u (z - c) u s] = -1, for any c. On [0, 1], f is z (1 - z) in each dimension. The score does not know the constant
    of the density; see `weights_of_gaussian`.

    Args:
        z: Draws, `(N, ...)`, floats. The first half only gives c and the scale of each dimension.
        log_prob: Returns log p(z), `(N / 2,)`, for the second half.
        unit: Whether p is a density on [0, 1]. Otherwise it is one on R.
    """
    first, second = z.detach().chunk(2)
    score = score_at(second, log_prob).flatten(1)
    if not unit:  # the identity holds for each category
        rest = ~category_columns(z)
        first, second, score = (values.flatten(1)[:, rest] for values in (first, second, score))
    directions = F.normalize(torch.randn(DIRECTIONS, score.shape[1], dtype=score.dtype), dim=1)
    if unit:
        values = second.flatten(1)
        terms = values * (1 - values) * score + 1 - 2 * values
        return max(deviation(test) for test in (*(terms @ directions.T).unbind(1), terms.mean(1)))
    scale = first.std(0).flatten()
    centred, score = (second - first.mean(0)).flatten(1) / scale, score * scale
    along_z, along_score = centred @ directions.T, score @ directions.T  # (N / 2, DIRECTIONS)
    linear, all_dimensions = along_z * along_score + 1, (centred * score).mean(1) + 1
    return max(deviation(test) for test in (*along_score.unbind(1), *linear.unbind(1), all_dimensions))


def category_columns(z: Tensor) -> Tensor:
    """Returns which columns of draws `(N, ...)` are the one-hot coding of a category: they hold 0 and 1 only."""
    values = z.detach().flatten(1)
    return ((values == 0) | (values == 1)).all(0)


def on_sphere(z: Tensor) -> bool:
    """Tells whether all draws `(N, ...)` have length 1. Their density is then one on the sphere."""
    lengths = z.detach().double().flatten(1).square().sum(1).sqrt()
    return z[0].numel() > 1 and bool(((lengths - 1).abs() < 1e-4).all())


def sphere_deviation(z: Tensor, log_prob: Callable[[Tensor], Tensor]) -> float:
    """Compares draws on the unit sphere with the gradient of a log-density, as `score_deviation` does on R.

    For z ~ p on the sphere in m dimensions with score s, the mean of the Laplacian of f plus its gradient times s is 0,
    both along the sphere. Here f is u z and (u z)^2, for random directions u and that of the mean of the draws. The
    gradient of u z is v = u - (u z) z, and its Laplacian is -(m - 1) u z. Those of (u z)^2 are 2 (u z) v and
    2 - 2 m (u z)^2.

    Args:
        z: Draws, `(N, ...)` of length 1. The first half only gives the mean.
        log_prob: Returns log p(z), `(N / 2,)`, for the second half.
    """
    first, second = z.detach().chunk(2)
    score, points = score_at(second, log_prob).flatten(1), second.flatten(1)
    m = points.shape[1]
    directions = torch.cat([torch.randn(DIRECTIONS, m, dtype=score.dtype), first.flatten(1).mean(0, keepdim=True)])
    directions = F.normalize(directions, dim=1)
    along_z = points @ directions.T  # (N / 2, DIRECTIONS + 1)
    along_score = score @ directions.T - along_z * (points * score).sum(1, keepdim=True)
    linear = along_score - (m - 1) * along_z
    square = 2 * along_z * along_score + 2 - 2 * m * along_z.square()
    return max(deviation(test) for test in (*linear.unbind(1), *square.unbind(1)))


def weights_on_sphere(z: Tensor, log_p: Tensor) -> Tensor | None:
    """Returns weights `(N / 2,)` whose mean is 1 if log p on the sphere has the right constant. None: p is far from r.

    Here r is a von Mises-Fisher distribution with the mean of the draws; see `weights_of_gaussian`. Its concentration
    is that of Banerjee et al. 2005, R (m - R^2) / (1 - R^2) for a mean of length R.

    Args:
        z: Draws from p, `(N, ...)` of length 1. The first half gives r, the second the weights.
        log_p: log p(z), `(N,)`.
    """
    first, second = z.detach().double().flatten(1).chunk(2)
    mean = first.mean(0, keepdim=True)
    square = mean.square().sum().reshape(1, 1)
    r = VonMisesFisher(F.normalize(mean, dim=1), square.sqrt() * (mean.shape[1] - square) / (1 - square))
    log_weights = r.log_prob(second) - log_p.detach().double().chunk(2)[1]
    return log_weights.exp() if effective_share(log_weights) > MIN_SHARE else None


def effective_share(log_weights: Tensor) -> float:
    """Returns the share of draws that count, by their weights. A constant factor of the weights does not change it."""
    relative = torch.softmax(log_weights, 0)
    return 1 / (len(relative) * float(relative.square().sum()))


def weights_of_gaussian(z: Tensor, log_p: Tensor) -> Tensor | None:
    """Returns weights `(N / 2,)` whose mean is 1 if log p has the right constant. None: p is too far from a Gaussian.

    With a Gaussian r of the mean and the variance of the draws, E_p[r(z) / p(z)] = 1. This mean is reliable only if p
    is close to r. The spread of the weights and the fourth moments of the draws tell. In r a category has the
    frequencies of the draws.

    Args:
        z: Draws from p, `(N, ...)`. The first half gives r, the second the weights.
        log_p: log p(z), `(N,)`.
    """
    first, second = z.detach().double().flatten(1).chunk(2)
    is_category = category_columns(z)
    mean, std = first[:, ~is_category].mean(0), first[:, ~is_category].std(0)
    standard = (second[:, ~is_category] - mean) / std
    log_r = -(0.5 * (standard.square() + LOG_2PI) + std.log()).sum(1)
    if is_category.any():
        log_r = log_r + (second[:, is_category] @ first[:, is_category].mean(0)).log()
    log_weights = log_r - log_p.detach().double().chunk(2)[1]
    near = effective_share(log_weights) > MIN_SHARE and float(standard.pow(4).mean(0).min()) > MIN_KURTOSIS
    return log_weights.exp() if near else None
