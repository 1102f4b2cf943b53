"""InfoVAE and WAE-MMD: samples of q(z) and of p(z) are compared by the maximum mean discrepancy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.objectives.aggregate import PriorMatching
from vaezoo.objectives.base import ObjectivePart
from vaezoo.posteriors.base import Shape

Kernel = Literal["imq", "rbf"]
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # of the code of Tolstikhin et al.


class MMD(PriorMatching):
    """Reconstruction + beta KL + weight MMD^2(q(z), p(z)).

    InfoVAE (Zhao et al. 2017, arXiv 1706.02262, equation 6) has beta = 1 - alpha and weight = alpha + lambda - 1. With
    alpha = 1 it is MMD-VAE. WAE-MMD (Tolstikhin et al. 2018, arXiv 1711.01558, algorithm 2) has no KL, and its encoder
    may be deterministic. Its reconstruction is the squared error, so with the likelihood `gaussian`, which has half of
    it, the paper's weight is halved.

    Args:
        kernel: As in `kernel_matrix`.
        scales: As in `kernel_matrix`.
        beta: Weight of the KL.
        weight: Weight of the discrepancy.
    """

    part = "mmd"
    metric = "mmd"

    def __init__(self, kernel: Kernel, scales: tuple[float, ...], beta: float, weight: float) -> None:
        super().__init__(beta, weight)
        self.kernel = kernel
        self.scales = scales

    def distance(self, z: Tensor, prior_z: Tensor) -> Tensor:
        return mmd(z, prior_z, self.kernel, self.scales)


def mmd(a: Tensor, b: Tensor, kernel: Kernel, scales: tuple[float, ...]) -> Tensor:
    """Returns the unbiased estimate of the squared MMD of two distributions, `()` (Gretton et al. 2012, lemma 6).

    Pairs of a sample with itself are left out. The estimate may be below 0. With one sample of each there are no other
    pairs, so they count, and the estimate is too high.

    Args:
        a: Samples of one distribution, `(B, latents)`.
        b: As many of the other, independent of them.
        kernel: As in `kernel_matrix`.
        scales: As in `kernel_matrix`.
    """
    n = len(a)
    within = kernel_matrix(a, a, kernel, scales) + kernel_matrix(b, b, kernel, scales)
    mean_within = (within.sum() - within.trace()) / (n * (n - 1)) if n > 1 else within.mean()
    return mean_within - 2 * kernel_matrix(a, b, kernel, scales).mean()


def kernel_matrix(a: Tensor, b: Tensor, kernel: Kernel, scales: tuple[float, ...]) -> Tensor:
    """Returns k(a_i, b_j), `(len(a), len(b))`, the sum of one kernel for each scale.

    With r = |a - b| and C = 2 latents scale, `imq` is C / (C + r^2), the inverse multiquadratic, and `rbf` is
    exp(-r^2 / C). Between two samples of a standard normal r^2 is 2 latents in the mean.
    """
    # A tensor (B, B, latents) of differences would be large.
    square = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T
    square = square.clamp(min=0)  # rounding
    total = torch.zeros_like(square)
    for scale in scales:
        c = 2 * a.shape[1] * scale
        total = total + (c / (c + square) if kernel == "imq" else torch.exp(-square / c))
    return total


@dataclass(frozen=True, kw_only=True)
class MMDPart(ObjectivePart):
    """Reconstruction, and the maximum mean discrepancy of q(z) and p(z).

    Attributes:
        kernel: The kernel: inverse multiquadratic (imq), or Gaussian (rbf).
        scales: A kernel for each of these scales is added up. The squared width is 2 latents scale.
        beta: Weight of the KL. WAE has none. InfoVAE has 1 - alpha.
        weight: Weight of the discrepancy. InfoVAE has alpha + lambda - 1.

    Raises:
        VaezooError: If a weight is negative, or a scale is not positive.
    """

    part = "mmd"
    formula = (
        r"\begin{align*} \mathcal{L} &= \mathbb{E}_{q(z \mid x)}[-\log p(x \mid z)]"
        r" + \beta\,\mathrm{KL}(q(z \mid x) \,\|\, p(z)) + w\,\mathrm{MMD}^2, \\ \mathrm{MMD}^2 &="
        r" \mathbb{E}_{q, q}[\kappa(z, z')] - 2\,\mathbb{E}_{q, p}[\kappa(z, z')] +"
        r" \mathbb{E}_{p, p}[\kappa(z, z')] \end{align*}"
    )
    kernel: Kernel = "imq"
    scales: tuple[float, ...] = SCALES
    beta: float = 0.0
    weight: float = 10.0

    def __post_init__(self) -> None:
        if min(self.beta, self.weight) < 0:
            raise VaezooError(
                f"objective.beta is {self.beta} and objective.weight {self.weight}", "give both at least 0"
            )
        if not self.scales or min(self.scales) <= 0:
            raise VaezooError(f"objective.scales is {self.scales}", "give at least one, and all above 0")

    def build(self, data: DataSpec, latent_shape: Shape) -> MMD:
        return MMD(self.kernel, self.scales, self.beta, self.weight)
