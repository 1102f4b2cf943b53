"""FactorVAE: the ELBO with a penalty on the total correlation of the latents, which a discriminator estimates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.core.precision import to_float32
from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.objectives.aggregate import latent_discriminator
from vaezoo.objectives.base import LossOutput, Objective, ObjectivePart, StepContext
from vaezoo.objectives.elbo import elbo_terms, kl_with_free_bits
from vaezoo.posteriors.base import Shape
from vaezoo.vae import VAE


class FactorVAE(Objective):
    """Algorithm 2 of Kim and Mnih 2018, arXiv 1802.05983.

    The first half of a batch trains the VAE. The second half gives the latents whose dimensions are permuted over the
    examples, so that they are independent. The discriminator tells the two apart, and its log-odds estimate the total
    correlation (equation 3). In evaluation the whole batch is both halves.

    Args:
        latent_dim: Number of latents.
        gamma: Weight of the total correlation.
        hidden: Units of the discriminator's hidden layers.
        layers: Number of its hidden layers.
        beta: Weight of the KL. The paper has 1.
    """

    def __init__(self, latent_dim: int, gamma: float, hidden: int, layers: int, beta: float = 1.0) -> None:
        super().__init__()
        self.gamma = gamma
        self.beta = beta
        if beta != 1:
            self.monitor = "weighted_elbo"
        self.discriminator = latent_discriminator(latent_dim, hidden, layers, 2)

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(vae.parameters()), "discriminator": list(self.discriminator.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        first, second = halves(batch) if self.training else (batch, batch)
        terms = elbo_terms(vae, first)
        # D(z) is the probability that z comes from q(z). E log D(z) / (1 - D(z)) is the total correlation.
        logits = to_float32(self.discriminator(terms.z))
        total_correlation = (logits[:, 0] - logits[:, 1]).mean()
        kl = kl_with_free_bits(terms.kl_terms, step.free_bits)
        loss = terms.reconstruction.mean() + self.beta * step.kl_weight * kl + self.gamma * total_correlation
        with torch.no_grad():
            permuted = permute_dims(elbo_latents(vae, second))
        real, fake = (to_float32(self.discriminator(z)) for z in (terms.z.detach(), permuted))
        # The mean of -log D(z) and -log (1 - D(z')). Class 0 is a latent of q(z), class 1 a permuted one.
        zeros, ones = (torch.full((len(z),), i, device=z.device) for i, z in enumerate((real, fake)))
        discriminator_loss = 0.5 * (F.cross_entropy(real, zeros) + F.cross_entropy(fake, ones))
        losses = {"vae": terms.with_auxiliary(loss), "discriminator": discriminator_loss}
        extra = {"total_correlation": total_correlation.detach(), "discriminator": discriminator_loss.detach()}
        metrics = terms.metrics
        if self.beta != 1:
            metrics["weighted_elbo"] = -(metrics["reconstruction"] + self.beta * metrics["kl"])
        return LossOutput(losses, metrics | extra)


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Returns the two halves of a batch. Raises VaezooError if it has fewer than two examples."""
    n = len(batch.x) // 2
    if not n:
        raise VaezooError("objective=factor needs two examples in a batch", "give a larger --batch-size")
    parts = [[None, None] if t is None else [t[:n], t[n:]] for t in batch]
    (x1, x2), (y1, y2) = parts
    assert x1 is not None and x2 is not None
    return Batch(x1, y1), Batch(x2, y2)


def elbo_latents(vae: VAE, batch: Batch) -> Tensor:
    """Draws z from q(z|x) for each example, float32."""
    return to_float32(vae.infer(batch).rsample())


def permute_dims(z: Tensor) -> Tensor:
    """Permutes each latent dimension over the examples, independently of the others (algorithm 1 of the paper)."""
    order = torch.rand(z.shape, device=z.device).argsort(0)
    return z.gather(0, order)


@dataclass(frozen=True, kw_only=True)
class FactorVAEPart(ObjectivePart):
    """FactorVAE: the ELBO with a penalty on the total correlation of the latents.

    Attributes:
        gamma: Weight of the total correlation.
        hidden: Units of the discriminator's hidden layers. The paper uses 1000.
        layers: Number of the discriminator's hidden layers. The paper uses 6.
        beta: Weight of the KL. The paper has 1.

    Raises:
        VaezooError: If gamma or beta is negative, or a size is not positive.
    """

    part = "factor"
    formula = (
        r"\mathcal{L} = \mathbb{E}_{q(z \mid x)}[-\log p(x \mid z)] + \beta\,\mathrm{KL}(q(z \mid x) \,\|\, p(z))"
        r" + \gamma\,\mathrm{KL}\left(q(z) \,\|\, \prod_j q(z_j)\right)"
    )
    permutes_latents = True
    gamma: float = 10.0
    hidden: int = 256
    layers: int = 3
    beta: float = 1.0

    def __post_init__(self) -> None:
        require_positive("objective.hidden", self.hidden)
        require_positive("objective.layers", self.layers)
        if self.gamma < 0 or self.beta < 0:
            raise VaezooError(f"objective.gamma is {self.gamma} and objective.beta {self.beta}", "give both at least 0")

    def build(self, data: DataSpec, latent_shape: Shape) -> FactorVAE:
        return FactorVAE(math.prod(latent_shape), self.gamma, self.hidden, self.layers, self.beta)
