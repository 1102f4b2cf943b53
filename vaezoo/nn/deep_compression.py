"""Encoder and decoder of the deep compression autoencoder (Chen et al. 2024, arXiv 2410.10733).

Names of the parameters are those of diffusers' AutoencoderDC. Pixels lie between -1 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, TypeVar

from torch import Tensor, nn

from vaezoo.errors import VaezooError
from vaezoo.nn.efficient_vit import (
    BLOCK_ACTIVATIONS,
    BlockActivation,
    Down,
    EfficientViTBlock,
    Norm,
    ResBlock,
    RMSNorm,
    Up,
    group_means,
    repeat_channels,
)

BlockType = Literal["residual", "efficient-vit"]

ValueT = TypeVar("ValueT")


class Stage(NamedTuple):
    """The blocks at one resolution.

    Attributes:
        channels: Channels of the blocks.
        layers: Number of blocks.
        block: Their type.
        kernel_sizes: Of the surroundings that attention sees besides each pixel, odd numbers.
        norm: The normalisation, but that of gated convolutions, which is always `rms`.
        activation: The activation of residual blocks.
    """

    channels: int
    layers: int
    block: BlockType
    kernel_sizes: tuple[int, ...]
    norm: Norm = "rms"
    activation: BlockActivation = "silu"

    def blocks(self, head_dim: int) -> list[nn.Module]:
        """Returns the blocks."""
        if self.block == "residual":
            return [ResBlock(self.channels, self.norm, self.activation) for _ in range(self.layers)]
        return [EfficientViTBlock(self.channels, head_dim, self.kernel_sizes, self.norm) for _ in range(self.layers)]


class Settings(NamedTuple):
    """The settings of encoder or decoder, besides those of each resolution.

    Attributes:
        latent_channels: Channels of the latents.
        head_dim: Channels of a head of attention.
        rearranged: Whether pixels are rearranged into channels at each change of the resolution, and back. Otherwise
            convolutions of stride 2 halve an image, and pixels are repeated to double one.
        latent_shortcut: Whether a shortcut goes around the convolution next to the latents.
    """

    latent_channels: int
    head_dim: int
    rearranged: bool
    latent_shortcut: bool


class Encoder(nn.Module):
    """From images `(B, in_channels, H, W)` to latents `(B, latent_channels, H / factor, W / factor)`.

    Args:
        stages: The resolutions, from fine to coarse. The first may have no blocks: the first layer halves the image.
        settings: Its settings.
        in_channels: Channels of the images.
    """

    def __init__(self, stages: Sequence[Stage], settings: Settings, in_channels: int) -> None:
        super().__init__()
        first, last = stages[0], stages[-1].channels
        self.conv_in: nn.Module
        if first.layers:
            self.conv_in = nn.Conv2d(in_channels, first.channels, 3, padding=1)
        else:
            self.conv_in = Down(in_channels, stages[1].channels, settings.rearranged, shortcut=False)
        downs = [
            [Down(fine.channels, coarse.channels, settings.rearranged, shortcut=True)] if fine.layers else []
            for fine, coarse in pairwise(stages)
        ]
        self.down_blocks = nn.ModuleList(
            nn.Sequential(*stage.blocks(settings.head_dim), *down)
            for stage, down in zip(stages, [*downs, []], strict=True)
        )
        self.conv_out = nn.Conv2d(last, settings.latent_channels, 3, padding=1)
        self.group = last // settings.latent_channels if settings.latent_shortcut else 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for stage in self.down_blocks:
            x = stage(x)
        z: Tensor = self.conv_out(x)
        return z + group_means(x, self.group) if self.group else z


class Decoder(nn.Module):
    """From latents `(B, latent_channels, h, w)` to `(B, out_channels, h factor, w factor)`.

    Args:
        stages: The resolutions, from fine to coarse. The first may have no blocks: the last layer doubles the image.
        settings: Its settings.
        out_channels: Channels of the parameters of p(x|z).
        activation: The activation before the last layer.
    """

    def __init__(
        self, stages: Sequence[Stage], settings: Settings, out_channels: int, activation: BlockActivation
    ) -> None:
        super().__init__()
        last = stages[-1].channels
        self.conv_in = nn.Conv2d(settings.latent_channels, last, 3, padding=1)
        self.repeats = last // settings.latent_channels if settings.latent_shortcut else 0
        ups = [
            [Up(coarse.channels, fine.channels, settings.rearranged, shortcut=True)] if fine.layers else []
            for fine, coarse in pairwise(stages)
        ]
        self.up_blocks = nn.ModuleList(
            nn.Sequential(*up, *stage.blocks(settings.head_dim)) for stage, up in zip(stages, [*ups, []], strict=True)
        )
        inner = stages[0].channels if stages[0].layers else stages[1].channels
        self.norm_out = RMSNorm(inner)
        self.conv_act = BLOCK_ACTIVATIONS[activation]()
        self.conv_out: nn.Conv2d | Up
        if stages[0].layers:
            self.conv_out = nn.Conv2d(inner, out_channels, 3, padding=1)
        else:
            self.conv_out = Up(inner, out_channels, settings.rearranged, shortcut=False)

    def forward(self, z: Tensor) -> Tensor:
        x = self.conv_in(z)
        if self.repeats:
            x = x + repeat_channels(z, self.repeats)
        for stage in reversed(self.up_blocks):
            x = stage(x)
        params: Tensor = self.conv_out(self.conv_act(self.norm_out(x)))
        return params


def check_stages(prefix: str, stages: Sequence[Stage], settings: Settings) -> None:
    """Raises VaezooError unless the blocks and shortcuts of encoder or decoder fit each other.

    Args:
        prefix: What the names of the options begin with.
        stages: The resolutions, from fine to coarse.
        settings: Those of the network.
    """
    empty = [i for i, stage in enumerate(stages) if stage.layers < (1 if i > 0 or len(stages) == 1 else 0)]
    if empty:
        what = f"option '{prefix}layers' has {stages[empty[0]].layers} blocks at resolution {empty[0] + 1}"
        raise VaezooError(what, "give at least 1; only the first of several resolutions may have none")
    for fine, coarse in pairwise(stages):
        if fine.layers and 4 * fine.channels % coarse.channels:
            what = f"a shortcut leads from {4 * fine.channels} channels of rearranged pixels to {coarse.channels}"
            raise VaezooError(what, f"give '{prefix}channels' each of which divides four times the one before")
    last = stages[-1].channels
    if settings.latent_shortcut and last % settings.latent_channels:
        what = f"a shortcut divides {last} channels into {settings.latent_channels} groups, those of the latents"
        raise VaezooError(what, "give latent_channels that divide the last channels, or leave out the shortcut")
    for stage in stages:
        if stage.layers and stage.block == "efficient-vit" and stage.channels < settings.head_dim:
            what = f"attention at {stage.channels} channels has no head of {settings.head_dim}"
            raise VaezooError(what, "give a smaller head_dim, or residual blocks there")


def check_unshuffled(stages: Sequence[Stage]) -> None:
    """Raises VaezooError unless a pixel-unshuffle can make the channels of all resolutions but the first."""
    if uneven := [stage.channels for stage in stages[1:] if stage.channels % 4]:
        what = f"a pixel-unshuffle makes four channels of each, so it cannot make {uneven[0]}"
        raise VaezooError(what, "give multiples of 4, or downsample=conv")


def spread(option: str, values: Sequence[ValueT], count: int) -> list[ValueT]:
    """Returns one value for each resolution: the first also for those that are finer.

    Raises:
        VaezooError: If there is no value, or more than there are resolutions.
    """
    if not 1 <= len(values) <= count:
        raise VaezooError(f"option '{option}' has {len(values)} values", f"give 1 to {count}, as there are resolutions")
    return [values[0]] * (count - len(values)) + list(values)


def kernel_sizes(option: str, texts: Sequence[str], count: int) -> list[tuple[int, ...]]:
    """Returns the kernel sizes that an option names at each resolution.

    Raises:
        VaezooError: If a text names none, or the number of texts is another one; see `spread`.
    """
    sizes = []
    for text in spread(option, texts, count):
        numbers = [] if text == "none" else text.split("+")
        if not all(number.isascii() and number.isdigit() and int(number) % 2 for number in numbers):
            raise VaezooError(f"option '{option}' is '{text}'", "give odd numbers, such as 5 or 3+5, or none")
        sizes.append(tuple(map(int, numbers)))
    return sizes
