"""The kinds of priors that `vaezoo.fit_prior` fits to the codes of a trained model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vaezoo.core.dependencies import eval_dependencies
from vaezoo.core.options import check_types, configure, require_positive
from vaezoo.core.seed import derive_seed
from vaezoo.errors import VaezooError, VaezooWarning, safe_repr, suggest
from vaezoo.posteriors.base import Posterior
from vaezoo.priors.base import Prior
from vaezoo.priors.codes import CodeTransformer
from vaezoo.priors.densities import FullMixture, KernelDensity, PosteriorMixture, SecondStage
from vaezoo.priors.density_kind import DensityKind, PriorKind, posterior_logvar
from vaezoo.priors.mixture import LearnedMixture
from vaezoo.priors.realnvp import RealNVP
from vaezoo.priors.riemannian_kind import RiemannianKind
from vaezoo.transformer import require_heads

# Added to the variances of a mixture of standardised codes, so that a component on a few codes keeps a width of 0.01.
MIN_VARIANCE = 1e-4
EM_STEPS = 200
SCALES = torch.logspace(-1.5, 0.5, 21)  # bandwidths that are tried, as multiples of Scott's rule
KERNELS_AT_ONCE = 1024  # rows of the matrix of distances


@dataclass(frozen=True, kw_only=True)
class GMMKind(DensityKind):
    """A mixture of Gaussians, fitted by expectation maximisation with scikit-learn (extra `eval`).

    Attributes:
        components: Number of Gaussians.
        covariance: full, or diagonal.

    Raises:
        VaezooError: If a value is out of range.
    """

    kind = "gmm"
    components: int = 10
    covariance: Literal["full", "diagonal"] = "full"

    def __post_init__(self) -> None:
        check_types(self)
        require_positive("components", self.components)

    def for_codes(self, n: int) -> GMMKind:
        """Overridden: each Gaussian needs two codes."""
        if n < 2 * self.components:
            what = f"{self.components} components are too many for {n} codes"
            raise VaezooError(what, f"give components at most {n // 2}" if n > 1 else "give more data")
        return self

    def build(self, latent_dim: int) -> FullMixture | LearnedMixture:
        mixture = FullMixture if self.covariance == "full" else LearnedMixture
        return mixture(latent_dim, self.components)

    @torch.no_grad()
    def fit(self, codes: Tensor, seed: int, logvar: Tensor | None = None) -> Prior:
        """Overridden: one run of expectation maximisation from k-means."""
        with eval_dependencies("kind gmm"):
            from sklearn.exceptions import ConvergenceWarning
            from sklearn.mixture import GaussianMixture
        fitted = GaussianMixture(
            self.components,
            covariance_type="full" if self.covariance == "full" else "diag",
            reg_covar=MIN_VARIANCE,
            max_iter=EM_STEPS,
            random_state=derive_seed(seed, "weights") % 2**32,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted.fit(codes.double().numpy())
        if not fitted.converged_:
            what = f"the mixture still changed after {EM_STEPS} steps of expectation maximisation"
            warnings.warn(what, VaezooWarning, stacklevel=2)
        density = self.build(codes.shape[1])
        density.mu.copy_(torch.from_numpy(fitted.means_))
        density.weight_logits.copy_(torch.from_numpy(np.log(fitted.weights_)))
        covariances = torch.from_numpy(fitted.covariances_)
        if isinstance(density, FullMixture):
            density.scale_tril.copy_(torch.linalg.cholesky(covariances))
        else:
            density.logvar.copy_(covariances.log())
        return density


@dataclass(frozen=True, kw_only=True)
class KDEKind(DensityKind):
    """A Gaussian kernel around each of some codes.

    Attributes:
        kernels: Largest number of codes that are kept, drawn at random.
        bandwidth: Standard deviation of a kernel, in units of the codes' standard deviation. none: the one under which
            each kept code is most probable given the others.

    Raises:
        VaezooError: If a value is out of range.
    """

    kind = "kde"
    kernels: int = 2000
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        check_types(self)
        require_positive("kernels", self.kernels)
        if self.bandwidth is not None and not self.bandwidth > 0:
            raise VaezooError(f"option 'bandwidth' is {self.bandwidth}", "give 'bandwidth' above 0")

    def for_codes(self, n: int) -> KDEKind:
        """Overridden: there are at most as many kernels as codes."""
        if n < 2:
            raise VaezooError("one code has no density", "give more data")
        return replace(self, kernels=min(self.kernels, n))

    def build(self, latent_dim: int) -> KernelDensity:
        return KernelDensity(latent_dim, self.kernels)

    def fit(self, codes: Tensor, seed: int, logvar: Tensor | None = None) -> Prior:
        """Overridden: keeps codes, and chooses the width."""
        density = self.build(codes.shape[1])
        density.points.copy_(codes[random_order(len(codes), seed)[: self.kernels]])
        width = best_bandwidth(density.points) if self.bandwidth is None else self.bandwidth
        density.log_bandwidth.fill_(float(np.log(width)))
        return density


@dataclass(frozen=True, kw_only=True)
class ExemplarKind(DensityKind):
    """The mixture of the posteriors of some training examples.

    With the posteriors of all of them it is the mean of q(z|x) over the training data. No other prior gives them a
    higher ELBO (Tomczak and Welling 2018, arXiv 1705.07120, section 2).

    Attributes:
        exemplars: Largest number of training examples that are taken, drawn at random.
        variance: The variance around each mean, in units of z. none: that of the example's own q(z|x).

    Raises:
        VaezooError: If a value is out of range.
    """

    kind = "exemplar"
    takes_posterior = True
    exemplars: int = 2000
    variance: float | None = None

    def __post_init__(self) -> None:
        check_types(self)
        require_positive("exemplars", self.exemplars)
        if self.variance is not None and not 0 < self.variance < math.inf:
            raise VaezooError(f"option 'variance' is {self.variance}", "give 'variance' above 0")

    def for_codes(self, n: int) -> ExemplarKind:
        """Overridden: there are at most as many exemplars as codes."""
        return replace(self, exemplars=min(self.exemplars, n))

    def build(self, latent_dim: int) -> PosteriorMixture:
        return PosteriorMixture(latent_dim, self.exemplars)

    def logvar(self, posterior: Posterior) -> Tensor:
        """Overridden. Raises VaezooError if the variances of q(z|x) are wanted and it is no diagonal Gaussian."""
        if self.variance is not None:
            return torch.full_like(posterior.mode(), math.log(self.variance))
        return posterior_logvar(posterior, self.kind, "give -o variance=NUMBER, or use --kind kde")

    def fit(self, codes: Tensor, seed: int, logvar: Tensor | None = None) -> Prior:
        """Overridden: keeps means and variances."""
        assert logvar is not None
        density, chosen = self.build(codes.shape[1]), random_order(len(codes), seed)[: self.exemplars]
        density.mu.copy_(codes[chosen])
        density.logvar.copy_(logvar[chosen])
        return density


def random_order(n: int, seed: int) -> Tensor:
    """Returns the numbers below n in random order."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(derive_seed(seed, "order")))


