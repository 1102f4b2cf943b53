"""The adversarial autoencoder: a discriminator tells samples of q(z) from samples of p(z)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.core.precision import to_float32
from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.objectives.aggregate import latent_discriminator
from vaezoo.objectives.base import LossOutput, Objective, ObjectivePart, StepContext, refuse_free_bits
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.posteriors.base import Shape
from vaezoo.vae import VAE, sample_prior


class Adversarial(Objective):
    """Makhzani et al. 2015, arXiv 1511.05644, section 2, with both phases in one step.

    The VAE minimises reconstruction - weight E_q log D(z), where D(z) is the probability that z comes from p(z). This
    is the non-saturating loss of Goodfellow et al. 2014. The discriminator minimises its classification loss, log 2 if
    it cannot tell the two apart. There is no KL in the loss.

    A learned prior has the same part in the game as the encoder: the loss then has -weight E_p log(1 - D(z)), too.

    Args:
        latent_dim: Number of latents.
        weight: Weight of the adversarial loss.
        hidden: Units of the discriminator's hidden layers.
        layers: Number of its hidden layers.
    """

    monitor = None  # the loss changes with the discriminator, so no metric is comparable between two steps

    def __init__(self, latent_dim: int, weight: float, hidden: int, layers: int) -> None:
        super().__init__()
        self.weight = weight
        self.discriminator = latent_discriminator(latent_dim, hidden, layers, 1)

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(vae.parameters()), "discriminator": list(self.discriminator.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        refuse_free_bits(step, "adversarial")
        terms = elbo_terms(vae, batch)
        prior_z = to_float32(sample_prior(vae, batch))
        # For a logit l, softplus(-l) is -log D and softplus(l) is -log(1 - D).
        adversarial = F.softplus(-self.logits(terms.z)).mean()
        if any(p.requires_grad for p in vae.prior.parameters()):
            adversarial = adversarial + F.softplus(self.logits(prior_z)).mean()
        real, fake = (self.logits(z.detach()) for z in (prior_z, terms.z))
        discriminator = 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
        loss = terms.reconstruction.mean() + self.weight * adversarial
        losses = {"vae": terms.with_auxiliary(loss), "discriminator": discriminator}
        extra = {"adversarial": adversarial.detach(), "discriminator": discriminator.detach()}
        return LossOutput(losses, terms.metrics | extra)

    def logits(self, z: Tensor) -> Tensor:
        """Returns the discriminator's logits that z come from p(z), `(B, 1)`, float32."""
        return to_float32(self.discriminator(z))


@dataclass(frozen=True, kw_only=True)
class AdversarialPart(ObjectivePart):
    """Reconstruction, and a discriminator that tells samples of q(z) from samples of p(z).

    Attributes:
        weight: Weight of the adversarial loss.
        hidden: Units of the discriminator's hidden layers. The paper uses 1000.
        layers: Number of the discriminator's hidden layers. The paper uses 2.

    Raises:
        VaezooError: If the weight is negative, or a size is not positive.
    """

    part = "adversarial"
    formula = (
        r"\begin{align*} \mathcal{L} &= \mathbb{E}_{q(z \mid x)}[-\log p(x \mid z)]"
        r" - w\,\mathbb{E}_{q(z)}[\log D(z)], \\ \mathcal{L}_D &= -\frac{1}{2}\,\mathbb{E}_{p(z)}[\log D(z)]"
        r" - \frac{1}{2}\,\mathbb{E}_{q(z)}[\log(1 - D(z))] \end{align*}"
    )
    weight: float = 3.0  # with 10, dense encoders of digits lost to the game: 174 nats of reconstruction instead of 116
    hidden: int = 256
    layers: int = 2

    def __post_init__(self) -> None:
        require_positive("objective.hidden", self.hidden)
        require_positive("objective.layers", self.layers)
        if self.weight < 0:
            raise VaezooError(f"objective.weight is {self.weight}", "give at least 0")

    def build(self, data: DataSpec, latent_shape: Shape) -> Adversarial:
        return Adversarial(math.prod(latent_shape), self.weight, self.hidden, self.layers)
