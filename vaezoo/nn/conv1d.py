"""Convolutional networks for series of any length from 8 steps on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from vaezoo.core.options import require_positive
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.likelihoods.base import Shape
from vaezoo.nn.activations import Activation
from vaezoo.nn.mlp import flatten, unflatten
from vaezoo.nn.strided import ConvSpec, chain_specs, conv_decoder, conv_encoder, derived_channels, require_strides

MIN_LENGTH = 8  # steps of time


@dataclass(frozen=True, kw_only=True)
class Conv1dEncoderConfig:
    """The options of an encoder of strided convolutions over time.

    Attributes:
        latent_dim: Number of latent dimensions.
        channels: Output channels of each convolution. Empty: 32, 64, 128 ... (at most 256), one for each halving until
            at most 7 steps are left.
        strides: Stride of each of these convolutions, such as 4 to keep every fourth step. Empty: all 2.
        kernel_size: Kernel size of each convolution in steps. Strides of s need at least 2 s - 1, so that no step is
            left out, also at the end of a series whose length s does not divide.
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
        for name in ("latent_dim", "kernel_size"):
            require_positive(name, getattr(self, name))
        for name in ("channels", "strides", "dense"):
            require_positive(name, *getattr(self, name))
        require_strides(self.strides, self.channels)
        largest = max(self.strides, default=2)
        if self.kernel_size < 2 * largest - 1:
            raise VaezooError(
                f"a stride of {largest} leaves out steps with kernel_size {self.kernel_size}",
                f"give kernel_size={2 * largest - 1} or more",
            )

    def input_shape(self, data: DataSpec) -> Shape:
        """Returns the shape in which the encoder takes features: that of a series."""
        return data.features_shape

    def make_encoder(self, data: DataSpec, inputs: Shape, outputs: Shape) -> nn.Sequential:
        """Returns a network from series `(B, *inputs)` to `(B, *outputs)`. Raises as `conv1d_specs` does."""
        specs = conv1d_specs(self, data, inputs[0])
        return nn.Sequential(*conv_encoder(self, specs, math.prod(outputs)), *unflatten(outputs))


@dataclass(frozen=True, kw_only=True)
class Conv1dConfig(Conv1dEncoderConfig):
    """The options of a VAE of strided convolutions over time."""

    def make_decoder(self, data: DataSpec, inputs: Shape, outputs: Shape) -> nn.Sequential:
        """Returns a network from `(B, *inputs)` to unbounded `(B, *outputs)`, the reverse of the encoder."""
        return conv1d_decoder(self, data, inputs, outputs)


def conv1d_decoder(config: Conv1dEncoderConfig, data: DataSpec, inputs: Shape, outputs: Shape) -> nn.Sequential:
    """Returns a network from `(B, *inputs)` to unbounded `(B, *outputs)`, the reverse of an encoder."""
    specs = conv1d_specs(config, data, outputs[0])
    return nn.Sequential(*flatten(inputs), *conv_decoder(config, specs, math.prod(inputs)))


def conv1d_specs(config: Conv1dEncoderConfig, data: DataSpec, in_channels: int) -> list[ConvSpec]:
    """Returns the encoder's convolutions.

    Args:
        config: The options.
        data: The series.
        in_channels: Channels of the network's input.

    Raises:
        UnsupportedDataError: If the data are not series of at least 8 steps, or are too short for the channels.
    """
    if len(data.shape) != 2 or data.shape[1] < MIN_LENGTH:
        raise UnsupportedDataError(
            f"data set '{data.name}' has shape {data.shape}, but convolutions over time need series (channels, time) "
            f"of at least {MIN_LENGTH} steps",
            "use mlp-vae, or give series as data",
        )
    channels = config.channels or derived_channels(data.shape[1])
    strides = config.strides or (2,) * len(channels)
    specs = chain_specs(in_channels, data.shape[1:], channels, strides, config.kernel_size)
    if specs[-1].out_size[0] < 1:
        raise UnsupportedDataError(
            f"a series of {data.shape[1]} steps is too short for {len(channels)} convolutions with strides of "
            f"{', '.join(map(str, strides))}",
            "give fewer channels, smaller strides or an odd kernel_size",
        )
    return specs
