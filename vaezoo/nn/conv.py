"""Convolutional networks for images from 8x8 to 256x256 pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core.options import require_positive
from vaezoo.data.base import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.gaussian_vae import GaussianVAE
from vaezoo.likelihoods.base import Shape
from vaezoo.nn.activations import ACTIVATIONS, Activation, gate_factor
from vaezoo.nn.mlp import flatten, hidden_layers, mlp_layers, unflatten

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 8, 256  # pixels per side
COARSE_SIZE = 7  # derived convolutions halve the image until its shorter side has at most this many pixels
COLOUR_LATENTS = 128  # by default; docs/models.md has the reconstruction errors of other sizes
FIRST_CHANNELS, MAX_CHANNELS = 32, 256


@dataclass(frozen=True, kw_only=True)
class ConvConfig:
    """The options of a convolutional VAE.

    Attributes:
        latent_dim: Number of latent dimensions.
        channels: Output channels of each convolution. Empty: 32, 64, 128 ... (at most 256), one for each halving until
            the shorter side has at most 7 pixels.
        strides: Stride of each of these convolutions: 2 halves the image, 1 keeps its size. Empty: all 2.
        kernel_size: Kernel size of each convolution in pixels, 4 or 3. A stride of 1 needs 3.
        dense: Sizes of hidden layers between the convolutions and the latents. The decoder has the same sizes in
            reverse order.
        activation: Activation between the layers. With `gated`, the sigmoid of a second layer multiplies each of
            them but the last.

    Raises:
        VaezooError: If a value is out of range, or two options do not fit together.
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
                f"option 'strides' has {len(self.strides)} values, but 'channels' has {len(self.channels)}",
                "give one stride for each of the channels",
            )
        if not set(self.strides) <= {1, 2}:
            raise VaezooError(
                f"option 'strides' contains {sorted({*self.strides} - {1, 2})[0]}", "give strides of 1 or 2"
            )
        if self.kernel_size not in (3, 4):
            raise VaezooError(f"option 'kernel_size' is {self.kernel_size}", "give 'kernel_size' 3 or 4")
        if 1 in self.strides and self.kernel_size != 3:
            raise VaezooError(
                f"a stride of 1 changes the image size with kernel_size {self.kernel_size}", "give kernel_size=3"
            )

    def input_shape(self, data: DataSpec) -> Shape:
        """Returns the shape in which the encoder takes features: that of an image."""
        return data.features_shape

    def make_encoder(self, data: DataSpec, inputs: Shape, outputs: Shape) -> nn.Sequential:
        """Returns a network from images `(B, *inputs)` to `(B, *outputs)`. Raises as `conv_channels` does."""
        specs = conv_specs(self, data, inputs[0])
        return nn.Sequential(*conv_encoder(self, specs, math.prod(outputs)), *unflatten(outputs))

    def make_decoder(self, data: DataSpec, inputs: Shape, outputs: Shape) -> nn.Sequential:
        """Returns a network from `(B, *inputs)` to unbounded `(B, *outputs)`, the reverse of the encoder."""
        specs = conv_specs(self, data, outputs[0])
        return nn.Sequential(*flatten(inputs), *conv_decoder(self, specs, math.prod(inputs)))


def image_latents(data: DataSpec) -> dict[str, object]:
    """Returns the default number of latent dimensions where it depends on the data: 128 for images in colour."""
    return {"latent_dim": COLOUR_LATENTS} if len(data.shape) == 3 and data.shape[0] == 3 else {}


class ConvSpec(NamedTuple):
    """One convolution of an encoder with padding 1. The decoder builds its counterpart from it.

    Attributes:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        in_size: Height and width of the input in pixels.
        out_size: Height and width of the output in pixels.
        stride: 2 or 1.
        kernel_size: Pixels per side.
    """

    in_channels: int
    out_channels: int
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    stride: int
    kernel_size: int


