"""Mixtures of diagonal Gaussians: with learned components, and VampPrior, whose components are posteriors."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.core.precision import to_float32
from vaezoo.errors import UnsupportedDataError
from vaezoo.posteriors.base import Posterior, require_flat
from vaezoo.posteriors.gaussian import LOG_2PI, DiagonalGaussian
from vaezoo.priors.base import Prior, PriorPart

if TYPE_CHECKING:
    from vaezoo.vae import VAE


def normal_cdf(noise: Tensor) -> Tensor:
    """Returns the standard normal distribution function: uniform numbers for noise."""
    return 0.5 * (1 + torch.erf(noise / math.sqrt(2)))


def choose_component(noise: Tensor, log_weights: Tensor) -> Tensor:
    """Returns the components that noise chooses, `(B,)`, int64.

    Args:
        noise: Standard normal, `(B, 1)`.
        log_weights: Logarithms of the weights, up to a constant, `(K,)`.
    """
    bounds = torch.softmax(log_weights, 0).cumsum(0)[:-1]
    return (normal_cdf(noise) > bounds).sum(1)


class Components(NamedTuple):
    """The components of a mixture.

    Attributes:
        mu: Means, `(K, latents)`.
        logvar: Log-variances, `(K, latents)`.
        log_weights: Logarithms of the weights, `(K,)`.
    """

    mu: Tensor
    logvar: Tensor
    log_weights: Tensor


class Mixture(Prior):
    """A mixture of diagonal Gaussians. A subclass says where the components come from.

    The first number of the noise chooses the component. The others become z within it.

    Args:
        latent_dim: Number of latents.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.noise_shape = (latent_dim + 1,)

    @abstractmethod
    def components(self) -> Components:
        """Returns the components."""

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        mu, logvar, log_weights = self.components()
        return torch.logsumexp(component_log_probs(z, mu, logvar) + log_weights, 1)

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        mu, logvar, log_weights = self.components()
        chosen = choose_component(noise[:, :1], log_weights)
        return mu[chosen] + torch.exp(0.5 * logvar[chosen]) * noise[:, 1:]


def component_log_probs(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """Returns log N(z; mu_k, sigma_k^2) of all pairs, `(B, K)`, for means and log-variances `(K, latents)`."""
    # |z - mu|^2 / sigma^2 as matrix products. A tensor `(B, K, latents)` would be large.
    precision = torch.exp(-logvar)
    square = z.square() @ precision.T - 2 * z @ (mu * precision).T + (mu.square() * precision).sum(1)
    return -0.5 * (square + (logvar + LOG_2PI).sum(1))


class LearnedMixture(Mixture):
    """A mixture whose means, variances and weights are parameters.

    Args:
        latent_dim: Number of latents.
        components: Number of components.
    """

    def __init__(self, latent_dim: int, components: int) -> None:
        super().__init__(latent_dim)
        self.mu = nn.Parameter(torch.randn(components, latent_dim))
        self.logvar = nn.Parameter(torch.zeros(components, latent_dim))
        self.weight_logits = nn.Parameter(torch.zeros(components))

    def components(self) -> Components:
        return Components(self.mu, self.logvar, torch.log_softmax(self.weight_logits, 0))


class VampPrior(Mixture):
    """The mixture of the posteriors of learned pseudo-inputs (Tomczak and Welling 2018, arXiv 1705.07120, equation 9).

    Args:
        latent_dim: Number of latents.
        encode: The model's own `encode`. It is kept as a function, so its weights are not registered twice.
        pseudo_inputs: Initial pseudo-inputs before `activation`, `(K, *data.shape)`.
        activation: Maps them to data.
    """

    def __init__(
        self,
        latent_dim: int,
        encode: Callable[[Tensor], Posterior],
        pseudo_inputs: Tensor,
        activation: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__(latent_dim)
        self.encode = encode
        self.activation = activation
        self.pseudo_inputs = nn.Parameter(pseudo_inputs)

    def components(self) -> Components:
        posterior = self.encode(self.activation(self.pseudo_inputs))
        mu, logvar = (to_float32(field) for field in cast("DiagonalGaussian", posterior))
        n = len(self.pseudo_inputs)
        return Components(mu, logvar, mu.new_full((n,), -math.log(n)))


def identity(x: Tensor) -> Tensor:
    """Returns its argument."""
    return x


@dataclass(frozen=True, kw_only=True)
class MixturePart(PriorPart):
    """A mixture of Gaussians with learned means, variances and weights.

    Attributes:
        components: Number of components.

    Raises:
        VaezooError: If it is not positive.
    """

    part = "mixture"
    formula = r"p(z) = \sum_{k=1}^{K} \pi_k\,\mathcal{N}(z; \mu_k, \mathrm{diag}\,\sigma_k^2)"
    components: int = 50

    def __post_init__(self) -> None:
        require_positive("prior.components", self.components)

    def build(self, vae: VAE) -> Prior:
        return LearnedMixture(require_flat("prior=mixture", vae.latent_shape), self.components)


@dataclass(frozen=True, kw_only=True)
class VampPart(PriorPart):
    """VampPrior: the mixture of the posteriors of learned pseudo-inputs.

    Attributes:
        components: Number of pseudo-inputs.

    Raises:
        VaezooError: If it is not positive.
    """

    part = "vamp"
    formula = r"p(z) = \frac{1}{K} \sum_{k=1}^{K} q(z \mid u_k), \qquad u_k \text{ learned}"
    needs_diagonal_gaussian = True
    components: int = 500

    def __post_init__(self) -> None:
        require_positive("prior.components", self.components)

    def build(self, vae: VAE) -> Prior:
        """Builds the prior.

        Raises:
            UnsupportedDataError: If pseudo-inputs of such data cannot be learned, or the encoder is given labels.
        """
        if vae.data.kind not in ("unit", "real"):
            raise UnsupportedDataError(
                f"prior=vamp learns pseudo-inputs, which data of kind {vae.data.kind} do not have", "use prior=mixture"
            )
        if vae.encoder_inputs != ("x",):
            raise UnsupportedDataError("prior=vamp has no labels for condition=labels", "use prior=mixture")
        latent_dim = require_flat("prior=vamp", vae.latent_shape)
        activation = torch.sigmoid if vae.data.kind == "unit" else identity
        return VampPrior(latent_dim, vae.encode, torch.randn(self.components, *vae.data.shape), activation)
