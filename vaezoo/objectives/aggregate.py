"""What objectives share that look at q(z), the mean of q(z|x) over the data."""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from vaezoo.core import distributed
from vaezoo.core.precision import to_float32
from vaezoo.data.base import Batch
from vaezoo.errors import VaezooError
from vaezoo.objectives.base import LossOutput, Objective, StepContext, refuse_free_bits
from vaezoo.objectives.elbo import elbo_terms, kl_with_free_bits
from vaezoo.posteriors.base import Posterior, map_tensors
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.vae import VAE, sample_prior


class PriorMatching(Objective):
    """Reconstruction, and a distance between samples of q(z) and of p(z).

    The loss is reconstruction + beta KL + weight D(q(z), p(z)). Gradients reach a learned prior through its samples.
    The metric `weighted_elbo` is the negative of the loss after the KL warm-up.

    Args:
        beta: Weight of the KL.
        weight: Weight of the distance.

    Attributes:
        part: The name of the objective, for errors.
        metric: The name of the distance among the metrics.
    """

    monitor = "weighted_elbo"
    part: ClassVar[str]
    metric: ClassVar[str]

    def __init__(self, beta: float, weight: float) -> None:
        super().__init__()
        self.beta = beta
        self.weight = weight

    @abstractmethod
    def distance(self, z: Tensor, prior_z: Tensor) -> Tensor:
        """Returns an estimate of D, `()`, from as many samples of q(z) as of p(z), `(B, latents)` each."""

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(vae.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        if self.beta == 0:
            refuse_free_bits(step, self.part)
        terms = elbo_terms(vae, batch)
        prior_z = sample_prior(vae, batch)
        with torch.autocast(batch.x.device.type, enabled=False):
            samples = [distributed.global_batch(to_float32(z).flatten(1)) for z in (terms.z, prior_z)]
            require_pairs(len(samples[0]), self.part, training=self.training)
            distance = self.distance(*samples)
        kl = kl_with_free_bits(terms.kl_terms, step.free_bits)
        loss = terms.reconstruction.mean() + self.beta * step.kl_weight * kl + self.weight * distance
        metrics = terms.metrics | {self.metric: distance.detach()}
        penalty = self.beta * metrics["kl"] + self.weight * metrics[self.metric]
        metrics["weighted_elbo"] = -(metrics["reconstruction"] + penalty)
        return LossOutput({"vae": terms.with_auxiliary(loss)}, metrics)


def require_pairs(n: int, part: str, *, training: bool) -> None:
    """Raises VaezooError if a training step has n < 2 examples. In evaluation the last batch may have one."""
    if training and n < 2:
        raise VaezooError(f"objective={part} needs two examples in a batch", "give a larger --batch-size")


def require_diagonal(posterior: Posterior, part: str) -> DiagonalGaussian:
    """Returns a posterior in float32. Raises VaezooError if it is not a diagonal Gaussian."""
    if not isinstance(posterior, DiagonalGaussian):
        raise VaezooError(
            f"objective={part} needs a diagonal Gaussian q(z|x), not a {type(posterior).__name__}",
            "use another objective",
        )
    return map_tensors(posterior, to_float32)


def latent_discriminator(latent_dim: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    """Returns a network of dense layers from latents `(B, ...)` to `(B, outputs)`.

    Args:
        latent_dim: Number of latents.
        hidden: Units of the hidden layers.
        layers: Number of hidden layers.
        outputs: Number of outputs.
    """
    sizes = (latent_dim, *[hidden] * layers)
    hidden_layers = [
        layer for size, next_size in pairwise(sizes) for layer in (nn.Linear(size, next_size), nn.LeakyReLU(0.2))
    ]
    return nn.Sequential(nn.Flatten(), *hidden_layers, nn.Linear(hidden, outputs))
