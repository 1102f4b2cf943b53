"""beta-TCVAE: the KL of the ELBO in three parts, of which the total correlation of the latents is penalised."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

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
from vaezoo.posteriors.gaussian import LOG_2PI, DiagonalGaussian
from vaezoo.vae import VAE


class AggregateTerms(NamedTuple):
    """Two of the three parts of the KL, in nats.

    Attributes:
        mutual_information: Between z and the number of the example, `()`.
        total_correlation: KL(q(z) || prod_j q(z_j)), `()`.
    """

    mutual_information: Tensor
    total_correlation: Tensor


class BetaTCVAE(Objective):
    """The KL in three parts, each with a weight (Chen et al. 2018, arXiv 1802.04942, equations 2 and 4).

    With q(z), the mean of q(z|x) over the N training examples,

        E_x KL(q(z|x) || p(z)) = mutual information + total correlation + dimension-wise KL
        mutual information     = E[log q(z|x) - log q(z)]
        total correlation      = E[log q(z) - sum_j log q(z_j)]
        dimension-wise KL      = E[sum_j log q(z_j) - log p(z)]

    The loss is reconstruction + alpha mutual information + beta total correlation + gamma dimension-wise KL. It is
    computed as reconstruction + gamma KL + (alpha - gamma) mutual information + (beta - gamma) total correlation. There
    the KL has its closed form, so with three equal weights nothing is estimated, and with weights 1 this is the ELBO.

    Args:
        alpha: Weight of the mutual information.
        beta: Weight of the total correlation.
        gamma: Weight of the dimension-wise KL.
    """

    def __init__(self, alpha: float, beta: float, gamma: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        if not alpha == beta == gamma == 1:
            self.monitor = "weighted_elbo"

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(vae.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        if not step.train_size:
            raise VaezooError(
                "objective=tc needs the number of training examples", "give StepContext a train_size, as Trainer does"
            )
        terms = elbo_terms(vae, batch)
        with torch.autocast(batch.x.device.type, enabled=False):
            posterior = require_diagonal(terms.posterior, "tc")
            mu, logvar, z = (distributed.global_batch(t.flatten(1)) for t in (*posterior, terms.z))
            require_pairs(len(z), "tc", training=self.training)
            information, correlation = aggregate_terms(DiagonalGaussian(mu, logvar), z, step.train_size)
        kl = kl_with_free_bits(terms.kl_terms, step.free_bits)
        loss = terms.reconstruction.mean() + step.kl_weight * self._weighted(kl, information, correlation)
        metrics = terms.metrics | {
            "mutual_information": information.detach(),
            "total_correlation": correlation.detach(),
            "dimension_wise_kl": terms.metrics["kl"] - (information + correlation).detach(),
        }
        if self.monitor != "elbo":
            weighted = self._weighted(metrics["kl"], information, correlation).detach()
            metrics["weighted_elbo"] = -(metrics["reconstruction"] + weighted)
        return LossOutput({"vae": terms.with_auxiliary(loss)}, metrics)

    def _weighted(self, kl: Tensor, information: Tensor, correlation: Tensor) -> Tensor:
        estimated = (self.alpha - self.gamma) * information + (self.beta - self.gamma) * correlation
        return self.gamma * kl + estimated


def aggregate_terms(posterior: DiagonalGaussian, z: Tensor, train_size: int) -> AggregateTerms:
    """Estimates mutual information and total correlation by minibatch stratified sampling (appendix C.2 of the paper).

    For z_i from q(z|x_i), q(z_i) is estimated without bias as

        q(z_i|x_i) / N + (N - 1) / (N (B - 1)) sum over the other j of q(z_i|x_j)

    where N is the size of the training set, and B that of the batch. The paper's equation gives one of the others
    another weight. This is its mean over the choice of that one. The same holds for each q(z_ij). With B = N it is
    exact. The logarithm of an estimate has a bias, which falls with the size of the batch.

    Args:
        posterior: q(z|x) of each example, with fields `(B, latents)`.
        z: A sample of each, `(B, latents)`.
        train_size: N. If B is 1 or larger than N, the batch counts as the training set.
    """
    mu, logvar = posterior
    # log q(z_ik|x_j) at [i, j, k].
    log_each = -0.5 * ((z.unsqueeze(1) - mu).square() * torch.exp(-logvar) + logvar + LOG_2PI)
    log_weights = stratified_log_weights(len(z), train_size, z.device)
    log_q_given_x = log_each.diagonal(dim1=0, dim2=1).sum(0)
    log_q = torch.logsumexp(log_each.sum(2) + log_weights, 1)
    log_marginals = torch.logsumexp(log_each + log_weights.unsqueeze(2), 1).sum(1)
    return AggregateTerms((log_q_given_x - log_q).mean(), (log_q - log_marginals).mean())


def stratified_log_weights(batch_size: int, train_size: int, device: torch.device | str = "cpu") -> Tensor:
    """Returns the logarithms of the weights that q(z_i|x_j) has in q(z_i), `(B, B)`. Each row of weights adds up to 1.

    Example i itself is on the diagonal.
    """
    n = batch_size if batch_size == 1 else max(batch_size, train_size)
    others = math.log((n - 1) / (n * (batch_size - 1))) if batch_size > 1 else 0.0
    own = torch.eye(batch_size, dtype=torch.bool, device=device)
    return torch.full((batch_size, batch_size), others, device=device).masked_fill(own, -math.log(n))


@dataclass(frozen=True, kw_only=True)
class BetaTCVAEPart(ObjectivePart):
    """The KL in three parts, each with a weight.

    Attributes:
        alpha: Weight of the mutual information of z and x.
        beta: Weight of the total correlation.
        gamma: Weight of the KL of each dimension.

    Raises:
        VaezooError: If a weight is negative.
    """

    part = "tc"
    formula = (
        r"\mathcal{L} = \mathbb{E}_{q(z \mid x)}[-\log p(x \mid z)] + \alpha\,I(x, z)"
        r" + \beta\,\mathrm{KL}\left(q(z) \,\|\, \prod_j q(z_j)\right)"
        r" + \gamma \sum_j \mathrm{KL}(q(z_j) \,\|\, p(z_j))"
    )
    needs_diagonal_gaussian = True
    alpha: float = 1.0
    beta: float = 6.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if min(self.alpha, self.beta, self.gamma) < 0:
            raise VaezooError(
                f"objective.alpha is {self.alpha}, objective.beta {self.beta} and objective.gamma {self.gamma}",
                "give all at least 0",
            )

    def build(self, data: DataSpec, latent_shape: Shape) -> BetaTCVAE:
        return BetaTCVAE(self.alpha, self.beta, self.gamma)
