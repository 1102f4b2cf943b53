"""The networks of a convolutional top-down VAE (Child 2021, arXiv 2011.10650), on images from 8x8 to 64x64 pixels.

An encoder goes from the image to 1x1. The decoder goes back, and draws z in several layers at each resolution up to
half that of the image. q of a layer looks at the encoder's features of that resolution, and at the decoder's so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.posteriors.gaussian import DiagonalGaussian

Size = tuple[int, int]
COARSE_SIZE = 4  # below so many pixels at the shorter side the next resolution is 1x1
BOTTLENECK = 4  # a block has so many times fewer channels inside


def resolutions(height: int, width: int) -> list[Size]:
    """Returns the sizes of an image at each resolution, from full to 1x1. Halving rounds an odd side down."""
    sizes = [(height, width)]
    while min(sizes[-1]) >= COARSE_SIZE:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return [*sizes, (1, 1)]


def block(in_channels: int, out_channels: int, hidden: int, size: Size, scale: float = 1.0) -> nn.Sequential:
    """Returns convolutions 1x1, 3x3, 3x3, 1x1 with few channels inside, and a GELU before each (figure 3 of the paper).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        hidden: Channels inside.
        size: Height and width. Below 3 pixels all convolutions are 1x1.
        scale: Factor of the last layer's initial weights.
    """
    kernel = 3 if min(size) >= 3 else 1
    widths, kernels = (in_channels, hidden, hidden, hidden, out_channels), (1, kernel, kernel, 1)
    layers: list[nn.Module] = []
    for i, k in enumerate(kernels):
        layers += [nn.GELU(), nn.Conv2d(widths[i], widths[i + 1], k, padding=k // 2)]
    scale_weight(layers[-1], scale)
    return nn.Sequential(*layers)


@torch.no_grad()
def scale_weight(layer: nn.Module, scale: float) -> None:
    """Multiplies the weight of a convolution."""
    assert isinstance(layer, nn.Conv2d)
    layer.weight.mul_(scale)


class Residual(nn.Module):
    """x + block(x).

    Args:
        channels: Channels of input and output.
        hidden: Channels inside the block.
        size: Height and width.
        scale: Factor of the last layer's initial weights.
    """

    def __init__(self, channels: int, hidden: int, size: Size, scale: float) -> None:
        super().__init__()
        self.layers = block(channels, channels, hidden, size, scale)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.layers(x)
        return y


class Encoder(nn.Module):
    """From an image to features at each resolution below the full one.

    Args:
        in_channels: Channels of the image.
        channels: Channels of the features.
        sizes: All resolutions, from full to 1x1.
        blocks: Residual blocks at each resolution.
    """

    def __init__(self, in_channels: int, channels: int, sizes: Sequence[Size], blocks: int) -> None:
        super().__init__()
        scale = (len(sizes) * blocks) ** -0.5
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Residual(channels, channels // BOTTLENECK, size, scale) for _ in range(blocks)))
            for size in sizes
        )

    def forward(self, image: Tensor) -> Tensor:
        """Returns the features of all resolutions but the full one, from 1x1 upwards, flat, `(B, n)`."""
        x, features = self.conv_in(image), []
        for i, stage in enumerate(self.stages):
            if i == len(self.stages) - 1:
                x = x.mean((2, 3), keepdim=True)
            elif i > 0:
                x = F.avg_pool2d(x, 2)
            x = stage(x)
            features.append(x.flatten(1))
        return torch.cat(features[:0:-1], 1)


class LatentLayer(nn.Module):
    """One layer of the decoder: p(z_i) given the layers above, and what z_i adds to the features.

    Args:
        channels: Channels of the features.
        latents: Channels of z_i.
        size: Height and width.
        scale: Factor of the initial weights of what is added.
    """

    def __init__(self, channels: int, latents: int, size: Size, scale: float) -> None:
        super().__init__()
        hidden = channels // BOTTLENECK
        self.size = size
        self.latents = latents
        # Its last weights are zero, so that all p(z_i) start as standard normal ones.
        self.prior = block(channels, 2 * latents + channels, hidden, size, scale=0.0)
        nn.init.zeros_(cast("nn.Conv2d", self.prior[-1]).bias)  # type: ignore[arg-type]
        self.project = nn.Conv2d(latents, channels, 1)
        self.block = Residual(channels, hidden, size, scale)
        scale_weight(self.project, scale)

    def conditional(self, x: Tensor) -> tuple[DiagonalGaussian, Tensor]:
        """Returns p(z_i) given features, and the features with what p's network adds."""
        mu, raw, change = torch.split(self.prior(x), [self.latents, self.latents, x.shape[1]], 1)
        return DiagonalGaussian.from_raw(mu, raw), x + change

    def add(self, x: Tensor, z: Tensor) -> Tensor:
        """Returns features with z_i added, behind a residual block."""
        y: Tensor = self.block(x + self.project(z))
        return y


