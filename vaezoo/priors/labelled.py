"""The prior of a label and of latents that do not depend on it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vaezoo.posteriors.base import Posterior
from vaezoo.posteriors.gaussian import LOG_2PI
from vaezoo.posteriors.labelled import LabelledGaussian
from vaezoo.priors.base import Prior


class LabelledNormal(Prior):
    """p(y) p(z): all labels are equally probable, and z is standard normal. z lies before the one-hot label.

    Args:
        latent_dim: Number of latents without the label.
        labels: Number of labels.
    """

    space = "reals and a label"

    def __init__(self, latent_dim: int, labels: int) -> None:
        super().__init__()
        self.noise_shape = (latent_dim,)
        self.labels = labels
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # not saved: it only holds the device
        self.zero: Tensor

    @property
    def sample_inputs(self) -> tuple[str, ...]:
        """Overridden: a sample has the label that is asked for. The density is that of any label."""
        return ("y",)

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        return torch.cat([noise, F.one_hot(given[0], self.labels).to(noise.dtype)], 1)

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        return -0.5 * (z[:, : -self.labels].square() + LOG_2PI).sum(1) - math.log(self.labels)

    def kl_terms(self, posterior: Posterior, z: Tensor, *given: Tensor) -> Tensor:
        """Overridden: the closed form, KL(q(y|x) || p(y)) and then E[KL(q(z|x, y) || p(z))] of each latent."""
        if not isinstance(posterior, LabelledGaussian):
            return super().kl_terms(posterior, z, *given)
        log_q = torch.log_softmax(posterior.logits, 1)
        q = log_q.exp()
        label = (q * log_q).sum(1, keepdim=True) + math.log(self.labels)
        return torch.cat([label, (q.unsqueeze(2) * self.latent_kl(posterior)).sum(1)], 1)

    def latent_kl(self, posterior: LabelledGaussian) -> Tensor:
        """Returns KL(q(z|x, y) || p(z)) of each label and latent, `(B, labels, latents)`, in nats."""
        return 0.5 * (posterior.mu.square() + posterior.logvar.exp() - 1 - posterior.logvar)
