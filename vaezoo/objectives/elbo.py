"""The evidence lower bound (ELBO): its terms for a batch, and the objective with a weighted KL or a KL capacity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaezoo.core import distributed
from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.objectives.base import LossOutput, Objective, ObjectivePart, StepContext
from vaezoo.posteriors.base import Posterior, Shape, repeat
from vaezoo.vae import VAE, VAEOutput


class ELBOTerms(NamedTuple):
    """The terms of the ELBO for a batch, with K samples z for each example. The rows of an example lie side by side.

    Attributes:
        z: The latents, `(B K, *latent_shape)`.
        params: The decoder's output, `(B K, *data.params_shape)`.
        reconstruction: -log p(x|z), `(B K,)`, in nats.
        kl_terms: The parts of KL(q(z|x) || p(z)), `(B K, parts)`, in nats.
        auxiliary_loss: What training minimises besides the bound, `(B K,)`, or None; see `VAEOutput`.
        posterior: q(z|x), with K rows for each example.
    """

    z: Tensor
    params: Tensor
    reconstruction: Tensor
    kl_terms: Tensor
    auxiliary_loss: Tensor | None
    posterior: Posterior

    @property
    def metrics(self) -> dict[str, Tensor]:
        """The three metrics that every objective reports: detached means over the batch."""
        reconstruction, kl = self.reconstruction.detach().mean(), self.kl_terms.detach().sum(1).mean()
        metrics = {"elbo": -(reconstruction + kl), "reconstruction": reconstruction, "kl": kl}
        return metrics if self.auxiliary_loss is None else metrics | {"auxiliary": self.auxiliary_loss.detach().mean()}

    def with_auxiliary(self, loss: Tensor) -> Tensor:
        """Returns a loss `()` with the mean auxiliary loss added. An objective adds it once, outside beta."""
        return loss if self.auxiliary_loss is None else loss + self.auxiliary_loss.mean()


def elbo_terms(vae: VAE, batch: Batch, num_samples: int = 1, *, at_sample: bool = False) -> ELBOTerms:
    """Encodes a batch, samples z, decodes it, and returns the terms of the ELBO for each row.

    The networks may run in bfloat16 (`torch.autocast`). z and all terms are float32 even then.

    Args:
        vae: The model.
        batch: The examples.
        num_samples: K, the samples of z for each example.
        at_sample: As in `VAE.forward`.
    """
    posterior = vae.infer(batch)
    if num_samples > 1:
        posterior, batch = repeat(posterior, num_samples), repeat(batch, num_samples)
    return terms_of(vae, posterior, batch, at_sample=at_sample)


def terms_of(vae: VAE, posterior: Posterior, batch: Batch, *, at_sample: bool = False) -> ELBOTerms:
    """Samples z from a posterior, one for each row of a batch, and returns the terms of the ELBO; see `elbo_terms`."""
    output: VAEOutput = vae(posterior, batch, at_sample=at_sample)
    with torch.autocast(batch.x.device.type, enabled=False):
        reconstruction = -vae.likelihood.log_prob(output.params, batch.x)
    return ELBOTerms(output.z, output.params, reconstruction, output.kl_terms, output.auxiliary_loss, posterior)


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

    Unless the loss is the ELBO itself, the metric `weighted_elbo` is its negative after all warm-ups, and it selects
    the best checkpoint. The ELBO would select another one: with beta 8 it is highest where the KL is still large.

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
        if beta != 1 or capacity is not None:
            self.monitor = "weighted_elbo"

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(vae.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        terms = elbo_terms(vae, batch)
        kl = kl_with_free_bits(terms.kl_terms, step.free_bits)
        if self.capacity is not None:
            # The absolute value is not linear, so the KL must be that of the whole batch, not of this process.
            kl = distributed.global_batch_mean(kl.unsqueeze(0))
            kl = (kl - self.capacity * (step.global_step / self.capacity_steps).clamp(max=1.0)).abs()
        loss = terms.reconstruction.mean() + self.beta * step.kl_weight * kl
        return LossOutput({"vae": terms.with_auxiliary(loss)}, self._with_monitor(terms.metrics))

    def _with_monitor(self, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds the metric `weighted_elbo` where it differs from the ELBO."""
        if self.monitor == "elbo":
            return metrics
        kl = metrics["kl"] if self.capacity is None else (metrics["kl"] - self.capacity).abs()
        return {**metrics, "weighted_elbo": -(metrics["reconstruction"] + self.beta * kl)}


@dataclass(frozen=True, kw_only=True)
class ELBOPart(ObjectivePart):
    """The evidence lower bound, with a weighted KL or a KL capacity.

    Attributes:
        beta: Weight of the KL. 1 is the bound itself.
        capacity: KL in nats that training aims at in the end. None: no capacity.
        capacity_steps: Steps over which the capacity grows linearly from 0.
    """

    part = "elbo"
    formula = (
        r"\begin{align*} \mathcal{L} &= \mathbb{E}_{q(z \mid x)}[-\log p(x \mid z)]"
        r" + \beta\,\mathrm{KL} \quad\text{or, with a capacity } C, \\ \mathcal{L} &="
        r" \mathbb{E}_{q(z \mid x)}[-\log p(x \mid z)] + \beta\,|\mathrm{KL} - C(t)|, \qquad \mathrm{KL}"
        r" = \mathrm{KL}(q(z \mid x) \,\|\, p(z)) \end{align*}"
    )
    beta: float = 1.0
    capacity: float | None = None
    capacity_steps: int = 10_000

    def build(self, data: DataSpec, latent_shape: Shape) -> ELBO:
        return ELBO(self.beta, self.capacity, self.capacity_steps)
