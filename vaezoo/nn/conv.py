"""Convolutional networks for images from 8x8 to 256x256 pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.data.base import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.nn.activations import ACTIVATIONS, Activation, gate_factor, require_positive
from vaezoo.nn.mlp import hidden_layers, mlp_layers
from vaezoo.vae import GaussianVAE

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 8, 256  # pixels per side
COARSEST = 7  # pixels per side at which the derived convolutions stop halving
FIRST_CHANNELS, MAX_CHANNELS = 32, 256


@dataclass(frozen=True, kw_only=True)
class ConvConfig:
    """The options of a convolutional VAE.

    Attributes:
        latent_dim: Number of latent dimensions.
        channels: Output channels of each convolution; empty: 32, 64, 128 ... (at most 256), as many as bring the
            shorter side to 7 pixels or fewer.
        strides: For each of these channels 2, which halves the image, or 1, which does not; empty: all 2.
        kernel_size: Pixels per side of each convolution: 4, or 3, which strides of 1 need.
        dense: Sizes of hidden layers between the convolutions and the latents; the decoder has them in reverse.
        activation: Between the layers; gated: each of them but the last is multiplied by the sigmoid of a second one.
    """

    latent_dim: int = 16
    channels: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    kernel_size: int = 4
    dense: tuple[int, ...] = ()
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        require_positive("latent_dim", self.latent_dim)
        require_positive("channels", *self.channels)
        require_positive("dense", *self.dense)
        if self.strides and len(self.strides) != len(self.channels):
            raise VaezooError(
                f"option 'strides' has {len(self.strides)} values, 'channels' {len(self.channels)}",
                "give both, as many of the one as of the other",
            )
        if not set(self.strides) <= {1, 2}:
            raise VaezooError(f"option 'strides' holds {sorted({*self.strides} - {1, 2})[0]}", "give strides of 1 or 2")
        if self.kernel_size not in (3, 4):
            raise VaezooError(f"option 'kernel_size' is {self.kernel_size}", "give 'kernel_size' 3 or 4")
        if 1 in self.strides and self.kernel_size != 3:
            raise VaezooError(
                f"with kernel_size {self.kernel_size} a stride of 1 changes the image's size", "give kernel_size=3"
            )


class ConvSpec(NamedTuple):
    """One convolution of an encoder, padding 1, and what its counterpart in the decoder has to know.

    Attributes:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        in_size: Height and width of the input, in pixels.
        out_size: Height and width of the output, in pixels.
        stride: 2 or 1.
        kernel_size: Pixels per side.
    """

    in_channels: int
    out_channels: int
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    stride: int
    kernel_size: int


def conv_specs(config: ConvConfig, data: DataSpec) -> list[ConvSpec]:
    """Returns the encoder's convolutions; raises as `conv_channels` does."""
    channels = conv_channels(data, config.channels, config.strides.count(1))
    strides = config.strides or (2,) * len(channels)
    found, inputs, before = [], data.shape[0], (data.shape[1], data.shape[2])
    for outputs, stride in zip(channels, strides, strict=True):
        height, width = ((side + 2 - config.kernel_size) // stride + 1 for side in before)
        found.append(ConvSpec(inputs, outputs, before, (height, width), stride, config.kernel_size))
        inputs, before = outputs, (height, width)
    return found


def conv_channels(data: DataSpec, channels: tuple[int, ...], keeping: int = 0) -> tuple[int, ...]:
    """Returns the channels of each convolution: those given, or derived from the image's size.

    Args:
        data: What the images are like.
        channels: The channels that were asked for; empty to derive them.
        keeping: How many of these convolutions keep the image's size.

    Raises:
        UnsupportedDataError: If the data are no images of 8x8 to 256x256 pixels, or too small for the channels.
    """
    sides = data.shape[1:]
    if not sides or min(sides) < MIN_IMAGE_SIZE or max(sides) > MAX_IMAGE_SIZE:
        raise UnsupportedDataError(
            f"data set '{data.name}' has shape {data.shape}; convolutions take images from 8x8 to 256x256",
            "bring images to a size with --image-size, or take mlp-vae",
        )
    if channels:
        halvings = len(channels) - keeping
        if min(sides) >> halvings < 1:
            raise UnsupportedDataError(
                f"{halvings} halvings leave nothing of an image of {sides[0]}x{sides[1]} pixels",
                "give fewer channels",
            )
        return channels
    depth = 1
    while min(sides) >> depth > COARSEST:
        depth += 1
    return tuple(min(FIRST_CHANNELS << i, MAX_CHANNELS) for i in range(depth))


def conv_layers(layers: list[ConvSpec], activation: Activation) -> list[nn.Module]:
    """Returns convolutions, each followed by its activation."""
    made: list[nn.Module] = []
    for layer in layers:
        outputs = gate_factor(activation) * layer.out_channels
        made += [
            nn.Conv2d(layer.in_channels, outputs, layer.kernel_size, layer.stride, padding=1),
            ACTIVATIONS[activation](),
        ]
    return made


class Upsample2x(nn.ConvTranspose2d):
    """A transposed convolution that undoes a halving: stride 2, padding 1.

    Trained on a CPU with one output channel it goes by way of a matrix product and `fold`: with its gradients oneDNN's
    transposed convolution from 32 channels of 14x14 to one took 7.0 ms for a batch of 128, this takes 1.9. For three
    channels it is no faster.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        extra: Rows and columns, 0 or 1, besides the 2n - 4 + kernel that n become.
        kernel: Pixels a side, 4 or 3.
    """

    def __init__(self, inputs: int, outputs: int, extra: tuple[int, int], kernel: int = 4) -> None:
        super().__init__(inputs, outputs, kernel, stride=2, padding=1, output_padding=extra)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not self.training or self.out_channels > 1 or x.device.type != "cpu":
            return super().forward(x, output_size)
        assert self.bias is not None
        n, _, height, width = x.shape
        kernel, (down, right) = self.kernel_size[0], self.output_padding
        weight = self.weight.flatten(1).t().expand(n, -1, -1)
        size = (2 * height - 4 + kernel + down, 2 * width - 4 + kernel + right)
        return F.fold(weight @ x.flatten(2), size, kernel, stride=2, padding=1) + self.bias.view(-1, 1, 1)


def transposed_layer(layer: ConvSpec, times: int = 1) -> nn.Module:
    """Returns the decoder's counterpart of a convolution: the size that came in, and `times` its channels."""
    if layer.stride == 1:
        return nn.Conv2d(layer.out_channels, times * layer.in_channels, layer.kernel_size, padding=1)
    # A halving rounds odd sides (down with kernel 4, up with 3): the rows and columns that doubling would miss.
    height, width = (a - (2 * b - 4 + layer.kernel_size) for a, b in zip(layer.in_size, layer.out_size, strict=True))
    return Upsample2x(layer.out_channels, times * layer.in_channels, (height, width), layer.kernel_size)


def conv_encoder(config: ConvConfig, layers: list[ConvSpec]) -> nn.Sequential:
    """Returns a network from images `(B, C, H, W)` to `(B, 2 * latent_dim)`."""
    sizes = (layers[-1].out_channels * math.prod(layers[-1].out_size), *config.dense, 2 * config.latent_dim)
    return nn.Sequential(*conv_layers(layers, config.activation), nn.Flatten(), *mlp_layers(sizes, config.activation))


def conv_decoder(config: ConvConfig, layers: list[ConvSpec]) -> nn.Sequential:
    """Returns the mirror image of `conv_encoder`: from `(B, latent_dim)` to unbounded `(B, C, H, W)`."""
    coarse, activation = (layers[-1].out_channels, *layers[-1].out_size), config.activation
    sizes = (config.latent_dim, *reversed(config.dense), math.prod(coarse))
    made = [*hidden_layers(sizes, activation), nn.Unflatten(1, coarse)]
    for layer in reversed(layers[1:]):
        made += [transposed_layer(layer, gate_factor(activation)), ACTIVATIONS[activation]()]
    return nn.Sequential(*made, transposed_layer(layers[0]))


def conv_vae(config: ConvConfig, data: DataSpec, make: type[GaussianVAE] = GaussianVAE) -> GaussianVAE:
    """Builds the convolutional VAE that conv-vae, beta-vae and vae-gan share, `make` being its class."""
    layers = conv_specs(config, data)
    return make(
        data,
        config.latent_dim,
        conv_encoder(config, layers),
        conv_decoder(config, layers),
    )
