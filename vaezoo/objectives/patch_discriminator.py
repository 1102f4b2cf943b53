"""The discriminator of latent diffusion: it classifies overlapping patches of an image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core.precision import to_float32
from vaezoo.errors import UnsupportedDataError

MAX_GROWTH = 8  # largest factor of channels
SLOPE = 0.2  # of the leaky ReLU


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017, arXiv 1611.07004, section 6.1.2), as latent diffusion has it.

    `layers` convolutions of stride 2 double the channels, then two have stride 1. All have kernels of 4 by 4 and a
    padding of 1. Those in the middle are batch normalised. Each logit sees a patch, of 70 pixels with three layers.

    Args:
        in_channels: Channels of the images.
        channels: Channels of the first convolution.
        layers: Number of convolutions of stride 2.
    """

    def __init__(self, in_channels: int, channels: int, layers: int) -> None:
        super().__init__()
        widths = [channels * min(2**i, MAX_GROWTH) for i in range(layers + 1)]
        modules: list[nn.Module] = [nn.Conv2d(in_channels, channels, 4, 2, 1), nn.LeakyReLU(SLOPE)]
        for i in range(1, layers + 1):
            stride = 2 if i < layers else 1
            modules += [
                nn.Conv2d(widths[i - 1], widths[i], 4, stride, 1, bias=False),
                nn.BatchNorm2d(widths[i]),
                nn.LeakyReLU(SLOPE),
            ]
        self.main = nn.Sequential(*modules, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        for module in self.main:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits of patches, `(B, 1, h, w)`, float32, for images `(B, C, H, W)` from -1 to 1."""
        return to_float32(self.main(images))


def check_patches(name: str, sides: tuple[int, ...], layers: int) -> None:
    """Raises UnsupportedDataError if images are too small for a number of layers of stride 2."""
    # A convolution of stride 2 halves a side, rounded down. The last two shorten it by 1 each.
    smallest = 3 * 2**layers
    if min(sides) < smallest:
        what = f"images of '{name}' have a side of {min(sides)} pixels, and objective.layers={layers} needs {smallest}"
        raise UnsupportedDataError(what, "give a smaller objective.layers, or objective.weight=0")


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """Returns the hinge loss of a discriminator, `()`, for logits of real and of fake images (Lim and Ye 2017)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