def conv_specs(config: ConvConfig, data: DataSpec, in_channels: int | None = None) -> list[ConvSpec]:
    """Returns the encoder's convolutions. Raises as `conv_channels` does.

    Args:
        config: The options.
        data: The images.
        in_channels: Channels of the network's input. By default those of the images.
    """
    channels = conv_channels(data, config.channels, config.strides.count(1))
    strides = config.strides or (2,) * len(channels)
    specs, in_channels, in_size = [], in_channels or data.shape[0], (data.shape[1], data.shape[2])
    for out_channels, stride in zip(channels, strides, strict=True):
        height, width = ((side + 2 - config.kernel_size) // stride + 1 for side in in_size)
        specs.append(ConvSpec(in_channels, out_channels, in_size, (height, width), stride, config.kernel_size))
        in_channels, in_size = out_channels, (height, width)
    return specs


def conv_channels(data: DataSpec, channels: tuple[int, ...], stride_1_count: int = 0) -> tuple[int, ...]:
    """Returns the output channels of each convolution: `channels`, or values derived from the image size.

    Args:
        data: The images.
        channels: Requested channels, or empty to derive them.
        stride_1_count: How many of the requested convolutions have stride 1.

    Raises:
        UnsupportedDataError: If the data are not images of 8x8 to 256x256 pixels, or are too small for the channels.
    """
    sides = data.shape[1:]
    if (
        len(sides) != 2
        or data.kind not in ("unit", "real")
        or min(sides) < MIN_IMAGE_SIZE
        or max(sides) > MAX_IMAGE_SIZE
    ):
        raise UnsupportedDataError(
            f"data set '{data.name}' has shape {data.shape}, but convolutions need images from 8x8 to 256x256 pixels",
            "use mlp-vae, or resize images: --image-size for image files, your own program for arrays",
        )
    if channels:
        halvings = len(channels) - stride_1_count
        if min(sides) >> halvings < 1:
            raise UnsupportedDataError(
                f"an image of {sides[0]}x{sides[1]} pixels is too small for {halvings} halvings",
                "give fewer channels",
            )
        return channels
    depth = 1
    while min(sides) >> depth > COARSE_SIZE:
        depth += 1
    return tuple(min(FIRST_CHANNELS << i, MAX_CHANNELS) for i in range(depth))


def conv_layers(specs: list[ConvSpec], activation: Activation) -> list[nn.Module]:
    """Returns convolutions. An activation follows each of them."""
    layers: list[nn.Module] = []
    for spec in specs:
        out_channels = gate_factor(activation) * spec.out_channels
        layers += [
            nn.Conv2d(spec.in_channels, out_channels, spec.kernel_size, spec.stride, padding=1),
            ACTIVATIONS[activation](),
        ]
    return layers


class Upsample2x(nn.ConvTranspose2d):
    """A transposed convolution with stride 2 and padding 1, the reverse of a halving convolution.

    A side of n pixels becomes 2n - 4 + kernel_size + output_padding.

    When it trains on a CPU with one output channel, it uses a matrix product and `fold`. From 32 channels of 14x14 to
    one, a batch of 128 with its gradients took 1.9 ms. oneDNN's transposed convolution took 7.0 ms. With three output
    channels `fold` is not faster.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        output_padding: Additional rows and columns of the output, 0 or 1 each.
        kernel_size: Pixels per side, 4 or 3.
    """

    def __init__(
        self, in_channels: int, out_channels: int, output_padding: tuple[int, int], kernel_size: int = 4
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=2, padding=1, output_padding=output_padding)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not self.training or self.out_channels > 1 or x.device.type != "cpu":
            return super().forward(x, output_size)
        assert self.bias is not None
        n, _, height, width = x.shape
        kernel, (extra_rows, extra_columns) = self.kernel_size[0], self.output_padding
        # A transposed convolution adds one kernel to the output for each input pixel, weighted by its channels.
        # First all these kernels at once: (N, out * k * k, in) @ (N, in, H * W) -> (N, out * k * k, H * W).
        weight = self.weight.flatten(1).t().expand(n, -1, -1)
        patches = weight @ x.flatten(2)
        # Then `fold` adds up the k x k patches where they overlap: two pixels apart, less a border of one pixel.
        size = (2 * height - 4 + kernel + extra_rows, 2 * width - 4 + kernel + extra_columns)
        return F.fold(patches, size, kernel, stride=2, padding=1) + self.bias.view(-1, 1, 1)


def transposed_layer(spec: ConvSpec, factor: int = 1) -> nn.Module:
    """Returns the decoder's counterpart of a convolution. Its output has `spec.in_size` and factor * in_channels."""
    if spec.stride == 1:
        return nn.Conv2d(spec.out_channels, factor * spec.in_channels, spec.kernel_size, padding=1)
    # A halving rounds odd sides down with kernel size 4, and up with 3. Output padding makes up the difference.
    height, width = (a - (2 * b - 4 + spec.kernel_size) for a, b in zip(spec.in_size, spec.out_size, strict=True))
    return Upsample2x(spec.out_channels, factor * spec.in_channels, (height, width), spec.kernel_size)


def conv_encoder(config: ConvConfig, specs: list[ConvSpec], out_features: int) -> nn.Sequential:
    """Returns a network from images `(B, C, H, W)` to `(B, out_features)`."""
    sizes = (specs[-1].out_channels * math.prod(specs[-1].out_size), *config.dense, out_features)
    return nn.Sequential(*conv_layers(specs, config.activation), nn.Flatten(), *mlp_layers(sizes, config.activation))


def conv_decoder(config: ConvConfig, specs: list[ConvSpec], in_features: int) -> nn.Sequential:
    """Returns the reverse of `conv_encoder`, from `(B, in_features)` to unbounded `(B, C, H, W)`."""
    coarse, activation = (specs[-1].out_channels, *specs[-1].out_size), config.activation
    sizes = (in_features, *reversed(config.dense), math.prod(coarse))
    layers = [*hidden_layers(sizes, activation), nn.Unflatten(1, coarse)]
    for spec in reversed(specs[1:]):
        layers += [transposed_layer(spec, gate_factor(activation)), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, transposed_layer(specs[0]))


def conv_vae(config: ConvConfig, data: DataSpec, *, init_bias: bool = True) -> GaussianVAE:
    """Builds the convolutional VAE that conv-vae, beta-vae and vae-gan share.

    Args:
        config: The options.
        data: The data to model.
        init_bias: As in GaussianVAE.

    Raises:
        UnsupportedDataError: As in `conv_channels`.
    """
    encoder, decoder = (
        conv_encoder(config, conv_specs(config, data), 2 * config.latent_dim),
        conv_decoder(config, conv_specs(config, data, data.params_shape[0]), config.latent_dim),
    )
    return GaussianVAE(data, config.latent_dim, encoder, decoder, init_bias=init_bias)
