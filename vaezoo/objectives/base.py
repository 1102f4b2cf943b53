"""Objective, the base class of what training minimises, with its inputs and outputs.

Units: every loss and metric of this library is in nats. It is summed over the dimensions of an example (all pixels, all
latents) and then averaged over the batch. Nothing is divided by the number of pixels, so beta = 1 is the true bound. A
KL weight from code that averages over pixels must be multiplied by their number to mean the same here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vaezoo.data.base import Batch, Split
from vaezoo.data.sampler import Sampler
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.posteriors.base import Density, Shape
from vaezoo.priors.base import PriorPart
from vaezoo.vae import VAE


class StepContext(NamedTuple):
    """The state of the training schedules at one step. Changing values are tensors, to avoid recompilation.

    Attributes:
        global_step: `()`, float: optimizer steps taken so far.
        kl_weight: `()`, in [0, 1]: factor of the KL warm-up.
        free_bits: Minimum KL of each part, in nats.
        train_size: Number of training examples, also where the objective is evaluated on others. 0: not known.
    """

    global_step: Tensor
    kl_weight: Tensor
    free_bits: float = 0.0
    train_size: int = 0

    @classmethod
    def initial(cls, device: torch.device | str = "cpu", train_size: int = 0) -> StepContext:
        """Returns the first step of a training without warm-up or free bits."""
        return cls(torch.zeros((), device=device), torch.ones((), device=device), train_size=train_size)


class LossOutput(NamedTuple):
    """Losses and metrics of one batch.

    Attributes:
        losses: Parameter group -> scalar to minimise over the parameters of that group alone. A group without a loss is
            not updated in this step.
        metrics: Name -> detached scalar. Always contains `elbo`, `reconstruction` and `kl`, in nats per example, with
            elbo = -(reconstruction + kl).
    """

    losses: Mapping[str, Tensor]
    metrics: Mapping[str, Tensor]


class ObjectivePart(ABC):
    """A choice of what training minimises, for composed models: a frozen dataclass of options that makes an Objective.

    Attributes:
        part: Its name, as in its entry point of the group `vaezoo.objectives`.
        formula: What it is in LaTeX, for the page of a model. Empty: none is shown.
        needs_diagonal_gaussian: Whether q(z|x) must be a DiagonalGaussian.
        permutes_latents: Whether latents of different examples are mixed, which must not leave the space of z.
        needs_point: Whether z must be a point, as of `posterior=delta`.
        needs_codes: Whether z must be codes of a quantizer.
        infers_labels: Whether the model must infer the label, as with `condition=inferred`.
    """

    part: ClassVar[str]
    formula: ClassVar[str] = ""
    needs_diagonal_gaussian: ClassVar[bool] = False
    permutes_latents: ClassVar[bool] = False
    needs_point: ClassVar[bool] = False
    needs_codes: ClassVar[bool] = False
    infers_labels: ClassVar[bool] = False

    @property
    def density(self) -> Density:
        """Where the objective needs log q(z|x); see `PosteriorPart`."""
        return "none"

    @abstractmethod
    def build(self, data: DataSpec, latent_shape: Shape) -> Objective:
        """Returns the objective for models of such data and latents."""


def check_batch_prior(prior: PriorPart, objective: ObjectivePart) -> None:
    """Raises VaezooError if an objective takes log p(z) at its draws, and training has a p(z) for each batch."""
    if prior.trains_on_batch and objective.density != "none":
        raise VaezooError(
            f"prior={prior.part} trains with a p(z) for each batch, which objective={objective.part} does not take",
            "use objective=elbo, or another prior",
        )


def check_no_codes(objective: ObjectivePart) -> None:
    """Raises VaezooError if an objective takes codes, for models whose latents are real numbers."""
    if objective.needs_codes:
        raise VaezooError(
            f"objective={objective.part} needs latents that are codes", "use objective=elbo, or vq-autoencoder"
        )


class Objective(nn.Module, ABC):
    """A training objective. It is a module, so that a discriminator it trains is saved with it.

    Attributes:
        monitor: The metric that selects the best checkpoint by its highest value on the validation split: what the
            objective maximises, such as `weighted_elbo` for a weighted KL. None where no metric is comparable between
            two steps of a training: the newest checkpoint is then the best.
        needs_labels: Whether all examples must have labels.
    """

    monitor: str | None = "elbo"
    needs_labels: bool = False

    def sampler(self, train: Split, seed: int) -> Sampler | None:
        """Returns what chooses the training batches. None: the examples in random order.

        Args:
            train: The training examples.
            seed: The run's seed.

        Raises:
            UnsupportedDataError: If the examples have no such batches.
            VaezooError: If an option does not fit the examples.
        """
        return None

    def prepare(self) -> None:
        """Reads what only training needs, such as files that the user names. Does nothing by default.

        Training calls it before the first step. A run is loaded without it, so it works where the files are not.

        Raises:
            InputError: If a file cannot be read, or is another one.
        """

    @abstractmethod
    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        """Returns disjoint groups that together hold every parameter of the VAE and of this module."""

    @abstractmethod
    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        """Returns losses and metrics of a batch, with samples z of the posterior for each example."""


def refuse_free_bits(step: StepContext, part: str) -> None:
    """Raises VaezooError if the training has free bits. They are defined for a KL that is part of the loss."""
    if step.free_bits > 0:
        raise VaezooError(f"objective={part} has no KL that free bits apply to", "leave out --free-bits")
