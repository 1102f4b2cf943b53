"""Strided convolutions of images and series: what their encoders and decoders share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.errors import VaezooError
from vaezoo.nn.activations import Activation, gate_factor, make_activation
from vaezoo.nn.mlp import hidden_layers, mlp_layers

COARSE_SIZE = 7  # derived convolutions halve the input until its shortest side has at most this size
FIRST_CHANNELS, MAX_CHANNELS = 32, 256
CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}  # by axes of the input


class Network(Protocol):
    """The options of a network that are not those of single convolutions."""

    @property
    def dense(self) -> tuple[int, ...]:
        """Sizes of hidden layers between the convolutions and the latents."""

    @property
    def activation(self) -> Activation:
        """Activation between the layers."""


class ConvSpec(NamedTuple):
    """One convolution of an encoder. The decoder builds its counterpart from it.

    Attributes:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        in_size: Size of the input: height and width in pixels, or steps of time.
        out_size: Size of the output.
        stride: How far apart two outputs are in the input.
        kernel_size: Pixels per side, or steps.
    """

    in_channels: int
    out_channels: int
    in_size: tuple[int, ...]
    out_size: tuple[int, ...]
    stride: int
    kernel_size: int

    @property
    def padding(self) -> int:
        """Zeros at each end of an axis: 1 for kernels of 3 and 4."""
        return (self.kernel_size - 1) // 2


def derived_channels(side: int) -> tuple[int, ...]:
    """Returns the output channels of one convolution for each halving of an input whose shortest side is `side`."""
    depth = 1
    while side >> depth > COARSE_SIZE:
        depth += 1
    return tuple(min(FIRST_CHANNELS << i, MAX_CHANNELS) for i in range(depth))


def require_strides(strides: Sequence[int], channels: Sequence[int]) -> None:
    """Raises VaezooError unless there are no strides, or one for each of the channels."""
    if strides and len(strides) != len(channels):
        raise VaezooError(
            f"option 'strides' has {len(strides)} values, but 'channels' has {len(channels)}",
            "give one stride for each of the channels",
        )


def chain_specs(
    in_channels: int, in_size: tuple[int, ...], channels: Sequence[int], strides: Sequence[int], kernel_size: int
) -> list[ConvSpec]:
    """Returns convolutions of which each takes the output of the one before.

    Args:
        in_channels: Channels of the input.
        in_size: Size of the input.
        channels: Output channels of each convolution.
        strides: Stride of each convolution.
        kernel_size: Kernel size of all.
    """
    specs = []
    for out_channels, stride in zip(channels, strides, strict=True):
        spec = ConvSpec(in_channels, out_channels, in_size, in_size, stride, kernel_size)
        in_size = tuple((side + 2 * spec.padding - kernel_size) // stride + 1 for side in in_size)
        specs.append(spec._replace(out_size=in_size))
        in_channels = out_channels
    return specs


def conv_layers(specs: list[ConvSpec], activation: Activation) -> list[nn.Module]:
    """Returns convolutions. An activation follows each of them."""
    layers: list[nn.Module] = []
    for spec in specs:
        out_channels = gate_factor(activation) * spec.out_channels
        layers += [
            CONVOLUTIONS[len(spec.in_size)](
                spec.in_channels, out_channels, spec.kernel_size, spec.stride, spec.padding
            ),
            make_activation(activation, spec.out_channels),
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
    channels = spec.out_channels, factor * spec.in_channels
    # A strided convolution drops the values at the end that fill no kernel. Output padding makes up for them.
    rest = tuple(
        a - ((b - 1) * spec.stride - 2 * spec.padding + spec.kernel_size)
        for a, b in zip(spec.in_size, spec.out_size, strict=True)
    )
    if len(rest) == 1:
        return nn.ConvTranspose1d(*channels, spec.kernel_size, spec.stride, spec.padding, rest[0])
    if spec.stride == 1:
        return nn.Conv2d(*channels, spec.kernel_size, padding=1)
    return Upsample2x(*channels, (rest[0], rest[1]), spec.kernel_size)


def conv_encoder(config: Network, specs: list[ConvSpec], out_features: int) -> nn.Sequential:
    """Returns a network from `(B, in_channels, *in_size)` of the first convolution to `(B, out_features)`."""
    sizes = (specs[-1].out_channels * math.prod(specs[-1].out_size), *config.dense, out_features)
    return nn.Sequential(*conv_layers(specs, config.activation), nn.Flatten(), *mlp_layers(sizes, config.activation))


def conv_decoder(config: Network, specs: list[ConvSpec], in_features: int) -> nn.Sequential:
    """Returns the reverse of `conv_encoder`, from `(B, in_features)` to unbounded values of its input's shape."""
    coarse, activation = (specs[-1].out_channels, *specs[-1].out_size), config.activation
    sizes = (in_features, *reversed(config.dense), math.prod(coarse))
    layers = [*hidden_layers(sizes, activation), nn.Unflatten(1, coarse)]
    for spec in reversed(specs[1:]):
        layers += [
            transposed_layer(spec, gate_factor(activation)),
            make_activation(activation, spec.in_channels),
        ]
    return nn.Sequential(*layers, transposed_layer(specs[0]))
