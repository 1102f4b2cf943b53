"""Multilayer perceptrons for data of any shape."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from vaezoo.data.base import DataSpec
from vaezoo.nn.activations import ACTIVATIONS, Activation, gate_factor, require_positive


def hidden_layers(sizes: tuple[int, ...], activation: Activation) -> list[nn.Module]:
    """Returns dense layers from sizes[0] to sizes[-1], each followed by its activation."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, gate_factor(activation) * outputs), ACTIVATIONS[activation]()]
    return layers


def mlp_layers(sizes: tuple[int, ...], activation: Activation) -> list[nn.Module]:
    """Returns dense layers from sizes[0] to sizes[-1] with an activation between each two."""
    return [*hidden_layers(sizes[:-1], activation), nn.Linear(sizes[-2], sizes[-1])]


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
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
        require_positive("latent_dim", self.latent_dim)
        require_positive("hidden", *self.hidden)


def mlp_encoder(config: MLPConfig, data: DataSpec, outputs: int) -> nn.Sequential:
    """Returns a network from any data to `(B, outputs)`."""
    return nn.Sequential(nn.Flatten(), *mlp_layers((data.dims, *config.hidden, outputs), config.activation))


def mlp_decoder(config: MLPConfig, data: DataSpec) -> nn.Sequential:
    """Returns the mirror image of `mlp_encoder`: from latents to unbounded `(B, *data.shape)`."""
    sizes = (config.latent_dim, *reversed(config.hidden), data.dims)
    return nn.Sequential(*mlp_layers(sizes, config.activation), nn.Unflatten(1, data.shape))
