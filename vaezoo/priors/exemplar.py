"""The exemplar prior (Norouzi et al. 2020, arXiv 2004.04795): Gaussians around encoded training examples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.core.precision import to_float32
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.posteriors.base import Posterior, require_flat
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.priors.base import Prior, PriorPart
from vaezoo.priors.mixture import Components, Mixture, component_log_probs

if TYPE_CHECKING:
    from vaezoo.data.base import Split
    from vaezoo.vae import VAE


class ExemplarPrior(Mixture):
    """p(z) = 1/N sum_n N(z; mu(x_n), sigma^2 I): the encoder's means of N examples, and one variance.

    In training, the exemplars of an example are the others of its batch. These are the paper's leave-one-out, without
    which a model learns each training example by heart, and its exemplar subsampling: p(z) of a random subset of the
    remaining data. By Jensen's inequality, the mean of log p(z) over subsets is below log p(z) of all remaining data.
    So the loss stays a bound.

    In evaluation and sampling, the exemplars are N training examples, which the model keeps.

    Args:
        latent_dim: Number of latents.
        encode: The model's own `encode`. It is kept as a function, so its weights are not registered twice.
        exemplars: Room for the N examples, `(N, *data.shape)`.
    """

    def __init__(self, latent_dim: int, encode: Callable[[Tensor], Posterior], exemplars: Tensor) -> None:
        super().__init__(latent_dim)
        self.encode = encode
        self.logvar = nn.Parameter(torch.zeros(()))
        self.register_buffer("exemplars", exemplars)
        self.exemplars: Tensor

    def init_from_data(self, train: Split) -> None:
        """Overridden: keeps evenly spaced training examples, each of them several times if there are fewer than N."""
        found = train.subsample(len(self.exemplars))
        x = found.batch(torch.arange(len(self.exemplars), device=found.x.device) % len(found)).x
        self.exemplars.copy_(x)

    def components(self) -> Components:
        mu = to_float32(cast("DiagonalGaussian", self.encode(self.exemplars)).mu)
        n = len(mu)
        return Components(mu, self.logvar.expand_as(mu), mu.new_full((n,), -math.log(n)))

    def kl_terms(self, posterior: Posterior, z: Tensor, *given: Tensor) -> Tensor:
        """Overridden: in training, the components of a row are the means of the other rows.

        Raises:
            VaezooError: If there are no other rows.
        """
        if not self.training:
            return super().kl_terms(posterior, z, *given)
        mu = cast("DiagonalGaussian", posterior).mu
        n = mu.shape[0]
        if n < 2:
            raise VaezooError("prior=exemplar needs two examples in a batch", "give a larger --batch-size")
        log_r = component_log_probs(z, mu, self.logvar.expand_as(mu))
        log_r = log_r.masked_fill(torch.eye(n, dtype=torch.bool, device=z.device), -math.inf)
        log_p = torch.logsumexp(log_r, 1) - math.log(n - 1)
        return (posterior.log_prob(z) - log_p).unsqueeze(1)


@dataclass(frozen=True, kw_only=True)
class ExemplarPart(PriorPart):
    """A mixture of Gaussians around encoded training examples, which the model keeps.

    Attributes:
        exemplars: Number of training examples that evaluation and sampling use.

    Raises:
        VaezooError: If it is not positive.
    """

    part = "exemplar"
    formula = r"p(z) = \frac{1}{N} \sum_{n=1}^{N} \mathcal{N}(z; \mu(x_n), \sigma^2 I)"
    needs_diagonal_gaussian = True
    trains_on_batch = True
    exemplars: int = 1000

    def __post_init__(self) -> None:
        require_positive("prior.exemplars", self.exemplars)

    def build(self, vae: VAE) -> Prior:
        """Builds the prior. Raises UnsupportedDataError if the encoder is given labels."""
        if vae.encoder_inputs != ("x",):
            raise UnsupportedDataError("prior=exemplar has no labels for condition=labels", "use prior=mixture")
        latent_dim = require_flat("prior=exemplar", vae.latent_shape)
        room = torch.zeros(self.exemplars, *vae.data.shape, dtype=vae.data.make_kind().dtype)
        return ExemplarPrior(latent_dim, vae.encode, room)
