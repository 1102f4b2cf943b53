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

from vaezoo.data.base import Batch
from vaezoo.vae import VAE


class StepContext(NamedTuple):
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
    def initial(cls, device: torch.device | str = "cpu") -> StepContext:
        """Returns the first step of a training without warm-up or free bits."""
        return cls(torch.zeros((), device=device), torch.ones((), device=device))


class LossOutput(NamedTuple):
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
    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        """Returns losses and metrics for a batch, z drawn from the posterior once for each example."""
