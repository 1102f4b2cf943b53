"""Ada-GVAE: pairs of examples that share some factors. The model is not told which, or how many."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from vaezoo.data.base import Batch, Split
from vaezoo.data.sampler import PairSampler, Sampler
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.objectives.aggregate import require_diagonal
from vaezoo.objectives.base import LossOutput, Objective, ObjectivePart, StepContext
from vaezoo.objectives.elbo import kl_with_free_bits, terms_of
from vaezoo.posteriors.base import Shape
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.vae import VAE


class AdaGVAE(Objective):
    """Locatello et al. 2020, arXiv 2002.02886, section 4, with the averages of the Group VAE.

    Rows 2i and 2i + 1 of a training batch are a pair; see `PairSampler`. Where the KL between the two posteriors of a
    latent is below a threshold, both examples get the same posterior. The loss is the weighted negative ELBO of both
    examples, equation 6 of the paper. Labels only choose the pairs.

    In evaluation there are no pairs. The metrics are then those of each example with its own posterior.

    Args:
        beta: Weight of the KL.
        changed_factors: In how many factors the examples of a pair may differ. None: a random number for each pair.
    """

    def __init__(self, beta: float = 1.0, changed_factors: int | None = None) -> None:
        super().__init__()
        self.beta = beta
        self.changed_factors = changed_factors
        if beta != 1:
            self.monitor = "weighted_elbo"

    def sampler(self, train: Split, seed: int) -> Sampler:
        """Overridden: returns pairs. Raises as PairSampler does."""
        return PairSampler(train, self.changed_factors, seed, "objective=ada")

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(vae.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        posterior = require_diagonal(vae.infer(batch), "ada")
        if self.training:
            if len(batch.x) % 2:
                raise VaezooError(f"objective=ada needs pairs, and a batch has {len(batch.x)} rows", "give whole pairs")
            with torch.autocast(batch.x.device.type, enabled=False):
                posterior = share_latents(posterior)
        terms = terms_of(vae, posterior, batch)
        kl = kl_with_free_bits(terms.kl_terms, step.free_bits)
        loss = terms.reconstruction.mean() + self.beta * step.kl_weight * kl
        metrics = terms.metrics
        if self.beta != 1:
            metrics["weighted_elbo"] = -(metrics["reconstruction"] + self.beta * metrics["kl"])
        return LossOutput({"vae": terms.with_auxiliary(loss)}, metrics)


def share_latents(posterior: DiagonalGaussian) -> DiagonalGaussian:
    """Returns the posteriors of pairs, in which the examples of a pair have the same posterior of shared latents.

    Latent j is shared where d_j = KL(q(z_j|x1) || q(z_j|x2)) is below (max d + min d) / 2 (section 4 of the paper).
    Both examples then get the mean of both means and the mean of both variances (GVAE, Hosoya 2019).

    Args:
        posterior: q(z|x), `(B, *latent_shape)`. Rows 2i and 2i + 1 are a pair.
    """
    mu, logvar = (values.view(-1, 2, *values.shape[1:]) for values in posterior)  # (B / 2, 2, *latent_shape)
    log_ratio = logvar[:, 0] - logvar[:, 1]
    distance = (mu[:, 0] - mu[:, 1]).square() * torch.exp(-logvar[:, 1])
    kl = 0.5 * (distance + log_ratio.exp() - 1 - log_ratio)
    latents = tuple(range(1, kl.ndim))
    is_shared = (kl < 0.5 * (kl.amax(latents, keepdim=True) + kl.amin(latents, keepdim=True))).unsqueeze(1)
    mean_logvar = torch.logsumexp(logvar, 1, keepdim=True) - math.log(2)
    means = ((mu, mu.mean(1, keepdim=True)), (logvar, mean_logvar))
    return DiagonalGaussian(*(torch.where(is_shared, mean, own).flatten(0, 1) for own, mean in means))


@dataclass(frozen=True, kw_only=True)
class AdaGVAEPart(ObjectivePart):
    """The ELBO of pairs of examples that share some factors of variation.

    Attributes:
        beta: Weight of the KL.
        changed_factors: In how many factors the examples of a pair may differ. None: a random number for each pair.

    Raises:
        VaezooError: If a number is out of range.
    """

    part = "ada"
    formula = (
        r"\begin{align*} \mathcal{L} &= \frac{1}{2} \sum_{i=1}^{2}"
        r" \mathbb{E}_{\tilde q(z \mid x_i)}[-\log p(x_i \mid z)]"
        r" + \beta\,\mathrm{KL}(\tilde q(z \mid x_i) \,\|\, p(z)), \\ \tilde q(z_j \mid x_1) &="
        r" \tilde q(z_j \mid x_2)"
        r" \;\text{ where }\; \mathrm{KL}(q(z_j \mid x_1) \,\|\, q(z_j \mid x_2)) < \tau \end{align*}"
    )
    needs_diagonal_gaussian = True
    beta: float = 1.0
    changed_factors: int | None = None

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise VaezooError(f"objective.beta is {self.beta}", "give at least 0")
        if self.changed_factors is not None and self.changed_factors < 1:
            raise VaezooError(f"objective.changed_factors is {self.changed_factors}", "give at least 1")

    def build(self, data: DataSpec, latent_shape: Shape) -> AdaGVAE:
        return AdaGVAE(self.beta, self.changed_factors)
