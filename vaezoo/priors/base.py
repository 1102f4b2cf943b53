"""Prior: p(z) and its KL divergence from a posterior."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from vaezoo.posteriors.base import Posterior


class Prior(nn.Module, ABC):
    """p(z). A module, because a prior may be learned."""

    @abstractmethod
    def sample(self, n: int) -> Tensor:
        """Draws n latents, `(n, *latent_shape)`, on the prior's device."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Returns log p(z), `(B,)`, in nats."""

    def kl(self, posterior: Posterior, z: Tensor) -> Tensor:
        """Returns KL(q(z|x) || p(z)), `(B,)`, in nats: exact where a closed form exists, else from z."""
        return self.kl_terms(posterior, z).sum(1)

    def kl_terms(self, posterior: Posterior, z: Tensor) -> Tensor:
        """Returns the KL in the parts that add up to it, `(B, parts)`, in nats.

        Override it where a closed form exists: one part for each latent dimension if both distributions
        factorize. This general form has one part, the estimate log q(z|x) - log p(z) at the sample z.
        """
        return (posterior.log_prob(z) - self.log_prob(z)).unsqueeze(1)
