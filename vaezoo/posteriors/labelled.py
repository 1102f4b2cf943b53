"""The posterior of a label and of latents that depend on it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vaezoo.posteriors.gaussian import DiagonalGaussian


class LabelledGaussian(NamedTuple):
    """q(y, z|x) = q(y|x) q(z|x, y), with a diagonal Gaussian for each label.

    A draw is z with the one-hot label behind it, `(B, latents + labels)`. Densities of draws are those of z times the
    probability of y.

    Attributes:
        logits: Unnormalised log q(y|x), `(B, labels)`.
        mu: Means of q(z|x, y), `(B, labels, latents)`.
        logvar: Logarithms of the variances, of the same shape.
    """

    logits: Tensor
    mu: Tensor
    logvar: Tensor

    def rsample(self) -> Tensor:
        # The label with the largest logit + Gumbel noise. It has no gradient.
        uniform = torch.rand(self.logits.shape, device=self.logits.device, dtype=self.logits.dtype)
        y = (self.logits - torch.log(-torch.log(uniform))).argmax(1)
        return self._with_label(self.given(y).rsample(), y)

    def rsample_each(self) -> Tensor:
        """Draws z for every label, `(B labels, latents + labels)`. The rows of an example lie side by side.

        They have the same noise, so that it does not blur the difference between two labels.
        """
        noise = torch.randn(self.mu[:, :1].shape, device=self.mu.device, dtype=self.mu.dtype)
        z = (self.mu + torch.exp(0.5 * self.logvar) * noise).flatten(0, 1)
        return self._with_label(z, torch.arange(self.logits.shape[1], device=z.device).repeat(len(self.logits)))

    def log_prob(self, z: Tensor) -> Tensor:
        latents = self.mu.shape[2]
        y = z[:, latents:].argmax(1)
        log_q = torch.log_softmax(self.logits, 1).gather(1, y.unsqueeze(1)).squeeze(1)
        return log_q + self.given(y).log_prob(z[:, :latents])

    def mode(self) -> Tensor:
        """Returns the most probable label, and the mode of q(z|x, y) for it."""
        y = self.logits.argmax(1)
        return self._with_label(self.given(y).mu, y)

    def outputs(self) -> dict[str, Tensor]:
        """Returns the mode, q(y|x), and q(z|x, y) for the most probable label."""
        mu, logvar = self.given(self.logits.argmax(1))
        return {"mode": self.mode(), "class_probabilities": torch.softmax(self.logits, 1), "mu": mu, "logvar": logvar}

    def proposal(self) -> LabelledGaussian:
        """Returns what importance samples are drawn from: half of them have a label from q(y|x), half any label.

        A label that q(y|x) wrongly rules out would otherwise have no samples, and p(x) would lack its share.
        """
        labels = self.logits.shape[1]
        mixed = torch.logaddexp(torch.log_softmax(self.logits, 1), torch.full_like(self.logits, -math.log(labels)))
        return self._replace(logits=mixed)

    def given(self, y: Tensor) -> DiagonalGaussian:
        """Returns q(z|x, y) for labels `(B,)`."""
        index = y.view(-1, 1, 1).expand(-1, 1, self.mu.shape[2])
        return DiagonalGaussian(self.mu.gather(1, index).squeeze(1), self.logvar.gather(1, index).squeeze(1))

    def _with_label(self, z: Tensor, y: Tensor) -> Tensor:
        return torch.cat([z, F.one_hot(y, self.logits.shape[1]).to(z.dtype)], 1)
