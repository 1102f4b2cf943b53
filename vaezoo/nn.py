"""Networks that several models share: dense, and convolutional for any picture from 8x8 to 256x256."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.data.base import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.vae import GaussianVAE

Activation = Literal["relu", "leaky-relu", "elu", "silu", "gelu", "tanh", "softplus", "gated"]

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "gated": partial(nn.GLU, dim=1),  # features, or channels
}

SMALLEST_PICTURE, LARGEST_PICTURE = 8, 256  # pixels a side
COARSEST = 7  # pixels a side where the derived convolutions stop halving
FIRST_CHANNELS, MOST_CHANNELS = 32, 256


def positive(option: str, *values: int) -> None:
    """Raises VaezooError unless every value of an option is at least 1."""
    if any(value < 1 for value in values):
        raise VaezooError(f"option '{option}' holds {min(values)}", f"give '{option}' at least 1")


def halves(activation: Activation) -> int:
    """Returns how many times the outputs a layer before this activation puts out.

    A gated layer is (W x + b) * sigmoid(V x + c), as in Tomczak and Welling 2018, arXiv 1705.07120: W and V are the two
    halves of one layer of twice the size, which `nn.GLU` multiplies.
    """
    return 2 if activation == "gated" else 1


def hidden_layers(sizes: tuple[int, ...], activation: Activation) -> list[nn.Module]:
    """Returns dense layers from sizes[0] to sizes[-1], each followed by its activation."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, halves(activation) * outputs), ACTIVATIONS[activation]()]
    return layers


def mlp(sizes: tuple[int, ...], activation: Activation) -> list[nn.Module]:
    """Returns dense layers from sizes[0] to sizes[-1] with an activation between each two."""
    return [*hidden_layers(sizes[:-1], activation), nn.Linear(sizes[-2], sizes[-1])]


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """The options of a model of dense layers.

    Attributes:
        latent_dim: Number of latent dimensions.
        hidden: Sizes of the encoder's hidden layers; the decoder has them in reverse.
        activation: Between the layers; gated: each hidden layer is multiplied by the sigmoid of a second one.
    """

    latent_dim: int = 20
    hidden: tuple[int, ...] = (256, 128)
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        positive("latent_dim", self.latent_dim)
        positive("hidden", *self.hidden)


def dense_encoder(config: DenseConfig, data: DataSpec, outputs: int) -> nn.Sequential:
    """Returns a network from any data to `(B, outputs)`."""
    return nn.Sequential(nn.Flatten(), *mlp((data.dims, *config.hidden, outputs), config.activation))


def dense_decoder(config: DenseConfig, data: DataSpec) -> nn.Sequential:
    """Returns the mirror image of `dense_encoder`: from latents to unbounded `(B, *data.shape)`."""
    sizes = (config.latent_dim, *reversed(config.hidden), data.dims)
    return nn.Sequential(*mlp(sizes, config.activation), nn.Unflatten(1, data.shape))


@dataclass(frozen=True, kw_only=True)
class ConvConfig:
    """The options of a convolutional VAE.

    Attributes:
        latent_dim: Number of latent dimensions.
        channels: Output channels of each convolution; empty: 32, 64, 128 ... (at most 256), as many as bring the
            shorter side to 7 pixels or fewer.
        strides: For each of these channels 2, which halves the picture, or 1, which does not; empty: all 2.
        kernel: Pixels a side of each convolution: 4, or 3, which strides of 1 need.
        dense: Sizes of hidden layers between the convolutions and the latents; the decoder has them in reverse.
        activation: Between the layers; gated: each of them but the last is multiplied by the sigmoid of a second one.
    """

    latent_dim: int = 16
    channels: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    kernel: int = 4
    dense: tuple[int, ...] = ()
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        positive("latent_dim", self.latent_dim)
        positive("channels", *self.channels)
        positive("dense", *self.dense)
        if self.strides and len(self.strides) != len(self.channels):
            raise VaezooError(
                f"option 'strides' has {len(self.strides)} values, 'channels' {len(self.channels)}",
                "give both, as many of the one as of the other",
            )
        if not set(self.strides) <= {1, 2}:
            raise VaezooError(f"option 'strides' holds {sorted({*self.strides} - {1, 2})[0]}", "give strides of 1 or 2")
        if self.kernel not in (3, 4):
            raise VaezooError(f"option 'kernel' is {self.kernel}", "give 'kernel' 3 or 4")
        if 1 in self.strides and self.kernel != 3:
            raise VaezooError(f"with kernel {self.kernel} a stride of 1 changes the picture's size", "give kernel=3")


