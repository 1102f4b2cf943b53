"""The multi-scale structural similarity as a score of reconstructions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vaezoo.errors import UnsupportedDataError
from vaezoo.likelihoods.base import ReconstructionScore, Shape
from vaezoo.likelihoods.bernoulli import MIN_MEAN

WINDOW, SIGMA = 11, 1.5  # pixels of the Gaussian window
EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, from fine to coarse
C1, C2 = 0.01**2, 0.03**2  # for pixels from 0 to 1


class MSSSIM(ReconstructionScore):
    """Minus the number of values times 1 - MS-SSIM (Snell et al. 2017, arXiv 1511.06409), for images.

    The similarity is a mean over pixels. The factor makes it a sum, as every term of our losses is.
    """

    name = "ms-ssim"

    def params_shape(self, shape: Shape) -> Shape:
        """Overridden: the similarity is defined for images from 11x11 pixels on."""
        if len(shape) != 3 or min(shape[1:]) < WINDOW:
            raise UnsupportedDataError(
                f"the likelihood ms-ssim is not defined for examples of shape {shape}",
                f"give images of at least {WINDOW}x{WINDOW} pixels, or another --likelihood",
            )
        return shape

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        return x[0].numel() * (ms_ssim(self.mean(params), x) - 1)

    def mean(self, params: Tensor) -> Tensor:
        return torch.sigmoid(params)

    def params_of_mean(self, mean: Tensor) -> Tensor:
        return torch.logit(mean, MIN_MEAN)


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Returns the multi-scale structural similarity of images, `(B,)`, 1 if they are equal.

    Wang, Simoncelli and Bovik 2003, equation 7. Each scale halves the image. Images below 176 pixels have fewer than
    the five scales: as many as leave room for the window. Their exponents are scaled to add up to 1. A similarity s
    from -1 to 1 enters as (s + 1) / 2, because a power of a negative number has no gradient. As in torchmetrics, the
    windows of the last scale go up to the border of the image, which is reflected there.

    Args:
        a: Images from 0 to 1, `(B, C, H, W)`, with sides of at least 11 pixels.
        b: The same.
    """
    scales = 1
    while scales < len(EXPONENTS) and min(a.shape[2:]) >> scales >= WINDOW:
        scales += 1
    product = a.new_ones(len(a))
    for i in range(scales - 1):
        _, contrast = similarities(a, b)
        product = product * factor(contrast, i, scales)
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    # The last scale alone has the factor of luminance.
    luminance, contrast = similarities(*(F.pad(x, [WINDOW // 2] * 4, mode="reflect") for x in (a, b)))
    return product * factor(luminance * contrast, scales - 1, scales)


def factor(similarity: Tensor, scale: int, scales: int) -> Tensor:
    """Returns what a scale contributes to the product, `(B,)`, from its similarities at each window."""
    return (0.5 * (similarity.flatten(1).mean(1) + 1)) ** (EXPONENTS[scale] / sum(EXPONENTS[:scales]))


def similarities(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the similarities of luminance, and of contrast and structure, at each window, `(B, C, H', W')` each."""
    maps = torch.stack([a, b, a * a, b * b, a * b], 1)
    blurred = torch.unflatten(blur(maps.flatten(0, 2)), 0, maps.shape[:3])
    mean_a, mean_b, square_a, square_b, product = blurred.unbind(1)
    variances = square_a - mean_a.square() + square_b - mean_b.square()
    luminance = (2 * mean_a * mean_b + C1) / (mean_a.square() + mean_b.square() + C1)
    return luminance, (2 * (product - mean_a * mean_b) + C2) / (variances + C2)


def blur(maps: Tensor) -> Tensor:
    """Returns Gaussian means of `(N, H, W)` over each window that lies inside, `(N, H - 10, W - 10)`."""
    offsets = torch.arange(WINDOW, dtype=maps.dtype, device=maps.device) - WINDOW // 2
    weights = torch.exp(-0.5 * (offsets / SIGMA).square())
    weights = weights / weights.sum()
    rows = F.conv2d(maps.unsqueeze(1), weights.view(1, 1, -1, 1))
    return F.conv2d(rows, weights.view(1, 1, 1, -1)).squeeze(1)
