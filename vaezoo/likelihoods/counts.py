"""Likelihoods of counts: Poisson, negative binomial, and the latter with further zeros (Lopez et al. 2018, scVI).

The decoder gives logits of fractions rho, which add up to 1. The mean of a count is l rho, where the library size l is
the sum of the example's counts, as scVI takes it by default:

    p(x|z, l) = prod_g NB(x_g; l rho_g(z), theta_g)

So a likelihood is one given l. What is drawn from p(x|z) has a library size from a log-normal distribution, which is
that of the training examples.

The formulas are arranged so that float32 is enough. With R(a) = lgamma(a) - (a - 1/2) log a + a and n = x + theta,

    log NB(x; mu, theta) = R(n) - R(theta) - R(x + 1) - log(n (x + 1) / theta) / 2 + 1
                           + theta log(n / (theta + mu)) + x log(n mu / ((theta + mu) (x + 1)))

No term is much larger than the result. The plain form takes differences of numbers of the size of x log x.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.likelihoods.base import Likelihood, Shape, sum_dims, widen

if TYPE_CHECKING:
    from vaezoo.data.base import Split

MIN_DISPERSION, MAX_DISPERSION = 1e-4, 1e6  # of theta; the negative binomial of the largest is nearly a Poisson
MIN_LIBRARY = 1e-6  # stands for the sum of an example without counts, whose log is not finite
MIN_MEAN = 1e-4  # of `params_of_mean`: a count that is always 0 would have the logit -inf
DROPOUT_LOGIT = -2.0  # of a new decoder: 12 % further zeros
SERIES_FROM = 8.0  # from here on, three terms of Stirling's series are exact in float32


def log_ratio(difference: Tensor, log_numerator: Tensor, log_denominator: Tensor) -> Tensor:
    """Returns the logarithm of a ratio a / b, elementwise: exact near 1, and finite where it is tiny.

    Args:
        difference: (a - b) / b.
        log_numerator: log a.
        log_denominator: log b.
    """
    is_near = difference > -0.5
    near = torch.log1p(torch.where(is_near, difference, 0.0))
    return torch.where(is_near, near, log_numerator - log_denominator)


def stirling_rest(a: Tensor) -> Tensor:
    """Returns R(a) = lgamma(a) - (a - 1/2) log a + a for a > 0, elementwise."""
    is_large = a >= SERIES_FROM
    inverse = 1 / a.clamp(min=SERIES_FROM)
    square = inverse.square()
    series = 0.5 * math.log(2 * math.pi) + inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
    small = torch.where(is_large, 1.0, a)
    return torch.where(is_large, series, torch.lgamma(small) - (small - 0.5) * torch.log(small) + small)


def poisson_log_prob(log_mean: Tensor, x: Tensor) -> Tensor:
    """Returns log Poisson(x; mu), elementwise: x log mu - mu - log x!, in the form of the module's docstring."""
    mean, after = torch.exp(log_mean), x + 1
    difference = mean - after
    log = log_ratio(difference / after, log_mean, torch.log(after))
    return x * log - difference - 0.5 * torch.log(after) - stirling_rest(after)


def negative_binomial_log_prob(log_mean: Tensor, log_dispersion: Tensor, x: Tensor) -> Tensor:
    """Returns log NB(x; mu, theta), elementwise; see the module's docstring.

    Args:
        log_mean: log mu.
        log_dispersion: log theta. The variance is mu + mu^2 / theta.
        x: Counts.
    """
    mean, theta = torch.exp(log_mean), torch.exp(log_dispersion)
    n, after, total = x + theta, x + 1, theta + mean
    log_n, log_after, log_total = torch.log(n), torch.log(after), torch.log(total)
    first = log_ratio((x - mean) / total, log_n, log_total)
    # n mu / ((theta + mu) (x + 1)) - 1
    difference = theta / total * ((mean - after) / after) - mean / total / after
    second = log_ratio(difference, log_n + log_mean, log_total + log_after)
    rests = stirling_rest(n) - stirling_rest(theta) - stirling_rest(after)
    return rests - 0.5 * (log_n + log_after - log_dispersion) + 1 + theta * first + x * second


