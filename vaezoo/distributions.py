"""q(z|x) and p(z): posteriors and priors over latents."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vaezoo.errors import VaezooError

LOGVAR_BOUND = 10.0  # sigma stays between exp(-5) and exp(5): no float32 overflow, no dead gradient

LOG_2PI = math.log(2 * math.pi)


def full_precision(x: Tensor) -> Tensor:
    """Returns float16 and bfloat16 as float32, all else as it is: sums of nats are never taken in 8 bits."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


@runtime_checkable
class Posterior(Protocol):
    """q(z|x) for a batch: a NamedTuple of tensors, whose fields become the outputs of encoder.onnx."""

    def rsample(self) -> Tensor:
        """Draws z, `(B, *latent_shape)`, so that gradients reach the fields."""

    def log_prob(self, z: Tensor, /) -> Tensor:
        """Returns log q(z|x), `(B,)`, in nats; raises VaezooError where there is no density."""

    def mode(self) -> Tensor:
        """Returns the most probable z, `(B, *latent_shape)`: a deterministic code for x."""


class DiagonalGaussian(NamedTuple):
    """Independent normal latents.

    Attributes:
        mu: Means, `(B, *latent_shape)`.
        logvar: Logarithms of the variances, `(B, *latent_shape)`.
    """

    mu: Tensor
    logvar: Tensor

    @classmethod
    def bounded(cls, mu: Tensor, raw: Tensor) -> DiagonalGaussian:
        """Makes the posterior from a network's outputs, with logvar squashed softly into (-10, 10).

        Within -2..2 the squashing changes it by less than 0.03; far out the gradient grows small but does
        not vanish, as it would with a clamp.
        """
        return cls(full_precision(mu), LOGVAR_BOUND * torch.tanh(full_precision(raw) / LOGVAR_BOUND))

    def rsample(self) -> Tensor:
        return self.mu + torch.exp(0.5 * self.logvar) * torch.randn_like(self.mu)

    def log_prob(self, z: Tensor) -> Tensor:
        square = (z - self.mu).square() * torch.exp(-self.logvar)
        return -0.5 * (square + self.logvar + LOG_2PI).flatten(1).sum(1)

    def mode(self) -> Tensor:
        return self.mu


class Point(NamedTuple):
    """All on one latent: what a plain autoencoder's encoder gives.

    Attributes:
        z: The latents, `(B, *latent_shape)`.
    """

    z: Tensor

    def rsample(self) -> Tensor:
        return self.z

    def log_prob(self, z: Tensor) -> Tensor:
        raise VaezooError("the code of an autoencoder is a point, which has no density", "take a variational model")

    def mode(self) -> Tensor:
        return self.z


def active_units(codes: Tensor) -> int:
    """Returns how many latent dimensions depend on the data: those whose code varies by more than 0.01 over it.

    Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519, section 5.2.

    Args:
        codes: The posteriors' means, `(N, *latent_shape)`.
    """
    return int((codes.flatten(1).var(0, unbiased=False) > 0.01).sum())


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


class StandardNormal(Prior):
    """Independent latents of mean 0 and variance 1.

    Args:
        latent_shape: Shape of one latent.
    """

    def __init__(self, latent_shape: tuple[int, ...]) -> None:
        super().__init__()
        # Never saved: it only remembers shape and device.
        self.register_buffer("zero", torch.zeros(latent_shape), persistent=False)
        self.zero: Tensor

    def sample(self, n: int) -> Tensor:
        return torch.randn((n, *self.zero.shape), device=self.zero.device, dtype=self.zero.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z.square() + LOG_2PI).flatten(1).sum(1)

    def kl_terms(self, posterior: Posterior, z: Tensor) -> Tensor:
        """The closed form of Kingma and Welling 2014, appendix B, for a diagonal Gaussian posterior."""
        if not isinstance(posterior, DiagonalGaussian):
            return super().kl_terms(posterior, z)
        mu, logvar = posterior
        return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).flatten(1)
