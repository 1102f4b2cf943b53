"""The evidence lower bound (ELBO): its terms for a batch, and the objective with a weighted KL or a KL capacity."""

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
    """The terms of the ELBO for a batch, with one sample z for each example.

    Attributes:
        z: The latents, `(B, *latent_shape)`.
        params: The decoder's output, `(B, *data.shape)`.
        reconstruction: -log p(x|z), `(B,)`, in nats.
        kl_terms: The parts of KL(q(z|x) || p(z)), `(B, parts)`, in nats.
    """

    z: Tensor
    params: Tensor
    reconstruction: Tensor
    kl_terms: Tensor

    @property
    def metrics(self) -> dict[str, Tensor]:
        """The three metrics that every objective reports: detached means over the batch."""
        reconstruction, kl = self.reconstruction.detach().mean(), self.kl_terms.detach().sum(1).mean()
        return {"elbo": -(reconstruction + kl), "reconstruction": reconstruction, "kl": kl}


def elbo_terms(vae: VAE, x: Tensor) -> ELBOTerms:
    """Encodes x, samples z, decodes it, and returns the terms of the ELBO for each example.

    The networks may run in bfloat16 (`torch.autocast`). z and all terms are float32 even then.
    """
    posterior = vae.encode(x)
    with torch.autocast(x.device.type, enabled=False):
        posterior = type(posterior)(*(to_float32(field) for field in posterior))  # type: ignore[attr-defined]
        z = posterior.rsample()
    params = to_float32(vae.decode(z))
    with torch.autocast(x.device.type, enabled=False):
        return ELBOTerms(z, params, -vae.likelihood.log_prob(params, x), vae.prior.kl_terms(posterior, z))


def kl_with_free_bits(kl_terms: Tensor, free_bits: float) -> Tensor:
    """Returns the mean KL of the batch, `()`, in nats, where each part counts as at least `free_bits` nats.

    Kingma et al. 2016, arXiv 1606.04934, equation 15: the sum over the parts j of max(free_bits, E_batch[KL_j]). The
    minimum applies to the mean of a part over the batch of all processes, not to each example.

    Args:
        kl_terms: `(B, parts)`.
        free_bits: Nats. A part below it has no gradient.
    """
    if free_bits > 0:
        return distributed.global_batch_mean(kl_terms).clamp(min=free_bits).sum()
    return kl_terms.mean(0).sum()


class ELBO(Objective):
    """The negative ELBO, with a KL weighted by beta (Higgins et al. 2017) or held at a capacity.

    Without a capacity the loss is reconstruction + beta KL. With a capacity C it is reconstruction + beta |KL - C(t)|.
    C(t) grows linearly from 0 to C over `capacity_steps` steps. This is equation 8 of Burgess et al. 2018, arXiv
    1804.03599, where beta is called gamma.

    Args:
        beta: Weight of the KL. 1 is the bound itself.
        capacity: C in nats, or None for the plain weighted form.
        capacity_steps: Steps until the capacity is reached.

    Raises:
        VaezooError: If a value is negative or `capacity_steps` is not positive.
    """

    def __init__(self, beta: float = 1.0, capacity: float | None = None, capacity_steps: int = 10_000) -> None:
        super().__init__()
        if beta < 0 or (capacity is not None and capacity < 0) or capacity_steps < 1:
            raise VaezooError(
                f"beta {beta}, capacity {capacity} or capacity_steps {capacity_steps} is out of range",
                "give beta and capacity at least 0 and capacity_steps at least 1",
            )
        self.beta = beta
        self.capacity = capacity
        self.capacity_steps = capacity_steps

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(vae.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        terms = elbo_terms(vae, batch.x)
        kl = kl_with_free_bits(terms.kl_terms, step.free_bits)
        if self.capacity is not None:
            # The absolute value is not linear, so the KL must be that of the whole batch, not of this process.
            kl = distributed.global_batch_mean(kl.unsqueeze(0))
            kl = (kl - self.capacity * (step.global_step / self.capacity_steps).clamp(max=1.0)).abs()
        loss = terms.reconstruction.mean() + self.beta * step.kl_weight * kl
        return LossOutput({"vae": loss}, terms.metrics)
