"""The sliced Wasserstein autoencoder: samples of q(z) and of p(z) are compared on random lines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vaezoo.core import distributed
from vaezoo.core.options import require_positive
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.objectives.aggregate import PriorMatching
from vaezoo.objectives.base import ObjectivePart
from vaezoo.posteriors.base import Shape


class SlicedWasserstein(PriorMatching):
    """Reconstruction + weight SW^2(q(z), p(z)) (Kolouri et al. 2018, arXiv 1804.01947, algorithm 1).

    Args:
        projections: Number of lines, drawn anew in each step.
        weight: Weight of the distance.
    """

    part = "sliced-wasserstein"
    metric = "sliced_wasserstein"

    def __init__(self, projections: int, weight: float) -> None:
        super().__init__(0.0, weight)
        self.projections = projections

    def distance(self, z: Tensor, prior_z: Tensor) -> Tensor:
        return sliced_wasserstein(z, prior_z, random_directions(self.projections, z))


def sliced_wasserstein(a: Tensor, b: Tensor, directions: Tensor) -> Tensor:
    """Returns the mean over lines of the squared 2-Wasserstein distance of two sets of samples on the line, `()`.

    On a line the optimal transport moves the samples in their order.

    Args:
        a: Samples of one distribution, `(B, latents)`.
        b: As many of the other.
        directions: Unit vectors, `(L, latents)`.
    """
    first, second = ((z @ directions.T).sort(0).values for z in (a, b))
    return (first - second).square().mean()


def random_directions(n: int, like: Tensor) -> Tensor:
    """Returns n unit vectors `(n, latents)`, uniform on the sphere and the same in all processes."""
    noise = torch.randn((n, like.shape[1]), device=like.device, dtype=like.dtype)
    return F.normalize(distributed.dist_mean(noise), dim=1)


@dataclass(frozen=True, kw_only=True)
class SlicedWassersteinPart(ObjectivePart):
    """Reconstruction, and the sliced Wasserstein distance of q(z) and p(z).

    Attributes:
        projections: Number of random lines in each step.
        weight: Weight of the squared distance.

    Raises:
        VaezooError: If the number is not positive, or the weight is negative.
    """

    part = "sliced-wasserstein"
    formula = (
        r"\mathcal{L} = \mathbb{E}_{q(z \mid x)}[-\log p(x \mid z)]"
        r" + w\,\mathbb{E}_{\theta}\left[W_2^2(\theta^\top z, \theta^\top z')\right], \qquad z \sim q(z),"
        r" \; z' \sim p(z)"
    )
    projections: int = 50
    weight: float = 10.0

    def __post_init__(self) -> None:
        require_positive("objective.projections", self.projections)
        if self.weight < 0:
            raise VaezooError(f"objective.weight is {self.weight}", "give at least 0")

    def build(self, data: DataSpec, latent_shape: Shape) -> SlicedWasserstein:
        return SlicedWasserstein(self.projections, self.weight)