class Convolution(NamedTuple):
    """One convolution of an encoder, padding 1, and what its counterpart in the decoder has to know.

    Attributes:
        inputs: Channels that come in.
        outputs: Channels that go out.
        before: Height and width that come in.
        after: Height and width that go out.
        stride: 2 or 1.
        kernel: Pixels a side.
    """

    inputs: int
    outputs: int
    before: tuple[int, int]
    after: tuple[int, int]
    stride: int
    kernel: int


def convolutions(config: ConvConfig, data: DataSpec) -> list[Convolution]:
    """Returns the encoder's convolutions; raises as `picture_channels` does."""
    channels = picture_channels(data, config.channels, config.strides.count(1))
    strides = config.strides or (2,) * len(channels)
    found, inputs, before = [], data.shape[0], (data.shape[1], data.shape[2])
    for outputs, stride in zip(channels, strides, strict=True):
        height, width = ((side + 2 - config.kernel) // stride + 1 for side in before)
        found.append(Convolution(inputs, outputs, before, (height, width), stride, config.kernel))
        inputs, before = outputs, (height, width)
    return found


def picture_channels(data: DataSpec, channels: tuple[int, ...], keeping: int = 0) -> tuple[int, ...]:
    """Returns the channels of each convolution: those given, or derived from the picture's size.

    Args:
        data: What the pictures are like.
        channels: The channels that were asked for; empty to derive them.
        keeping: How many of these convolutions keep the picture's size.

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
        halvings = len(channels) - keeping
        if min(sides) >> halvings < 1:
            raise UnsupportedDataError(
                f"{halvings} halvings leave nothing of a picture of {sides[0]}x{sides[1]} pixels",
                "give fewer channels",
            )
        return channels
    depth = 1
    while min(sides) >> depth > COARSEST:
        depth += 1
    return tuple(min(FIRST_CHANNELS << i, MOST_CHANNELS) for i in range(depth))


def conv_layers(layers: list[Convolution], activation: Activation) -> list[nn.Module]:
    """Returns convolutions, each followed by its activation."""
    made: list[nn.Module] = []
    for layer in layers:
        outputs = halves(activation) * layer.outputs
        made += [nn.Conv2d(layer.inputs, outputs, layer.kernel, layer.stride, padding=1), ACTIVATIONS[activation]()]
    return made


class Doubling(nn.ConvTranspose2d):
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


def undoing(layer: Convolution, times: int = 1) -> nn.Module:
    """Returns the decoder's counterpart of a convolution: the size that came in, and `times` its channels."""
    if layer.stride == 1:
        return nn.Conv2d(layer.outputs, times * layer.inputs, layer.kernel, padding=1)
    # A halving rounds odd sides (down with kernel 4, up with 3): the rows and columns that doubling would miss.
    height, width = (a - (2 * b - 4 + layer.kernel) for a, b in zip(layer.before, layer.after, strict=True))
    return Doubling(layer.outputs, times * layer.inputs, (height, width), layer.kernel)


def conv_encoder(config: ConvConfig, layers: list[Convolution]) -> nn.Sequential:
    """Returns a network from pictures `(B, C, H, W)` to `(B, 2 * latent_dim)`."""
    sizes = (layers[-1].outputs * math.prod(layers[-1].after), *config.dense, 2 * config.latent_dim)
    return nn.Sequential(*conv_layers(layers, config.activation), nn.Flatten(), *mlp(sizes, config.activation))


def conv_decoder(config: ConvConfig, layers: list[Convolution]) -> nn.Sequential:
    """Returns the mirror image of `conv_encoder`: from `(B, latent_dim)` to unbounded `(B, C, H, W)`."""
    coarse, activation = (layers[-1].outputs, *layers[-1].after), config.activation
    sizes = (config.latent_dim, *reversed(config.dense), math.prod(coarse))
    made = [*hidden_layers(sizes, activation), nn.Unflatten(1, coarse)]
    for layer in reversed(layers[1:]):
        made += [undoing(layer, halves(activation)), ACTIVATIONS[activation]()]
    return nn.Sequential(*made, undoing(layers[0]))


def conv_vae(config: ConvConfig, data: DataSpec, make: type[GaussianVAE] = GaussianVAE) -> GaussianVAE:
    """Builds the convolutional VAE that conv-vae, beta-vae and vae-gan share, `make` being its class."""
    layers = convolutions(config, data)
    return make(
        data,
        config.latent_dim,
        conv_encoder(config, layers),
        conv_decoder(config, layers),
    )
