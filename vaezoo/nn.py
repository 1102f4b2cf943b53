"""Networks that several models share: dense, and convolutional for any picture from 8x8 to 256x256."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.data.base import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.vae import GaussianVAE

Activation = Literal["relu", "leaky-relu", "elu", "silu", "gelu", "tanh", "softplus"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
}

SMALLEST_PICTURE, LARGEST_PICTURE = 8, 256  # pixels a side
COARSEST = 7  # pixels a side where the derived convolutions stop halving
FIRST_CHANNELS, MOST_CHANNELS = 32, 256


def positive(option: str, *values: int) -> None:
    """Raises VaezooError unless every value of an option is at least 1."""
    if any(value < 1 for value in values):
        raise VaezooError(f"option '{option}' holds {min(values)}", f"give '{option}' at least 1")


def mlp(sizes: tuple[int, ...], activation: Activation) -> list[nn.Module]:
    """Returns dense layers from sizes[0] to sizes[-1] with an activation between each two."""
    layers: list[nn.Module] = []
    for i in range(1, len(sizes)):
        layers += [nn.Linear(sizes[i - 1], sizes[i]), ACTIVATIONS[activation]()]
    return layers[:-1]


@dataclass(frozen=True, kw_only=True)
class ConvConfig:
    """The options of a convolutional VAE.

    Attributes:
        latent_dim: Number of latent dimensions.
        channels: Output channels of each convolution, each of which halves the picture; empty: 32, 64, 128 ...
            (at most 256), as many as bring the shorter side to 7 pixels or fewer.
    """

    latent_dim: int = 16
    channels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        positive("latent_dim", self.latent_dim)
        positive("channels", *self.channels)


def picture_channels(data: DataSpec, channels: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the channels of each halving convolution: those given, or derived from the picture's size.

    Raises:
        UnsupportedDataError: If the data are no pictures of 8x8 to 256x256 pixels, or too small for the channels.
    """
    sides = data.shape[1:]
    if not sides or min(sides) < SMALLEST_PICTURE or max(sides) > LARGEST_PICTURE:
        raise UnsupportedDataError(
            f"data set '{data.name}' has shape {data.shape}; convolutions take pictures from 8x8 to 256x256",
            "bring pictures to a size with --size, or take mlp-vae",
        )
    if channels:
        if min(sides) >> len(channels) < 1:
            raise UnsupportedDataError(
                f"{len(channels)} halvings leave nothing of a picture of {sides[0]}x{sides[1]} pixels",
                "give fewer channels",
            )
        return channels
    depth = 1
    while min(sides) >> depth > COARSEST:
        depth += 1
    return tuple(min(FIRST_CHANNELS << i, MOST_CHANNELS) for i in range(depth))


def conv_layers(data: DataSpec, channels: tuple[int, ...], activation: type[nn.Module]) -> list[nn.Module]:
    """Returns convolutions, each followed by its activation, that halve the picture once for each entry of `channels`.

    Kernel 4, stride 2, padding 1: a side of n pixels becomes n // 2.
    """
    layers: list[nn.Module] = []
    for before, after in zip((data.shape[0], *channels), channels, strict=False):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), activation()]
    return layers


class Doubling(nn.ConvTranspose2d):
    """A transposed convolution that doubles the picture: kernel 4, stride 2, padding 1.

    Trained on a CPU with one output channel it goes by way of a matrix product and `fold`: with its gradients oneDNN's
    transposed convolution from 32 channels of 14x14 to one took 7.0 ms for a batch of 128, this takes 1.9. For three
    channels it is no faster.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        odd: 1 for a side that has one row or column more than twice the input's.
    """

    def __init__(self, inputs: int, outputs: int, odd: tuple[int, int]) -> None:
        super().__init__(inputs, outputs, 4, stride=2, padding=1, output_padding=odd)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not self.training or self.out_channels > 1 or x.device.type != "cpu":
            return super().forward(x, output_size)
        assert self.bias is not None
        n, _, height, width = x.shape
        weight = self.weight.flatten(1).t().expand(n, -1, -1)
        size = (2 * height + self.output_padding[0], 2 * width + self.output_padding[1])
        return F.fold(weight @ x.flatten(2), size, 4, stride=2, padding=1) + self.bias.view(-1, 1, 1)


def coarse_shape(data: DataSpec, channels: tuple[int, ...]) -> tuple[int, int, int]:
    """Returns `(channels, height, width)` behind the last halving convolution."""
    _, height, width = data.shape
    return channels[-1], height >> len(channels), width >> len(channels)


def conv_encoder(data: DataSpec, channels: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Returns a network from pictures `(B, C, H, W)` to `(B, outputs)`."""
    c, h, w = coarse_shape(data, channels)
    return nn.Sequential(*conv_layers(data, channels, nn.ReLU), nn.Flatten(), nn.Linear(c * h * w, outputs))


def conv_decoder(data: DataSpec, channels: tuple[int, ...], inputs: int) -> nn.Sequential:
    """Returns the mirror image of `conv_encoder`: from `(B, inputs)` to unbounded `(B, C, H, W)`."""
    c, h, w = coarse_shape(data, channels)
    layers: list[nn.Module] = [nn.Linear(inputs, c * h * w), nn.ReLU(), nn.Unflatten(1, (c, h, w))]
    outputs = (data.shape[0], *channels)
    for i in reversed(range(len(channels))):
        # A halving dropped the last row or column of an odd side; output_padding gives it back.
        odd = (data.shape[1] >> i & 1, data.shape[2] >> i & 1)
        layers += [Doubling(outputs[i + 1], outputs[i], odd), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def conv_vae(config: ConvConfig, data: DataSpec) -> GaussianVAE:
    """Builds the convolutional VAE that conv-vae, beta-vae and vae-gan share."""
    channels = picture_channels(data, config.channels)
    return GaussianVAE(
        data,
        config.latent_dim,
        conv_encoder(data, channels, 2 * config.latent_dim),
        conv_decoder(data, channels, config.latent_dim),
    )
