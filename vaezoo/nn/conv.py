"""Convolutional networks for images from 8x8 to 256x256 pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from vaezoo.core.options import require_positive
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.gaussian_vae import GaussianVAE
from vaezoo.likelihoods.base import Shape
from vaezoo.nn.activations import Activation
from vaezoo.nn.mlp import flatten, unflatten
from vaezoo.nn.strided import ConvSpec, chain_specs, conv_decoder, conv_encoder, derived_channels, require_strides

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 8, 256  # pixels per side
COLOUR_LATENTS = 128  # by default; docs/models.md has the reconstruction errors of other sizes


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
        require_strides(self.strides, self.channels)
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


def conv_specs(config: ConvConfig, data: DataSpec, in_channels: int | None = None) -> list[ConvSpec]:
    """Returns the encoder's convolutions. Raises as `conv_channels` does.

    Args:
        config: The options.
        data: The images.
        in_channels: Channels of the network's input. By default those of the images.
    """
    channels = conv_channels(data, config.channels, config.strides.count(1))
    strides = config.strides or (2,) * len(channels)
    return chain_specs(in_channels or data.shape[0], data.shape[1:], channels, strides, config.kernel_size)


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
    return derived_channels(min(sides))


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
