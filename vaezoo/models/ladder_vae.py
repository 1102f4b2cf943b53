"""The ladder VAE (Sonderby et al. 2016): levels of latents, each of which is drawn given the one above.

The levels lie side by side in z, the top first. The prior is p(z_0) p(z_1|z_0) ..., and q(z|x) has the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from vaezoo.core.options import PartOf, require_positive
from vaezoo.core.precision import to_float32
from vaezoo.data.base import DataSpec, Split
from vaezoo.errors import VaezooError
from vaezoo.gaussian_vae import init_output_bias
from vaezoo.nn.activations import Activation
from vaezoo.nn.ladder import BottomUp, PrecisionWeighted, SeparateNetworks, Sizes, TopDown
from vaezoo.nn.mlp import mlp_layers
from vaezoo.objectives.base import Objective, ObjectivePart
from vaezoo.objectives.elbo import ELBOPart
from vaezoo.posteriors.base import Posterior
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.priors.base import Prior, PriorPart
from vaezoo.priors.standard_normal import StandardNormalPart
from vaezoo.spec import ModelSpec
from vaezoo.vae import VAE


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ladder-vae.

    Attributes:
        latents: Latent dimensions of each level, the top first. At least two levels.
        hidden: Sizes of the hidden layers of each network. Networks that go down have them in reverse order.
        activation: Activation of the hidden layers.
        inference: How q of a level below the top is made. `ladder` weights the evidence and the prior by their
            precisions. `networks` has a network of its own for each level.
        decoder_levels: The levels that the decoder sees: the `lowest`, as in the paper, or `all`.
        prior: The family of p(z) of the top level.
        objective: What training minimises.

    Raises:
        VaezooError: If there are fewer than two levels, or a size is not positive.
    """

    latents: Sizes = (8, 16)
    hidden: Sizes = (256, 256)
    activation: Activation = "leaky-relu"
    inference: Literal["ladder", "networks"] = "ladder"
    decoder_levels: Literal["lowest", "all"] = "lowest"
    prior: Annotated[object, PartOf("vaezoo.priors")] = StandardNormalPart()
    objective: Annotated[object, PartOf("vaezoo.objectives")] = ELBOPart()

    def __post_init__(self) -> None:
        require_positive("latents", *self.latents)
        require_positive("hidden", *self.hidden)
        if len(self.latents) < 2 or not self.hidden:
            option, least = ("latents", "two levels") if len(self.latents) < 2 else ("hidden", "one layer")
            raise VaezooError(f"option '{option}' has {len(getattr(self, option))} values", f"give at least {least}")


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


class LadderPosterior(NamedTuple):
    """q(z|x) = q(z_0|x) q(z_1|x, z_0) ...: the evidence of x, and the networks that go down from it.

    Attributes:
        evidence: What the bottom-up pass says about each level, the top first, `(B, sum(widths))`.
        head: Makes q of a level below the top.
        prior: Has the networks of p(z_i|z_{i-1}).
    """

    evidence: Tensor
    head: TopDown
    prior: LadderPrior

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


class LadderPrior(Prior):
    """p(z) = p(z_0) p(z_1|z_0) ...: any prior of the top level, and diagonal Gaussians below.

    Args:
        top: p(z_0).
        config: The options.
    """

    def __init__(self, top: Prior, config: Config) -> None:
        super().__init__()
        self.top = top
        self.sizes = config.latents
        self.networks = nn.ModuleList(
            nn.Sequential(*mlp_layers((above, *reversed(config.hidden), 2 * size), config.activation))
            for above, size in pairwise(config.latents)
        )
        self.inputs = top.inputs  # type: ignore[misc]  # that of the class is the default
        if top.noise_shape is not None:  # else this prior cannot be sampled, as the top cannot
            self.noise_shape = (math.prod(top.noise_shape) + sum(self.sizes[1:]),)

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
        if not isinstance(posterior, LadderPosterior):
            return super().kl_terms(posterior, z, *given)
        top, *lower = posterior.levels_at(z)
        terms = [self.top.kl_terms(top.q, top.z, *given)]
        return torch.cat([*terms, *(gaussian_kl(level.q, cast("DiagonalGaussian", level.p)) for level in lower)], 1)


