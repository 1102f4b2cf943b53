"""Prior, the base class of p(z), with its KL divergence from a posterior."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from vaezoo.posteriors.base import Posterior


class Prior(nn.Module, ABC):
    """p(z). It is a module because a prior may have parameters."""

    @abstractmethod
    def sample(self, n: int) -> Tensor:
        """Draws n latents, `(n, *latent_shape)`, on the prior's device."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Returns log p(z), `(B,)`, in nats."""

    def kl(self, posterior: Posterior, z: Tensor) -> Tensor:
        """Returns KL(q(z|x) || p(z)), `(B,)`, in nats: in closed form if there is one, else estimated at z."""
        return self.kl_terms(posterior, z).sum(1)

    def kl_terms(self, posterior: Posterior, z: Tensor) -> Tensor:
        """Returns the parts that add up to the KL, `(B, parts)`, in nats.

        By default there is one part, the estimate log q(z|x) - log p(z) at the sample z. Override this method where
        a closed form exists. Return one part for each latent dimension if both distributions factorize.

        Args:
            posterior: q(z|x) for B examples.
            z: A sample of it, `(B, *latent_shape)`.
        """
        return (posterior.log_prob(z) - self.log_prob(z)).unsqueeze(1)
