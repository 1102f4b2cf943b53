"""Likelihoods of 256 grey levels: the discretized logistic, its mixture, and a category for each level.

Each is a probability of one of the values 0, 1/255, ..., 1. So -log p(x) / log 2 counts bits as compression does, and
the bits per dimension of all three can be compared. x is rounded to the nearest level.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vaezoo.core.options import require_positive
from vaezoo.likelihoods.base import Likelihood, Shape, sum_dims, widen
from vaezoo.likelihoods.categorical import draw_ids

LEVELS = 256
HIGHEST = LEVELS - 1  # the number of the level 1
STEP = 1 / HIGHEST  # between two levels
# Of log s. The lower bound is that of Salimans et al. 2017, -7 for pixels from -1 to 1. The upper one is a scale of 4.
MIN_LOG_SCALE, MAX_LOG_SCALE = -7.7, 1.4
COLOURS = 3


def to_levels(x: Tensor) -> Tensor:
    """Rounds values in [0, 1] to the nearest of the levels, which are floats too."""
    return (x.clamp(0, 1) * HIGHEST).round() / HIGHEST


def log_scale_of(raw: Tensor) -> Tensor:
    """Bounds raw values softly to log-scales. 0 becomes a scale of 11 levels, in the middle."""
    middle, half = 0.5 * (MIN_LOG_SCALE + MAX_LOG_SCALE), 0.5 * (MAX_LOG_SCALE - MIN_LOG_SCALE)
    return middle + half * torch.tanh(raw / half)


def level_log_prob(x: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
    """Returns log P(x) of each level under a discretized logistic, elementwise.

    With the logistic distribution function S, a level has the probability S(b) - S(a), where a and b are half a step
    below and above it, in units of the scale. The lowest level has S(b) and the highest 1 - S(a), so that all add up to
    1 (Salimans et al. 2017, arXiv 1701.05517, equation 2).

    S(b) - S(a) = S(b) S(-a) (1 - exp(a - b)), whose logarithm is exact in the tails, too.

    Args:
        x: Levels.
        location: Location of the logistic, in the units of x.
        log_scale: log s.
    """
    rate = torch.exp(-log_scale)
    distance = (x - location) * rate
    half = 0.5 * STEP * rate
    not_highest, not_lowest = x < 1 - 0.5 * STEP, x > 0.5 * STEP
    log_p = torch.where(not_highest, F.logsigmoid(distance + half), 0.0)
    log_p = log_p + torch.where(not_lowest, F.logsigmoid(half - distance), 0.0)
    return log_p + torch.where(not_highest & not_lowest, torch.log(-torch.expm1(-2 * half)), 0.0)


def level_mean(location: Tensor, log_scale: Tensor) -> Tensor:
    """Returns the mean of a logistic that is clipped to [0, 1], elementwise. Rounding moves it by less than 0.2 levels.

    It is the integral of P(x > t) from 0 to 1: s (softplus(m / s) - softplus((m - 1) / s)).
    """
    scale, rate = torch.exp(log_scale), torch.exp(-log_scale)
    return scale * (F.softplus(location * rate) - F.softplus((location - 1) * rate))


def draw_level(location: Tensor, log_scale: Tensor) -> Tensor:
    """Draws levels from discretized logistics, elementwise."""
    u = torch.rand_like(location)
    return to_levels(location + torch.exp(log_scale) * (torch.log(u) - torch.log1p(-u)))


class DiscretizedLogistic(Likelihood):
    """A logistic distribution rounded to the levels (Kingma et al. 2016, arXiv 1606.04934).

    `params` hold the location of each value, and then its raw log-scale. The location may lie outside [0, 1]. What lies
    beyond the ends counts to the lowest and the highest level.
    """

    def params_shape(self, shape: Shape) -> Shape:
        return widen(shape, 2)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        location, raw = params.chunk(2, 1)
        return sum_dims(level_log_prob(to_levels(x), location, log_scale_of(raw)))

    def mean(self, params: Tensor) -> Tensor:
        location, raw = params.chunk(2, 1)
        return level_mean(location, log_scale_of(raw))

    def sample(self, params: Tensor) -> Tensor:
        location, raw = params.chunk(2, 1)
        return draw_level(location, log_scale_of(raw))

    def params_of_mean(self, mean: Tensor) -> Tensor:
        return torch.cat([mean, torch.zeros_like(mean)])


class DiscretizedLogisticMixture(Likelihood):
    """A mixture of discretized logistics (Salimans et al. 2017, arXiv 1701.05517, equations 2 and 3).

    The pixel of a colour image has one mixture: all three channels come from the same component. The location of green
    grows linearly with red, and that of blue with red and green. So `params` hold ten numbers a component and pixel:
    a logit, three locations, three raw log-scales and three coefficients. In other data each value has a mixture of its
    own, with three numbers a component.

    The mean of green and blue takes the means of the channels before. It is exact where nothing is clipped.

    Args:
        components: K, at least 1.

    Raises:
        VaezooError: If there is no component.
    """

    def __init__(self, components: int = 10) -> None:
        super().__init__()
        require_positive("components", components)
        self.components = components

    def params_shape(self, shape: Shape) -> Shape:
        if len(shape) == 3 and shape[0] == COLOURS:
            return ((1 + 3 * COLOURS) * self.components, *shape[1:])
        return widen(shape, 3 * self.components)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        logits, location, log_scale, coefficients = self._parts(params)
        x = to_levels(x).unsqueeze(1)
        if coefficients is None:
            terms = level_log_prob(x, location, log_scale)
        else:
            location = conditional_location(location, coefficients, x.expand_as(location))
            terms = level_log_prob(x, location, log_scale).sum(2, keepdim=True)
        return sum_dims(torch.logsumexp(torch.log_softmax(logits, 1) + terms, 1))

    def mean(self, params: Tensor) -> Tensor:
        logits, location, log_scale, coefficients = self._parts(params)
        if coefficients is None:
            means = level_mean(location, log_scale)
        else:
            means = channel_by_channel(level_mean, location, log_scale, coefficients)
        return (torch.softmax(logits, 1) * means).sum(1)

    def sample(self, params: Tensor) -> Tensor:
        logits, location, log_scale, coefficients = self._parts(params)
        component = draw_ids(logits.movedim(1, -1)).unsqueeze(1).expand(-1, 1, *location.shape[2:])
        location, log_scale = (t.gather(1, component) for t in (location, log_scale))
        if coefficients is None:
            return draw_level(location, log_scale).squeeze(1)
        return channel_by_channel(draw_level, location, log_scale, coefficients.gather(1, component)).squeeze(1)

    def _parts(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Returns logits, locations, log-scales and coefficients.

        Returns:
            `(B, K, *shape)` each. For colour images the logits are `(B, K, 1, H, W)`. The coefficients are None for
            other data.
        """
        if params.shape[1] == (1 + 3 * COLOURS) * self.components:  # 3 K C for other data, which is never 10 K
            logits, others = torch.split(params, [self.components, 3 * COLOURS * self.components], 1)
            location, raw, coefficients = torch.unflatten(others, 1, (3, self.components, COLOURS)).unbind(1)
            return logits.unsqueeze(2), location, log_scale_of(raw), torch.tanh(coefficients)
        logits, location, raw = torch.unflatten(params, 1, (3, self.components, -1)).unbind(1)
        return logits, location, log_scale_of(raw), None


