"""Residual networks for images. Blocks and their names are those of latent diffusion (Rombach et al. 2022).

`resnet-vae` puts dense layers between these blocks and flat latents. `autoencoder-kl` keeps latents spatial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.likelihoods.base import Shape
from vaezoo.nn.conv import conv_channels
from vaezoo.nn.mlp import flatten, unflatten
from vaezoo.nn.strided import FIRST_CHANNELS

NORM_EPS = 1e-6  # as in the code of latent diffusion


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """The options of a residual VAE.

    Attributes:
        latent_dim: Number of latent dimensions.
        channels: Channels of the residual blocks before each halving of the image. Empty: 16, 32, 64 ... (at most
            128), one for each halving until the shorter side has at most 7 pixels.
        blocks: Residual blocks at each resolution.
        norm_groups: Groups of channels that are normalised together. It must divide each of the channels.

    Raises:
        VaezooError: If a value is out of range, or the groups do not divide the channels.
    """

    latent_dim: int = 16
    channels: tuple[int, ...] = ()
    blocks: int = 1
    norm_groups: int = 8

    def __post_init__(self) -> None:
        require_positive("latent_dim", self.latent_dim)
        require_positive("blocks", self.blocks)
        # All derived channels are multiples of the first.
        require_groups(self.norm_groups, self.channels or (FIRST_CHANNELS // 2,))

    def input_shape(self, data: DataSpec) -> Shape:
        """Returns the shape in which the encoder takes features: that of an image."""
        return data.features_shape

    def make_encoder(self, data: DataSpec, inputs: Shape, outputs: Shape) -> nn.Sequential:
        """Returns a network from images `(B, *inputs)` to `(B, *outputs)`. Raises as `conv_channels` does."""
        channels = stage_channels(data, self.channels)
        coarse = (channels[-1], *image_sizes(data, len(channels))[-1])
        return nn.Sequential(
            nn.Conv2d(inputs[0], channels[0], 3, padding=1),
            *down_stages(channels, self.blocks, self.norm_groups),
            group_norm(channels[-1], self.norm_groups),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(math.prod(coarse), math.prod(outputs)),
            *unflatten(outputs),
        )

    def make_decoder(self, data: DataSpec, inputs: Shape, outputs: Shape) -> nn.Sequential:
        """Returns a network from `(B, *inputs)` to unbounded `(B, *outputs)`, the reverse of the encoder."""
        channels = stage_channels(data, self.channels)
        *finer, coarsest = image_sizes(data, len(channels))
        coarse = (channels[-1], *coarsest)
        return nn.Sequential(
            *flatten(inputs),
            nn.Linear(math.prod(inputs), math.prod(coarse)),
            nn.Unflatten(1, coarse),
            *up_stages(channels[::-1], self.blocks, self.norm_groups, finer[::-1]),
            group_norm(channels[0], self.norm_groups),
            nn.SiLU(),
            nn.Conv2d(channels[0], outputs[0], 3, padding=1),
        )


def stage_channels(data: DataSpec, channels: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the channels at each resolution, from fine to coarse. Raises as `conv_channels` does.

    There is one resolution more than there are halvings. The coarsest has as many channels as the one before.
    """
    derived = conv_channels(data, channels)
    # A block at full resolution costs much, so there are half as many channels as in a plain convolutional network.
    halvings = channels or tuple(n // 2 for n in derived)
    return (*halvings, halvings[-1])


def image_sizes(data: DataSpec, count: int) -> list[tuple[int, int]]:
    """Returns height and width of images at each of `count` resolutions. Halving rounds an odd side down."""
    _, height, width = data.shape
    return [(height >> i, width >> i) for i in range(count)]


def require_groups(groups: int, channels: Sequence[int]) -> None:
    """Raises VaezooError unless all are positive and the groups divide each of the channels."""
    require_positive("norm_groups", groups)
    require_positive("channels", *channels)
    if uneven := [n for n in channels if n % groups]:
        raise VaezooError(
            f"{uneven[0]} channels cannot be divided into {groups} groups", "give norm_groups that divide all channels"
        )


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """Returns a normalisation of each group of channels over all pixels of an image (Wu and He 2018)."""
    return nn.GroupNorm(groups, channels, eps=NORM_EPS)


class ResNetBlock(nn.Module):
    """x + f(x), where f is twice GroupNorm, SiLU and a 3x3 convolution.

    Normalisation and activation come before the convolution (He et al. 2016, arXiv 1603.05027). If the number of
    channels changes, a 1x1 convolution of x takes the place of x.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        groups: Groups of the normalisations.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels, groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        y: Tensor = self.conv_shortcut(x) + h
        return y


class Downsample(nn.Module):
    """A 3x3 convolution with stride 2. A side of n pixels becomes n // 2.

    The image is padded at the right and at the bottom only, as in the code of latent diffusion.

    Args:
        channels: Channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return y


class Upsample(nn.Module):
    """Repeats pixels, then a 3x3 convolution.

    Args:
        channels: Channels of input and output.
        size: Height and width of the output. None: twice those of the input.
    """

    def __init__(self, channels: int, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        scale = 2.0 if self.size is None else None
        y: Tensor = self.conv(F.interpolate(x, size=self.size, scale_factor=scale, mode="nearest"))
        return y


class Stage(nn.Module):
    """Residual blocks at one resolution, then the change to the next resolution.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the blocks and of the output.
        blocks: Number of blocks, at least 1.
        groups: Groups of the normalisations.
        downsamplers: At most one Downsample.
        upsamplers: At most one Upsample.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        blocks: int,
        groups: int,
        *,
        downsamplers: Sequence[Downsample] = (),
        upsamplers: Sequence[Upsample] = (),
    ) -> None:
        super().__init__()
        widths = (in_channels, *[out_channels] * (blocks - 1))
        self.resnets = nn.ModuleList(ResNetBlock(width, out_channels, groups) for width in widths)
        self.downsamplers = nn.ModuleList(downsamplers)
        self.upsamplers = nn.ModuleList(upsamplers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in chain(self.resnets, self.downsamplers, self.upsamplers):
            x = layer(x)
        return x


def down_stages(channels: Sequence[int], blocks: int, groups: int) -> list[Stage]:
    """Returns a stage for each resolution, from fine to coarse. All but the last halve the image.

    Args:
        channels: Channels of each stage. The input has as many as the first.
        blocks: Residual blocks of each stage.
        groups: Groups of the normalisations.
    """
    downsamplers = [*([Downsample(n)] for n in channels[:-1]), []]
    before = (channels[0], *channels[:-1])
    return [
        Stage(a, b, blocks, groups, downsamplers=layers)
        for a, b, layers in zip(before, channels, downsamplers, strict=True)
    ]


def up_stages(
    channels: Sequence[int], blocks: int, groups: int, sizes: Sequence[tuple[int, int]] | None = None
) -> list[Stage]:
    """Returns a stage for each resolution, from coarse to fine. All but the last enlarge the image.

    Args:
        channels: Channels of each stage. The input has as many as the first.
        blocks: Residual blocks of each stage.
        groups: Groups of the normalisations.
        sizes: Height and width behind each stage but the last. None: each doubles those of its input.
    """
    behind = [None] * (len(channels) - 1) if sizes is None else sizes
    upsamplers = [*([Upsample(n, size)] for n, size in zip(channels[:-1], behind, strict=True)), []]
    before = (channels[0], *channels[:-1])
    return [
        Stage(a, b, blocks, groups, upsamplers=layers)
        for a, b, layers in zip(before, channels, upsamplers, strict=True)
    ]
