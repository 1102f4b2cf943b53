"""What training minimises: Objective, its StepOutput, and the ELBO.

Units, for every loss and metric of this library: nats, summed over the dimensions of an example
(all pixels, all latents), then averaged over the batch. Nothing is divided by the number of pixels. So
beta = 1 is the true bound, and a KL weight from a code that averages over pixels has to be
multiplied by their number to mean the same here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vaezoo import ranks
from vaezoo.data.base import Batch
from vaezoo.distributions import full_precision
from vaezoo.errors import VaezooError
from vaezoo.vae import VAE


class Step(NamedTuple):
    """Where training stands. Values that change are tensors, so that a compiled step need not be remade.

    Attributes:
        number: `()`, float: optimizer steps taken so far.
        kl_weight: `()`, in [0, 1]: the KL warm-up's factor.
        free_bits: Nats of each part of the KL that cost nothing.
    """

    number: Tensor
    kl_weight: Tensor
    free_bits: float = 0.0

    @classmethod
    def plain(cls, device: torch.device | str = "cpu") -> Step:
        """Returns the first step of a training without warm-up or free bits."""
        return cls(torch.zeros((), device=device), torch.ones((), device=device))


class StepOutput(NamedTuple):
    """What one batch gives.

    Attributes:
        losses: Parameter group -> the scalar to minimise over that group's parameters alone. A group
            that is left out is not stepped.
        metrics: Name -> detached scalar. Always `elbo`, `reconstruction` and `kl`: nats an example, with
            elbo = -(reconstruction + kl).
    """

    losses: Mapping[str, Tensor]
    metrics: Mapping[str, Tensor]


class Objective(nn.Module, ABC):
    """A training objective. A module: what it trains besides the VAE (a discriminator) is saved with it.

    Attributes:
        monitor: The metric whose highest value on the validation part marks the best checkpoint; None
            where no metric ranks two moments of a training, so that the newest is the best.
    """

    monitor: ClassVar[str | None] = "elbo"

    @abstractmethod
    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        """Returns disjoint groups that together hold each parameter of the VAE and of this module."""

    @abstractmethod
    def forward(self, vae: VAE, batch: Batch, step: Step) -> StepOutput:
        """Returns losses and metrics for a batch, z drawn from the posterior once for each example."""


class Pass(NamedTuple):
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


def run_pass(vae: VAE, x: Tensor) -> Pass:
    """Encodes x, draws z, decodes it, and returns the terms of the bound for each example.

    Where the caller runs the networks in bfloat16 (`torch.autocast`), z and all terms are float32 all the same.
    """
    posterior = vae.encode(x)
    with torch.autocast(x.device.type, enabled=False):
        posterior = type(posterior)(*(full_precision(field) for field in posterior))  # type: ignore[attr-defined]
        z = posterior.rsample()
    params = full_precision(vae.decode(z))
    with torch.autocast(x.device.type, enabled=False):
        return Pass(z, params, -vae.likelihood.log_prob(params, x), vae.prior.kl_terms(posterior, z))


def free_kl(kl_terms: Tensor, free_bits: float) -> Tensor:
    """Returns the batch mean KL, `()`, each part of it counted as at least `free_bits` nats.

    The floor is laid under the batch mean of a part, not under each example's (Kingma et al. 2016, arXiv 1606.04934).
    The batch is that of all ranks.
    """
    if free_bits > 0:
        return ranks.batch_mean(kl_terms).clamp(min=free_bits).sum()
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

    def forward(self, vae: VAE, batch: Batch, step: Step) -> StepOutput:
        result = run_pass(vae, batch.x)
        kl = free_kl(result.kl_terms, step.free_bits)
        if self.capacity is not None:
            kl = ranks.batch_mean(kl.unsqueeze(0))  # the distance is that of the whole batch
            kl = (kl - self.capacity * (step.number / self.capacity_steps).clamp(max=1.0)).abs()
        loss = result.reconstruction.mean() + self.beta * step.kl_weight * kl
        return StepOutput({"vae": loss}, result.metrics)
