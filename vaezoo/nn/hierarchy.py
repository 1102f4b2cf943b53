"""Hierarchies of latent vectors: levels of z, each of which is drawn given the one above.

The levels lie side by side in z, the top first. The prior is p(z_0) p(z_1|z_0) ..., and q(z|x) has the same order. A
model chooses the networks; see `vaezoo.models.ladder_vae` and `vaezoo.models.hvae`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from vaezoo.core.precision import to_float32
from vaezoo.data.base import Split
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.gaussian_vae import init_output_bias
from vaezoo.nn.activations import Activation
from vaezoo.nn.mlp import mlp_layers
from vaezoo.objectives.base import ObjectivePart, check_batch_prior, check_no_codes
from vaezoo.posteriors.base import Posterior
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.priors.base import Prior, PriorPart
from vaezoo.vae import VAE

Sizes = tuple[int, ...]


class TopDown(nn.Module, ABC):
    """How q(z_i|x, z_{i-1}) of a level below the top is made.

    Attributes:
        widths: How many numbers of evidence each level needs, the top first.
    """

    widths: Sizes

    @abstractmethod
    def forward(self, level: int, evidence: Tensor, prior: DiagonalGaussian, above: Tensor) -> DiagonalGaussian:
        """Returns q of level number `level`, 1 or more.

        Args:
            level: Its number from the top.
            evidence: What the bottom-up pass says, `(B, widths[level])`.
            prior: p(z_i|z_{i-1}).
            above: z_{i-1}, the latents of the level above.
        """


class Level(NamedTuple):
    """One level of a pass downwards.

    Attributes:
        z: Its latents, `(B, latents)`.
        q: q(z_i|x, z_{i-1}).
        p: p(z_i|z_{i-1}). None at the top.
    """

    z: Tensor
    q: DiagonalGaussian
    p: DiagonalGaussian | None


class HierarchicalPosterior(NamedTuple):
    """q(z|x) = q(z_0|x) q(z_1|x, z_0) ...: the evidence of x, and the networks that go down from it.

    Attributes:
        evidence: What the bottom-up pass says about each level, the top first, `(B, sum(widths))`.
        head: Makes q of a level below the top.
        prior: Has the networks of p(z_i|z_{i-1}).
    """

    evidence: Tensor
    head: TopDown
    prior: HierarchicalPrior

    def levels(self, choose: Callable[[int, DiagonalGaussian], Tensor]) -> list[Level]:
        """Goes down and returns all levels, the top first.

        Args:
            choose: Returns z of a level, given its number and its q.
        """
        top, *lower = torch.split(self.evidence, list(self.head.widths), 1)
        q = DiagonalGaussian.from_raw(*top.chunk(2, 1))
        levels = [Level(choose(0, q), q, None)]
        for i, evidence in enumerate(lower, 1):
            above = levels[-1].z
            p = self.prior.conditional(i, above)
            q = self.head(i, evidence, p, above)
            levels.append(Level(choose(i, q), q, p))
        return levels

    def levels_at(self, z: Tensor) -> list[Level]:
        """Returns all levels for given latents `(B, sum(sizes))`."""
        parts = torch.split(z, list(self.prior.sizes), 1)
        return self.levels(lambda i, q: parts[i])

    def rsample(self) -> Tensor:
        return torch.cat([level.z for level in self.levels(lambda i, q: q.rsample())], 1)

    def log_prob(self, z: Tensor) -> Tensor:
        return torch.stack([level.q.log_prob(level.z) for level in self.levels_at(z)]).sum(0)

    def mode(self) -> Tensor:
        """Returns the mean of each level given the means above."""
        return torch.cat([level.z for level in self.levels(lambda i, q: q.mu)], 1)

    def outputs(self) -> dict[str, Tensor]:
        """Returns means and log-variances given the means above. The evidence alone says little."""
        levels = self.levels(lambda i, q: q.mu)
        return {
            "mode": torch.cat([level.z for level in levels], 1),
            "logvar": torch.cat([level.q.logvar for level in levels], 1),
        }


class HierarchicalPrior(Prior):
    """p(z) = p(z_0) p(z_1|z_0) ...: any prior of the top level, and diagonal Gaussians below.

    Args:
        top: p(z_0).
        sizes: Latent dimensions of each level, the top first.
        hidden: Sizes of the hidden layers of the network of each p(z_i|z_{i-1}).
        activation: Their activation.
    """

    def __init__(self, top: Prior, sizes: Sizes, hidden: Sizes, activation: Activation) -> None:
        super().__init__()
        self.top = top
        self.sizes = sizes
        self.networks = nn.ModuleList(
            nn.Sequential(*mlp_layers((above, *hidden, 2 * size), activation)) for above, size in pairwise(sizes)
        )
        self.inputs = top.inputs  # type: ignore[misc]  # that of the class is the default
        if top.noise_shape is not None:  # else this prior cannot be sampled, as the top cannot
            self.noise_shape = (math.prod(top.noise_shape) + sum(self.sizes[1:]),)

    def init_from_data(self, train: Split) -> None:
        """Overridden: the prior of the top level may need the data."""
        self.top.init_from_data(train)

    def conditional(self, level: int, above: Tensor) -> DiagonalGaussian:
        """Returns p(z_i|z_{i-1}) of a level below the top, given the latents of the level above it."""
        return DiagonalGaussian.from_raw(*self.networks[level - 1](above).chunk(2, 1))

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        shape = cast("Sizes", self.top.noise_shape)
        first, *lower = torch.split(noise, [math.prod(shape), *self.sizes[1:]], 1)
        levels = [self.top.from_noise(first.reshape(-1, *shape), *given)]
        for i, part in enumerate(lower, 1):
            p = self.conditional(i, levels[-1])
            levels.append(p.mu + torch.exp(0.5 * p.logvar) * part)
        return torch.cat(levels, 1)

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        levels = torch.split(z, list(self.sizes), 1)
        log_p = self.top.log_prob(levels[0], *given)
        for i, (above, part) in enumerate(pairwise(levels), 1):
            log_p = log_p + self.conditional(i, above).log_prob(part)
        return log_p

    def kl_terms(self, posterior: Posterior, z: Tensor, *given: Tensor) -> Tensor:
        """Overridden: given the latents above, each level below the top has a closed form for each dimension."""
        if not isinstance(posterior, HierarchicalPosterior):
            return super().kl_terms(posterior, z, *given)
        top, *lower = posterior.levels_at(z)
        terms = [self.top.kl_terms(top.q, top.z, *given)]
        return torch.cat([*terms, *(gaussian_kl(level.q, cast("DiagonalGaussian", level.p)) for level in lower)], 1)


def gaussian_kl(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    """Returns KL(q || p) of two diagonal Gaussians for each dimension, in nats."""
    # KL = (((mu_q - mu_p)^2 + sigma_q^2) / sigma_p^2 - 1 - log sigma_q^2 + log sigma_p^2) / 2.
    square = (q.mu - p.mu).square() * torch.exp(-p.logvar)
    return 0.5 * (square + torch.exp(q.logvar - p.logvar) - 1 - q.logvar + p.logvar)


class HierarchicalVAE(VAE):
    """Levels of latents over networks that the model chooses.

    Args:
        data: The data to model.
        sizes: Latent dimensions of each level, the top first.
        head: Makes q of a level below the top.
        encoder: From features to the evidence of all levels, the top first, `(B, sum(head.widths))`. That of the top is
            its mean, then its raw log-variance.
        decoder: From the lowest latents, `(B, seen)`, to the parameters of p(x|z).
        seen: How many latents the decoder sees.
        prior: The part that makes p(z) of the top level.
        hidden: Sizes of the hidden layers of the network of each p(z_i|z_{i-1}).
        activation: Their activation.

    Raises:
        UnsupportedDataError: If the prior does not support the data.
    """

    def __init__(
        self,
        data: DataSpec,
        sizes: Sizes,
        *,
        head: TopDown,
        encoder: nn.Module,
        decoder: nn.Module,
        seen: int,
        prior: PriorPart,
        hidden: Sizes,
        activation: Activation,
    ) -> None:
        super().__init__(data, (sum(sizes),))
        self.sizes = sizes
        self.head = head
        self.encoder = encoder
        self.seen = seen
        self.decoder = decoder
        self.prior = HierarchicalPrior(prior.build(TopLevel(self)), sizes, hidden, activation)

    def encode(self, x: Tensor) -> HierarchicalPosterior:
        evidence = to_float32(self.encoder(self.data.features(x)))
        return HierarchicalPosterior(evidence, self.head, cast("HierarchicalPrior", self.prior))

    def decode(self, z: Tensor) -> Tensor:
        params: Tensor = self.decoder(z[:, -self.seen :])
        return params

    def init_from_data(self, train: Split) -> None:
        """Overridden: initialises the decoder's output bias, as GaussianVAE does."""
        init_output_bias(self.decoder, self.likelihood, train)


