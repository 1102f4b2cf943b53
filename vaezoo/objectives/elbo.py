"""The ELBO: its terms for a batch, and the objective with a weighted KL or a KL capacity."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaezoo.core import distributed
from vaezoo.core.precision import to_float32
from vaezoo.data.base import Batch
from vaezoo.errors import VaezooError
from vaezoo.objectives.base import LossOutput, Objective, StepContext
from vaezoo.vae import VAE


class ELBOTerms(NamedTuple):
    """One pass through a VAE, z sampled.

    Attributes:
        z: The latents, `(B, *latent_shape)`.
        params: The decoder's output, `(B, *data.shape)`.
        reconstruction: -log p(x|z), `(B,)`, nats.
        kl_terms: The parts of KL(q(z|x) || p(z)), `(B, parts)`, nats.
    """

    z: Tensor
    params: Tensor
    reconstruction: Tensor
    kl_terms: Tensor

    @property
    def metrics(self) -> dict[str, Tensor]:
        """The three metrics that each objective reports, batch means, detached."""
        reconstruction, kl = self.reconstruction.detach().mean(), self.kl_terms.detach().sum(1).mean()
        return {"elbo": -(reconstruction + kl), "reconstruction": reconstruction, "kl": kl}


def elbo_terms(vae: VAE, x: Tensor) -> ELBOTerms:
    """Encodes x, draws z, decodes it, and returns the terms of the bound for each example.

    Where the caller runs the networks in bfloat16 (`torch.autocast`), z and all terms are float32 all the same.
    """
    posterior = vae.encode(x)
    with torch.autocast(x.device.type, enabled=False):
        posterior = type(posterior)(*(to_float32(field) for field in posterior))  # type: ignore[attr-defined]
        z = posterior.rsample()
    params = to_float32(vae.decode(z))
    with torch.autocast(x.device.type, enabled=False):
        return ELBOTerms(z, params, -vae.likelihood.log_prob(params, x), vae.prior.kl_terms(posterior, z))


def kl_with_free_bits(kl_terms: Tensor, free_bits: float) -> Tensor:
    """Returns the batch mean KL, `()`, each part of it counted as at least `free_bits` nats.

    The floor is laid under the batch mean of a part, not under each example's (Kingma et al. 2016, arXiv 1606.04934).
    The batch is that of all ranks.
    """
    if free_bits > 0:
        return distributed.global_batch_mean(kl_terms).clamp(min=free_bits).sum()
    return kl_terms.mean(0).sum()


class ELBO(Objective):
    """The negative evidence lower bound, its KL weighted by beta (Higgins et al. 2017) or held at a capacity.

    With a capacity C the KL's part of the loss is beta |KL - C(t)|, where C(t) grows linearly from 0 to C
    over `capacity_steps` steps (Burgess et al. 2018, arXiv 1804.03599, equation 8, whose gamma is beta here).

    Args:
        beta: Weight of the KL; 1 is the bound itself.
        capacity: C, in nats, or None for the plain weighted form.
        capacity_steps: Steps until the capacity is reached.

    Raises:
        VaezooError: If a value is negative or `capacity_steps` is not positive.
    """

    def __init__(self, beta: float = 1.0, capacity: float | None = None, capacity_steps: int = 10_000) -> None:
        super().__init__()
        if beta < 0 or (capacity is not None and capacity < 0) or capacity_steps < 1:
            raise VaezooError(
                f"beta {beta}, capacity {capacity}, capacity_steps {capacity_steps}: out of range",
                "give beta and capacity at least 0 and capacity_steps at least 1",
            )
        self.beta = beta
        self.capacity = capacity
        self.capacity_steps = capacity_steps

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(vae.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        result = elbo_terms(vae, batch.x)
        kl = kl_with_free_bits(result.kl_terms, step.free_bits)
        if self.capacity is not None:
            kl = distributed.global_batch_mean(kl.unsqueeze(0))  # the distance is that of the whole batch
            kl = (kl - self.capacity * (step.number / self.capacity_steps).clamp(max=1.0)).abs()
        loss = result.reconstruction.mean() + self.beta * step.kl_weight * kl
        return LossOutput({"vae": loss}, result.metrics)