def conditional_location(location: Tensor, coefficients: Tensor, x: Tensor) -> Tensor:
    """Returns the locations of red, green and blue, given the values of the channels before.

    Args:
        location: `(B, K, 3, H, W)`, of a channel where the ones before are 1/2.
        coefficients: `(B, K, 3, H, W)`: of red for green, of red for blue, and of green for blue.
        x: `(B, K, 3, H, W)`. The values of blue are not used.
    """
    red, green, _ = (x - 0.5).unbind(2)
    of_red, of_red_for_blue, of_green = coefficients.unbind(2)
    shift = torch.stack([torch.zeros_like(red), of_red * red, of_red_for_blue * red + of_green * green], 2)
    return location + shift


def channel_by_channel(
    draw: Callable[[Tensor, Tensor], Tensor], location: Tensor, log_scale: Tensor, coefficients: Tensor
) -> Tensor:
    """Draws red, then green given red, then blue given both, `(B, K, 3, H, W)`.

    Args:
        draw: Returns values for locations and log-scales.
        location: As in `conditional_location`.
        log_scale: `(B, K, 3, H, W)`.
        coefficients: As in `conditional_location`.
    """
    x = torch.full_like(location, 0.5)
    for channel in range(COLOURS):
        given = conditional_location(location, coefficients, x)
        value = draw(given[:, :, channel], log_scale[:, :, channel])
        x = torch.cat([x[:, :, :channel], value.unsqueeze(2), x[:, :, channel + 1 :]], 2)
    return x


class CategoricalLevels(Likelihood):
    """A category for each level, which knows no order of the levels. `params` hold 256 logits for each value."""

    def params_shape(self, shape: Shape) -> Shape:
        return widen(shape, LEVELS)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        log_p = torch.log_softmax(torch.unflatten(params, 1, (LEVELS, -1)), 1)
        index = (x.clamp(0, 1) * HIGHEST).round().long().unsqueeze(1)
        return sum_dims(log_p.gather(1, index).squeeze(1))

    def mean(self, params: Tensor) -> Tensor:
        p = torch.softmax(torch.unflatten(params, 1, (LEVELS, -1)), 1)
        levels = torch.arange(LEVELS, dtype=p.dtype, device=p.device) / HIGHEST
        return (p.movedim(1, -1) * levels).sum(-1)

    def sample(self, params: Tensor) -> Tensor:
        logits = torch.unflatten(params, 1, (LEVELS, -1)).movedim(1, -1)
        return draw_ids(logits).to(params.dtype) / HIGHEST
