"""Multilayer perceptrons (MLPs) for data of any shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from vaezoo.core.options import require_positive
from vaezoo.data.spec import DataSpec
from vaezoo.likelihoods.base import Shape
from vaezoo.nn.activations import Activation, gate_factor, make_activation


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """The options of a model of dense layers.

    Attributes:
        latent_dim: Number of latent dimensions.
        hidden: Sizes of the encoder's hidden layers. The decoder has the same sizes in reverse order.
        activation: Activation of the hidden layers. With `gated`, the sigmoid of a second layer multiplies each of
            them.

    Raises:
        VaezooError: If a size is not positive.
    """

    latent_dim: int = 20
    hidden: tuple[int, ...] = (256, 128)
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        require_positive("latent_dim", self.latent_dim)
        require_positive("hidden", *self.hidden)

    def input_shape(self, data: DataSpec) -> Shape:
        """Returns the shape in which the encoder takes features: a vector."""
        return (math.prod(data.features_shape),)

    def make_encoder(self, data: DataSpec, inputs: Shape, outputs: Shape) -> nn.Sequential:
        """Returns a network from `(B, *inputs)` to `(B, *outputs)`."""
        sizes = (math.prod(inputs), *self.hidden, math.prod(outputs))
        return nn.Sequential(nn.Flatten(), *mlp_layers(sizes, self.activation), *unflatten(outputs))

    def make_decoder(self, data: DataSpec, inputs: Shape, outputs: Shape) -> nn.Sequential:
        """Returns the reverse of the encoder, from `(B, *inputs)` to unbounded `(B, *outputs)`."""
        sizes = (math.prod(inputs), *reversed(self.hidden), math.prod(outputs))
        return nn.Sequential(*flatten(inputs), *mlp_layers(sizes, self.activation), nn.Unflatten(1, outputs))


def flatten(shape: Shape) -> list[nn.Module]:
    """Returns the layer that flattens examples of a shape, or none if they are flat."""
    return [nn.Flatten()] if len(shape) > 1 else []


def unflatten(shape: Shape) -> list[nn.Module]:
    """Returns the layer that gives flat examples a shape, or none if it is flat."""
    return [nn.Unflatten(1, shape)] if len(shape) > 1 else []


def hidden_layers(sizes: tuple[int, ...], activation: Activation) -> list[nn.Module]:
    """Returns dense layers from sizes[0] to sizes[-1]. An activation follows each of them."""
    layers: list[nn.Module] = []
    for in_features, out_features in pairwise(sizes):
        layers += [
            nn.Linear(in_features, gate_factor(activation) * out_features),
            make_activation(activation, out_features),
        ]
    return layers


def mlp_layers(sizes: tuple[int, ...], activation: Activation) -> list[nn.Module]:
    """Returns dense layers from sizes[0] to sizes[-1]. The last one has no activation."""
    return [*hidden_layers(sizes[:-1], activation), nn.Linear(sizes[-2], sizes[-1])]


def mlp_encoder(config: MLPConfig, data: DataSpec, out_features: int) -> nn.Sequential:
    """Returns a network from features `(B, *data.features_shape)` to `(B, out_features)`."""
    sizes = (math.prod(data.features_shape), *config.hidden, out_features)
    return nn.Sequential(nn.Flatten(), *mlp_layers(sizes, config.activation))


def mlp_decoder(config: MLPConfig, data: DataSpec) -> nn.Sequential:
    """Returns the reverse of `mlp_encoder`, from `(B, latent_dim)` to unbounded `(B, *data.params_shape)`."""
    shape = data.params_shape
    sizes = (config.latent_dim, *reversed(config.hidden), math.prod(shape))
    return nn.Sequential(*mlp_layers(sizes, config.activation), nn.Unflatten(1, shape))