class TopLevel(VAE):
    """The top level of a hierarchy as a VAE of its own. The part `prior` builds its prior for it.

    Args:
        whole: The whole model.
    """

    def __init__(self, whole: HierarchicalVAE) -> None:
        super().__init__(whole.data, whole.sizes[:1])
        self.whole = whole

    def encode(self, x: Tensor) -> DiagonalGaussian:
        evidence = self.whole.encoder(self.whole.data.features(x))
        return DiagonalGaussian.from_raw(*evidence[:, : 2 * self.whole.sizes[0]].chunk(2, 1))

    def decode(self, z: Tensor) -> Tensor:
        raise NotImplementedError


def check_parts(model: str, prior: object, objective: object) -> tuple[PriorPart, ObjectivePart]:
    """Returns the parts of a hierarchy.

    Args:
        model: Its name.
        prior: The option `prior`.
        objective: The option `objective`.

    Raises:
        VaezooError: If one of them does not fit the posterior of a hierarchy.
    """
    prior = cast("PriorPart", prior)
    if prior.space != "real":
        raise VaezooError(
            f"the latents of {model} are real numbers, but prior={prior.part} lies in the space '{prior.space}'",
            "use another prior, such as prior=normal",
        )
    objective = check_objective(model, objective)
    check_batch_prior(prior, objective)
    return prior, objective


def check_objective(model: str, objective: object) -> ObjectivePart:
    """Returns the objective of a hierarchy.

    Raises:
        VaezooError: If it needs codes, a point or a diagonal Gaussian, or detaches q(z|x) from its encoder. In a
            hierarchy, part of q are the networks that go down.
    """
    objective = cast("ObjectivePart", objective)
    check_no_codes(objective)
    if objective.needs_point:
        raise VaezooError(
            f"objective={objective.part} needs posterior=delta, not the levels of {model}", "use another objective"
        )
    if objective.needs_diagonal_gaussian:
        raise VaezooError(
            f"objective={objective.part} needs a diagonal Gaussian q(z|x), not the levels of {model}",
            "use another objective, such as objective=mmd",
        )
    if objective.density == "everywhere":
        raise VaezooError(
            f"objective={objective.part} needs a posterior that is all output of the encoder, not that of {model}",
            "use objective.gradient=plain, or another objective",
        )
    return objective
