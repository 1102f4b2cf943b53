"""The distance of spectrograms at several resolutions as a score of reconstructions."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.errors import UnsupportedDataError
from vaezoo.likelihoods.base import ReconstructionScore, Shape

SIZES = (128, 256, 512)  # samples of a frame at each resolution: 16, 32 and 64 ms at 8,000 samples in a second
OVERLAP = 4  # frames start a quarter of one apart
FLOOR = 1e-7  # of squared magnitudes, whose logarithms and roots have gradients then


class MultiSTFT(ReconstructionScore):
    """Minus the number of values times the distance of spectrograms, for series such as waveforms.

    The distance is that of Yamamoto, Song and Kim 2020, arXiv 1910.11480. It ignores phases, which a mean squared error
    does not. It is a mean over frames. The factor makes it a sum, as every term of our losses is.
    """

    name = "multi-stft"
    kinds = ("real",)

    def params_shape(self, shape: Shape) -> Shape:
        """Overridden: the distance is defined for series of at least half a frame."""
        if len(shape) != 2 or shape[1] < SIZES[0] // 2:
            raise UnsupportedDataError(
                f"the likelihood multi-stft is not defined for examples of shape {shape}",
                f"give series (channels, time) of at least {SIZES[0] // 2} steps, or another --likelihood",
            )
        return shape

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        return -x[0].numel() * spectral_distance(params, x)

    def mean(self, params: Tensor) -> Tensor:
        return params

    def params_of_mean(self, mean: Tensor) -> Tensor:
        return mean


def spectral_distance(a: Tensor, b: Tensor) -> Tensor:
    """Returns the mean over resolutions of the distance of a from b, `(B,)`, 0 if their magnitudes are equal.

    At each resolution it is the spectral convergence |A - B| / |B| in the Frobenius norm, plus the mean absolute
    difference of the logarithms of the magnitudes A and B: equations 6 and 7 of Yamamoto, Song and Kim 2020.

    Args:
        a: Series `(B, channels, time)`.
        b: The same.
    """
    total = a.new_zeros(len(a))
    for size in SIZES:
        ours, given = magnitudes(a, size), magnitudes(b, size)
        convergence = (given - ours).norm(dim=1) / given.norm(dim=1)
        total = total + convergence + (given.log() - ours.log()).abs().mean(1)
    return total / len(SIZES)


def magnitudes(x: Tensor, size: int) -> Tensor:
    """Returns the magnitudes of all frames of series, `(B, channels * frequencies * frames)`."""
    window = torch.hann_window(size, dtype=x.dtype, device=x.device)
    spectrum = torch.stft(
        x.flatten(0, 1), size, size // OVERLAP, window=window, pad_mode="constant", return_complex=True
    )
    squares = torch.view_as_real(spectrum).square().sum(-1)
    return squares.clamp(min=FLOOR).sqrt().reshape(len(x), -1)