class Counts(Likelihood):
    """Independent counts given z and the library size. `params` begin with the logits of the fractions.

    Args:
        shape: The shape of an example.

    Attributes:
        library: Mean and standard deviation of the logarithms of library sizes, `(2,)`.
    """

    kinds = ("count",)

    def __init__(self, shape: Shape = ()) -> None:
        super().__init__()
        self.library: Tensor
        self.register_buffer("library", torch.zeros(2))

    def init_from_data(self, train: Split) -> None:
        """Overridden: takes the library sizes."""
        logs = train.batch(slice(None)).x.flatten(1).sum(1, dtype=torch.float64).clamp(min=MIN_LIBRARY).log()
        self.library.copy_(torch.stack([logs.mean(), logs.std(correction=0)]))

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        library = sum_dims(x).clamp(min=MIN_LIBRARY).log()
        log_mean = self.log_fractions(params) + library.view(-1, *[1] * (x.ndim - 1))
        return sum_dims(self.count_log_prob(params, log_mean, x))

    @abstractmethod
    def count_log_prob(self, params: Tensor, log_mean: Tensor, x: Tensor) -> Tensor:
        """Returns the log-probability of each count, `(B, *shape)`, given the logarithms of their means l rho."""

    @abstractmethod
    def draw(self, params: Tensor, mean: Tensor) -> Tensor:
        """Draws counts, `(B, *shape)`, given their means l rho."""

    def log_fractions(self, params: Tensor) -> Tensor:
        """Returns log rho, `(B, *shape)`. The fractions of an example add up to 1."""
        return torch.log_softmax(params.flatten(1), 1).view_as(params)

    def mean(self, params: Tensor) -> Tensor:
        """Returns the mean of x at the mean library size of the training, `(B, *shape)`."""
        location, scale = self.library.unbind()
        return torch.exp(self.log_fractions(params) + location + 0.5 * scale.square())

    def sample(self, params: Tensor) -> Tensor:
        """Draws a library size and then counts, `(B, *shape)`."""
        log_fractions = self.log_fractions(params)
        noise = torch.randn(len(params), *[1] * (params.ndim - 1), device=params.device)
        location, scale = self.library.unbind()
        return self.draw(params, torch.exp(log_fractions + location + scale * noise))

    def outputs(self, params: Tensor) -> dict[str, Tensor]:
        """Overridden: logarithms, besides the mean, which together give p(x|z).

        `log_fractions` are `(B, *shape)`. `log_library` holds mean and standard deviation of the logarithm of the
        library size, `(B, 2)`.
        """
        log_fractions = self.log_fractions(params)
        library = self.library.expand(log_fractions.shape[0], 2)
        return {"x_mean": self.mean(params), "log_fractions": log_fractions, "log_library": library}

    def params_of_outputs(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Overridden: log fractions are logits of themselves."""
        self.library = outputs["log_library"][0]
        return outputs["log_fractions"]

    def params_of_mean(self, mean: Tensor) -> Tensor:
        return torch.log(mean.clamp(min=MIN_MEAN))


class Poisson(Counts):
    """Independent Poisson counts, whose variance is their mean. `params` are logits of the fractions."""

    def count_log_prob(self, params: Tensor, log_mean: Tensor, x: Tensor) -> Tensor:
        return poisson_log_prob(log_mean, x)

    def draw(self, params: Tensor, mean: Tensor) -> Tensor:
        return torch.poisson(mean)


class NegativeBinomial(Counts):
    """Independent negative binomial counts: Poisson counts whose rate is gamma-distributed.

    The mean is mu = l rho and the variance mu + mu^2 / theta. Each dimension has its own inverse dispersion theta, a
    parameter that is trained with the model. `params` are logits of the fractions.

    Args:
        shape: The shape of an example.
    """

    def __init__(self, shape: Shape = ()) -> None:
        super().__init__(shape)
        self.raw_dispersion = nn.Parameter(torch.zeros(shape))

    @property
    def log_dispersion(self) -> Tensor:
        """log theta, of the shape of an example."""
        return self.raw_dispersion.clamp(math.log(MIN_DISPERSION), math.log(MAX_DISPERSION))

    def count_log_prob(self, params: Tensor, log_mean: Tensor, x: Tensor) -> Tensor:
        return negative_binomial_log_prob(log_mean, self.log_dispersion, x)

    def draw(self, params: Tensor, mean: Tensor) -> Tensor:
        theta = torch.exp(self.log_dispersion)
        rate = torch.distributions.Gamma(theta.expand_as(mean), torch.ones_like(mean), validate_args=False).sample()
        return torch.poisson(rate * (mean / theta))

    def outputs(self, params: Tensor) -> dict[str, Tensor]:
        """Overridden: `log_dispersion`, log theta, is `(B, *shape)`."""
        outputs = super().outputs(params)
        return {**outputs, "log_dispersion": self.log_dispersion.expand_as(outputs["x_mean"])}

    def params_of_outputs(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Overridden: takes theta, too."""
        self.raw_dispersion = nn.Parameter(outputs["log_dispersion"][0])
        return super().params_of_outputs(outputs)


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """Negative binomial counts, each of which is 0 instead with a probability pi that depends on z.

    p(0) = pi + (1 - pi) NB(0), and p(x) = (1 - pi) NB(x) for x > 0. `params` hold the logits of the fractions, and then
    those of pi. Methods of the negative binomial are overridden where pi belongs to them.
    """

    def params_shape(self, shape: Shape) -> Shape:
        return widen(shape, 2)

    def count_log_prob(self, params: Tensor, log_mean: Tensor, x: Tensor) -> Tensor:
        logits = params.chunk(2, 1)[1]
        log_p = super().count_log_prob(params, log_mean, x) + F.logsigmoid(-logits)
        return torch.where(x == 0, torch.logaddexp(F.logsigmoid(logits), log_p), log_p)

    def log_fractions(self, params: Tensor) -> Tensor:
        return super().log_fractions(params.chunk(2, 1)[0])

    def mean(self, params: Tensor) -> Tensor:
        return super().mean(params) * torch.sigmoid(-params.chunk(2, 1)[1])

    def draw(self, params: Tensor, mean: Tensor) -> Tensor:
        is_kept = torch.bernoulli(torch.sigmoid(-params.chunk(2, 1)[1]))
        return super().draw(params, mean) * is_kept

    def outputs(self, params: Tensor) -> dict[str, Tensor]:
        """Overridden: `dropout_logits`, those of pi, are `(B, *shape)`."""
        return {**super().outputs(params), "dropout_logits": params.chunk(2, 1)[1]}

    def params_of_outputs(self, outputs: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([super().params_of_outputs(outputs), outputs["dropout_logits"]], 1)

    def params_of_mean(self, mean: Tensor) -> Tensor:
        return torch.cat([super().params_of_mean(mean), torch.full_like(mean, DROPOUT_LOGIT)])
