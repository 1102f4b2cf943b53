"""PriorKind and DensityKind, the base classes of the kinds of priors that `vaezoo.fit_prior` fits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from torch import Tensor

from vaezoo.errors import VaezooError
from vaezoo.posteriors.base import Posterior
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.priors.base import Prior

KindT = TypeVar("KindT", bound="DensityKind")


@dataclass(frozen=True, kw_only=True)
class PriorKind:
    """The options of a prior that is fitted after training.

    Attributes:
        kind: Its name.
        trained: Whether the Trainer fits it. If not, `DensityKind.fit` does.
        takes_posterior: Whether it takes the mean and the variance of q(z|x), and no draws.
        takes_codes: Whether z is a grid of codes. If not, it is a vector.
        standardises: Whether it is fitted to standardised codes. If not, its codes have the units of z.
    """

    kind: ClassVar[str]
    trained: ClassVar[bool] = False
    takes_posterior: ClassVar[bool] = False
    takes_codes: ClassVar[bool] = False
    standardises: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class DensityKind(PriorKind, ABC):
    """The options of a density of latent vectors."""

    @abstractmethod
    def build(self, latent_dim: int) -> Prior:
        """Returns the density before it is fitted."""

    def fit(self, codes: Tensor, seed: int, logvar: Tensor | None = None) -> Prior:
        """Returns the density of the codes. One that is trained has random weights.

        Args:
            codes: `(N, latents)`.
            seed: Seed of what is random.
            logvar: What `logvar` returned, in units of the codes, `(N, latents)`.
        """
        return self.build(codes.shape[1])

    def logvar(self, posterior: Posterior) -> Tensor | None:
        """Returns the log-variances around the modes of q(z|x), `(B, latents)`, if each example has its own."""
        return None

    def measured(self, densities: Sequence[Prior]) -> dict[str, float]:
        """Returns what was measured when densities, one for each label, were fitted: name -> value."""
        return {}

    def for_codes(self: KindT, n: int) -> KindT:
        """Returns the options for a number of codes. Raises VaezooError if there are too few."""
        return self


def posterior_logvar(posterior: Posterior, kind: str, hint: str) -> Tensor:
    """Returns the log-variances of q(z|x), `(B, latents)`. Raises VaezooError if it is no diagonal Gaussian."""
    if not isinstance(posterior, DiagonalGaussian):
        what = f"kind {kind} takes the variances of posterior=diagonal, which a {type(posterior).__name__} lacks"
        raise VaezooError(what, hint)
    return posterior.logvar
