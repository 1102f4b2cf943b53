"""DIP-VAE: the ELBO with a penalty on the covariance of the latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vaezoo.core import distributed
from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.objectives.aggregate import require_diagonal, require_pairs
from vaezoo.objectives.base import LossOutput, Objective, ObjectivePart, StepContext
from vaezoo.objectives.elbo import elbo_terms, kl_with_free_bits
from vaezoo.posteriors.base import Shape
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.vae import VAE

Kind = Literal["i", "ii"]


class DIPVAE(Objective):
    """The ELBO and the distance of a covariance from the identity (Kumar et al. 2018, arXiv 1711.00848).

    The penalty is lambda_od sum_{i != j} C_ij^2 + lambda_d sum_i (C_ii - 1)^2. In kind `i` (equation 6), C is the
    covariance of the means of q(z|x) over the batch. In kind `ii` (equation 7), it is the covariance of z itself, which
    is larger by the mean variance of q(z|x).

    Args:
        kind: Which covariance.
        lambda_od: Weight of the entries off the diagonal.
        lambda_d: Weight of the diagonal.
        beta: Weight of the KL. The paper has 1.
    """

    monitor = "weighted_elbo"

    def __init__(self, kind: Kind, lambda_od: float, lambda_d: float, beta: float = 1.0) -> None:
        super().__init__()
        self.kind = kind
        self.lambda_od = lambda_od
        self.lambda_d = lambda_d
        self.beta = beta

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(vae.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        terms = elbo_terms(vae, batch)
        with torch.autocast(batch.x.device.type, enabled=False):
            posterior = require_diagonal(terms.posterior, "dip")
            require_pairs(len(posterior.mu) * distributed.world_size(), "dip", training=self.training)
            covariance = latent_covariance(posterior, self.kind)
            diagonal = covariance.diagonal()
            off_diagonal = covariance.square().sum() - diagonal.square().sum()
            penalty = self.lambda_od * off_diagonal + self.lambda_d * (diagonal - 1).square().sum()
        kl = kl_with_free_bits(terms.kl_terms, step.free_bits)
        loss = terms.reconstruction.mean() + self.beta * step.kl_weight * kl + penalty
        metrics = terms.metrics | {"covariance_penalty": penalty.detach()}
        weighted = metrics["reconstruction"] + self.beta * metrics["kl"] + metrics["covariance_penalty"]
        return LossOutput({"vae": terms.with_auxiliary(loss)}, metrics | {"weighted_elbo": -weighted})


def latent_covariance(posterior: DiagonalGaussian, kind: Kind) -> Tensor:
    """Returns the covariance of the means of q(z|x), or of z, over the batch of all processes, `(latents, latents)`."""
    mu, logvar = (t.flatten(1) for t in posterior)
    # The gradient through the mean is 0, because the centred values add up to 0 over all processes.
    centred = mu - distributed.global_batch_mean(mu).detach()
    covariance = distributed.global_batch_mean(centred.unsqueeze(2) * centred.unsqueeze(1))
    if kind == "i":
        return covariance
    return covariance + torch.diag(distributed.global_batch_mean(logvar.exp()))


@dataclass(frozen=True, kw_only=True)
class DIPVAEPart(ObjectivePart):
    """The ELBO with a penalty on the covariance of the latents.

    Attributes:
        kind: The covariance of the means of q(z|x) (i), or that of z (ii).
        lambda_od: Weight of the squared covariances.
        lambda_d: Weight of the squared distances of the variances from 1. The paper has 10 lambda_od for kind i, and
            lambda_od for kind ii.
        beta: Weight of the KL. The paper has 1.

    Raises:
        VaezooError: If a weight is negative.
    """

    part = "dip"
    formula = (
        r"\mathcal{L} = \mathbb{E}_{q(z \mid x)}[-\log p(x \mid z)] + \beta\,\mathrm{KL}(q(z \mid x) \,\|\, p(z))"
        r" + \lambda_{od} \sum_{i \neq j} C_{ij}^2 + \lambda_d \sum_i (C_{ii} - 1)^2"
    )
    needs_diagonal_gaussian = True
    kind: Kind = "i"
    lambda_od: float = 10.0
    lambda_d: float = 100.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        if min(self.lambda_od, self.lambda_d, self.beta) < 0:
            raise VaezooError(
                f"objective.lambda_od is {self.lambda_od}, objective.lambda_d {self.lambda_d} and "
                f"objective.beta {self.beta}",
                "give all at least 0",
            )

    def build(self, data: DataSpec, latent_shape: Shape) -> DIPVAE:
        return DIPVAE(self.kind, self.lambda_od, self.lambda_d, self.beta)