def gaussian_kl(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    """Returns KL(q || p) of two diagonal Gaussians for each dimension, in nats."""
    # KL = (((mu_q - mu_p)^2 + sigma_q^2) / sigma_p^2 - 1 - log sigma_q^2 + log sigma_p^2) / 2.
    square = (q.mu - p.mu).square() * torch.exp(-p.logvar)
    return 0.5 * (square + torch.exp(q.logvar - p.logvar) - 1 - q.logvar + p.logvar)


class LadderVAE(VAE):
    """Levels of latents over dense networks.

    Args:
        config: The options.
        data: The data to model.

    Raises:
        VaezooError: If the prior or the objective does not fit.
        UnsupportedDataError: If the prior does not support the data.
    """

    def __init__(self, config: Config, data: DataSpec) -> None:
        prior, _ = check_parts(config)
        super().__init__(data, (sum(config.latents),))
        self.sizes = config.latents
        networks = (config.hidden, config.activation)
        self.head: TopDown
        if config.inference == "ladder":
            self.head = PrecisionWeighted(config.latents)
        else:
            self.head = SeparateNetworks(config.latents, *networks)
        self.encoder = BottomUp(math.prod(data.features_shape), self.head.widths, *networks)
        self.seen = sum(self.sizes) if config.decoder_levels == "all" else self.sizes[-1]
        sizes = (self.seen, *reversed(config.hidden), math.prod(data.params_shape))
        self.decoder = nn.Sequential(*mlp_layers(sizes, config.activation), nn.Unflatten(1, data.params_shape))
        self.prior = LadderPrior(prior.build(TopLevel(self)), config)

    def encode(self, x: Tensor) -> LadderPosterior:
        evidence = to_float32(self.encoder(self.data.features(x)))
        return LadderPosterior(evidence, self.head, cast("LadderPrior", self.prior))

    def decode(self, z: Tensor) -> Tensor:
        params: Tensor = self.decoder(z[:, -self.seen :])
        return params

    def init_from_data(self, train: Split) -> None:
        """Overridden: initialises the decoder's output bias, as GaussianVAE does."""
        init_output_bias(self.decoder, self.likelihood, train)


class TopLevel(VAE):
    """The top level of a ladder VAE as a VAE of its own. The part `prior` builds its prior for it.

    Args:
        ladder: The whole model.
    """

    def __init__(self, ladder: LadderVAE) -> None:
        super().__init__(ladder.data, ladder.sizes[:1])
        self.ladder = ladder

    def encode(self, x: Tensor) -> DiagonalGaussian:
        evidence = self.ladder.encoder(self.ladder.data.features(x))
        return DiagonalGaussian.from_raw(*evidence[:, : 2 * self.ladder.sizes[0]].chunk(2, 1))

    def decode(self, z: Tensor) -> Tensor:
        raise NotImplementedError


def check_parts(config: Config) -> tuple[PriorPart, ObjectivePart]:
    """Returns the parts of a config.

    Raises:
        VaezooError: If one of them does not fit the posterior of this model.
    """
    prior, objective = cast("PriorPart", config.prior), cast("ObjectivePart", config.objective)
    if prior.space != "real":
        raise VaezooError(
            f"the latents of ladder-vae are real numbers, but prior={prior.part} lies in the space '{prior.space}'",
            "use another prior, such as prior=normal",
        )
    if objective.needs_point:
        raise VaezooError(
            f"objective={objective.part} needs posterior=delta, not that of ladder-vae", "use another objective"
        )
    # Such an objective detaches q(z|x) from its encoder. Here part of it are the networks that go down.
    if objective.density == "everywhere":
        raise VaezooError(
            f"objective={objective.part} needs a posterior that is all output of the encoder, not that of ladder-vae",
            "use objective.gradient=plain, or another objective",
        )
    return prior, objective


def objective(config: Config, data: DataSpec) -> Objective:
    """Returns the chosen objective. Raises as `check_parts` does."""
    return check_parts(config)[1].build(data, (sum(config.latents),))


SPEC = ModelSpec(
    config=Config(),
    build=LadderVAE,
    objective=objective,
    summary="Two or more levels of latents, inferred from the top down, on dense layers",
    reference="Sonderby et al. 2016, arXiv 1602.02282",
)