class Draw(NamedTuple):
    """One layer of a pass downwards.

    Attributes:
        z: Its latents, `(B, channels, H, W)`.
        q: The distribution that the caller took them from.
        p: p(z_i) given the layers above.
    """

    z: Tensor
    q: DiagonalGaussian
    p: DiagonalGaussian


Choose = Callable[[int, Tensor, DiagonalGaussian], tuple[Tensor, DiagonalGaussian]]


class Decoder(nn.Module):
    """From 1x1 to the image. Each layer takes z_i, which the caller chooses.

    Args:
        channels: Channels of the features.
        latents: Channels of z in each layer.
        out_channels: Channels of the parameters of p(x|z).
        sizes: All resolutions, from full to 1x1.
        layers: Layers at each resolution but the full one.
    """

    def __init__(self, channels: int, latents: int, out_channels: int, sizes: Sequence[Size], layers: int) -> None:
        super().__init__()
        places = [size for size in sizes[:0:-1] for _ in range(layers)]
        scale = len(places) ** -0.5
        self.start = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.layers = nn.ModuleList(LatentLayer(channels, latents, size, scale) for size in places)
        self.full_size = sizes[0]
        self.out = nn.Sequential(
            Residual(channels, channels // BOTTLENECK, sizes[0], scale),
            nn.GELU(),
            nn.Conv2d(channels, out_channels, 3, padding=1),
        )
        self.shapes = [(latents, *size) for size in places]
        self.counts = [math.prod(shape) for shape in self.shapes]

    def descend(self, rows: int, choose: Choose) -> tuple[Tensor, list[Draw]]:
        """Goes down and returns the features of the lowest layer, and all layers, the top first.

        Args:
            rows: The batch size.
            choose: Returns z of a layer and its distribution, given the layer's number, its features and p.
        """
        x, draws = self.start.expand(rows, -1, -1, -1), []
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, LatentLayer)
            x = resized(x, layer.size)
            p, changed = layer.conditional(x)
            z, q = choose(i, x, p)
            draws.append(Draw(z, q, p))
            x = layer.add(changed, z)
        return x, draws

    def descend_at(self, z: Tensor) -> tuple[Tensor, list[Draw]]:
        """As `descend`, for given latents `(B, n)`. q is p."""
        parts = self.split(z)
        return self.descend(z.shape[0], lambda i, x, p: (parts[i], p))

    def split(self, z: Tensor) -> list[Tensor]:
        """Returns the latents of each layer, `(B, channels, H, W)`, for `(B, n)`."""
        parts = torch.split(z, self.counts, 1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        """Returns the parameters of p(x|z) for the features of the lowest layer."""
        params: Tensor = self.out(resized(x, self.full_size))
        return params


class PosteriorNetworks(nn.Module):
    """q of each layer, from the features of encoder and decoder at its resolution.

    Args:
        channels: Channels of both.
        latents: Channels of z in each layer.
        sizes: All resolutions, from full to 1x1.
        layers: Layers at each resolution but the full one.
    """

    def __init__(self, channels: int, latents: int, sizes: Sequence[Size], layers: int) -> None:
        super().__init__()
        upwards = sizes[:0:-1]
        self.per_resolution = layers
        self.blocks = nn.ModuleList(
            block(2 * channels, 2 * latents, channels // BOTTLENECK, size) for size in upwards for _ in range(layers)
        )
        self.shapes = [(channels, *size) for size in upwards]

    def split(self, evidence: Tensor) -> list[Tensor]:
        """Returns the features of each resolution, `(B, channels, H, W)`, for those of all, `(B, n)`."""
        parts = torch.split(evidence, [math.prod(shape) for shape in self.shapes], 1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def forward(self, i: int, seen: Sequence[Tensor], x: Tensor) -> DiagonalGaussian:
        """Returns q of layer i.

        Args:
            i: Its number from the top.
            seen: What `split` returned.
            x: The decoder's features.
        """
        raw = self.blocks[i](torch.cat([x, seen[i // self.per_resolution]], 1))
        return DiagonalGaussian.from_raw(*raw.chunk(2, 1))


def resized(x: Tensor, size: Size) -> Tensor:
    """Returns features with repeated pixels at a size, or unchanged if they have it."""
    return x if tuple(x.shape[2:]) == size else F.interpolate(x, size=size, mode="nearest")