def best_bandwidth(points: Tensor) -> float:
    """Returns the bandwidth with the highest leave-one-out likelihood (Duin 1976), among multiples of Scott's rule.

    Scott's rule (Scott 1992) is n^(-1 / (d + 4)) for n standardised points in d dimensions.

    Args:
        points: `(N, latents)`, at least two.
    """
    n, d = points.shape
    widths = SCALES.double() * n ** (-1 / (d + 4))
    totals = torch.zeros(len(widths), dtype=torch.float64)
    for start in range(0, n, KERNELS_AT_ONCE):
        square = torch.cdist(points[start : start + KERNELS_AT_ONCE].double(), points.double()).square()
        rows = torch.arange(len(square))
        square[rows, start + rows] = torch.inf  # a point does not count for itself
        for i, width in enumerate(widths):
            totals[i] += torch.logsumexp(-0.5 * square / width**2, 1).sum() - len(square) * d * width.log()
    return float(widths[totals.argmax()])


@dataclass(frozen=True, kw_only=True)
class FlowKind(DensityKind):
    """RealNVP: standard normal noise behind affine couplings (Dinh et al. 2017), trained on codes.

    Attributes:
        couplings: Number of couplings.
        hidden: Hidden units of the network of each coupling.

    Raises:
        VaezooError: If a value is not positive.
    """

    kind = "flow"
    trained = True
    couplings: int = 8
    hidden: int = 128

    def __post_init__(self) -> None:
        check_types(self)
        require_positive("couplings", self.couplings)
        require_positive("hidden", self.hidden)

    def build(self, latent_dim: int) -> Prior:
        return RealNVP(latent_dim, self.hidden, self.couplings)


@dataclass(frozen=True, kw_only=True)
class VAEKind(DensityKind):
    """A second VAE, trained on codes (Dai and Wipf 2019).

    Attributes:
        hidden: Hidden units of both layers of encoder and decoder.

    Raises:
        VaezooError: If it is not positive.
    """

    kind = "vae"
    trained = True
    hidden: int = 512

    def __post_init__(self) -> None:
        check_types(self)
        require_positive("hidden", self.hidden)

    def build(self, latent_dim: int) -> Prior:
        return SecondStage(latent_dim, self.hidden)


@dataclass(frozen=True, kw_only=True)
class AutoregressiveKind(PriorKind):
    """A causal transformer for grids of codes, trained on them.

    Attributes:
        hidden: Features of each position, a multiple of 16. Each 16 have an attention head.
        layers: Number of layers.

    Raises:
        VaezooError: If a value is out of range.
    """

    kind = "autoregressive"
    trained = True
    takes_codes = True
    hidden: int = 128
    layers: int = 4

    def __post_init__(self) -> None:
        check_types(self)
        require_positive("hidden", self.hidden)
        require_positive("layers", self.layers)
        require_heads(self.hidden)

    def build(self, codes: int, latent_shape: tuple[int, ...]) -> CodeTransformer:
        """Returns the prior, with random weights, for a number of codes and the shape of a grid."""
        return CodeTransformer(codes, latent_shape, self.hidden, self.layers)


KINDS: Mapping[str, PriorKind] = MappingProxyType(
    {
        config.kind: config
        for config in (
            GMMKind(),
            KDEKind(),
            ExemplarKind(),
            FlowKind(),
            VAEKind(),
            RiemannianKind(),
            AutoregressiveKind(),
        )
    }
)


def make_kind(kind: str, options: Mapping[str, object]) -> PriorKind:
    """Returns a kind with its options.

    Raises:
        VaezooError: If there is no such kind or option, or a value is not of its type.
    """
    if kind not in KINDS:
        what = f"no kind of prior named '{safe_repr(kind)}'"
        raise VaezooError(what, suggest(str(kind), KINDS, f"use one of {', '.join(KINDS)}"))
    return configure(KINDS[kind], options)
