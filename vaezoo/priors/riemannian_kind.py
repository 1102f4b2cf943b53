"""How `vaezoo.fit_prior` makes the uniform distribution of a Riemannian manifold from codes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from vaezoo.core.dependencies import eval_dependencies
from vaezoo.core.options import check_types, require_positive
from vaezoo.core.seed import derive_seed
from vaezoo.errors import VaezooError, VaezooWarning
from vaezoo.posteriors.base import Posterior
from vaezoo.priors.base import Prior
from vaezoo.priors.density_kind import DensityKind, posterior_logvar
from vaezoo.priors.riemannian import RiemannianUniform

SEARCH_DRAWS = 10_000
MIN_EFFICIENCY = 0.5  # of the proposal at a scale that is chosen
SHRINK, MAX_SHRINKS = 0.9, 40  # the factor between two scales that are tried, and how many are
MAX_DEVIATION = 0.2  # of the distribution of draws, relative, above which the user is warned


@dataclass(frozen=True, kw_only=True)
class RiemannianKind(DensityKind):
    """The uniform distribution of the manifold that the posteriors of some training examples span.

    Centroids are codes near the means that k-means finds (scikit-learn, extra `eval`). The paper has k-medoids.

    Attributes:
        centroids: Largest number of training examples whose posteriors make the metric.
        rho: Scale of the distances between a code and the centroids. none: the largest distance of a centroid from the
            one nearest to it, as in the code of the paper, made smaller until half of the proposals count.
        background: Weight lambda of the identity in the metric.
        decay: Decay tau of that weight. none: 1 / latents, so that the last term alone is the standard normal.
        proposals: Number of proposals of which each draw is one.

    Raises:
        VaezooError: If a value is out of range.
    """

    kind = "riemannian"
    takes_posterior = True
    standardises = False
    centroids: int = 100
    rho: float | None = None
    background: float = 0.01
    decay: float | None = None
    proposals: int = 16

    def __post_init__(self) -> None:
        check_types(self)
        require_positive("centroids", self.centroids)
        require_positive("proposals", self.proposals)
        for name in ("rho", "background", "decay"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise VaezooError(f"option '{name}' is {value}", f"give '{name}' above 0")

    def for_codes(self, n: int) -> RiemannianKind:
        """Overridden: there are at most as many centroids as codes, and a distance needs two."""
        if self.rho is None and min(n, self.centroids) < 2:
            raise VaezooError("one centroid has no distance from another", "give rho, or more centroids and data")
        return replace(self, centroids=min(self.centroids, n))

    def build(self, latent_dim: int) -> RiemannianUniform:
        return RiemannianUniform(latent_dim, self.centroids, self.proposals)

    def logvar(self, posterior: Posterior) -> Tensor:
        """Overridden. Raises VaezooError if q(z|x) is no diagonal Gaussian."""
        return posterior_logvar(posterior, self.kind, "use --kind gmm")

    @torch.no_grad()
    def fit(self, codes: Tensor, seed: int, logvar: Tensor | None = None) -> Prior:
        """Overridden: chooses centroids and estimates the normaliser."""
        assert logvar is not None
        density, chosen = self.build(codes.shape[1]), central_rows(codes, self.centroids, seed)
        density.mu.copy_(codes[chosen])
        density.logvar.copy_(logvar[chosen])
        density.log_background.fill_(math.log(self.background))
        density.log_decay.fill_(math.log(1 / codes.shape[1] if self.decay is None else self.decay))
        if self.rho is None:
            choose_scale(density)
        else:
            density.log_rho.fill_(math.log(self.rho))
        log_value, error, efficiency = density.integrate()
        density.log_normaliser.fill_(log_value)
        density.error.fill_(error)
        density.efficiency.fill_(efficiency)
        if (1 / efficiency - 1) / self.proposals > MAX_DEVIATION:
            what = f"only {efficiency:.1%} of the proposals count, so {self.proposals} for each draw are too few"
            warnings.warn(f"{what}: give a smaller rho, or more proposals", VaezooWarning, stacklevel=2)
        return density

    def measured(self, densities: Sequence[Prior]) -> dict[str, float]:
        """Overridden: the largest scale, the largest standard error of log Z, and the lowest efficiency."""
        ours = [cast("RiemannianUniform", density) for density in densities]
        return {
            "largest_rho": max(float(d.log_rho.exp()) for d in ours),
            "log_normaliser_error": max(float(d.error) for d in ours),
            "efficiency": min(float(d.efficiency) for d in ours),
        }


def choose_scale(density: RiemannianUniform) -> None:
    """Sets rho to the largest distance of neighbours, or to the first smaller value at which the proposal is efficient.

    Where many centroids overlap, sqrt(det G) is largest by far. Nearly all proposals would be in vain.
    """
    density.log_rho.fill_(math.log(nearest_distance(density.mu)))
    for _ in range(MAX_SHRINKS):  # centroids that are the same code overlap at each scale
        if density.integrate(SEARCH_DRAWS).efficiency >= MIN_EFFICIENCY:
            return
        density.log_rho.add_(math.log(SHRINK))


def central_rows(codes: Tensor, n: int, seed: int) -> Tensor:
    """Returns the rows of the codes that are nearest to the n means that k-means finds, `(n,)`, each once."""
    with eval_dependencies("kind riemannian"):
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning
    values = codes.double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer codes differ than means are asked for
        fitted = KMeans(n, n_init=1, random_state=derive_seed(seed, "weights") % 2**32).fit(values.numpy())
    means = torch.from_numpy(fitted.cluster_centers_)
    distances = torch.cdist(means, values)
    rows = []
    for row in distances:
        rows.append(int(row.argmin()))
        distances[:, rows[-1]] = torch.inf
    return torch.tensor(rows)


def nearest_distance(points: Tensor) -> float:
    """Returns the largest distance of a point from the one nearest to it, for at least two points `(N, latents)`.

    Raises:
        VaezooError: If it is 0.
    """
    distances = torch.cdist(points.double(), points.double())
    largest = float(distances.fill_diagonal_(torch.inf).amin(1).amax())
    if not largest > 0:
        raise VaezooError("all centroids are the same code, so they have no distance", "give rho")
    return largest
