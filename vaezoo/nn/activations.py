"""Activation functions by name, and a check that network options share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["relu", "leaky-relu", "elu", "silu", "gelu", "tanh", "softplus", "snake", "gated"]

TINY = 1e-9  # keeps snake defined where its frequency is 0


class Snake(nn.Module):
    """x + sin^2(a x) / a with a frequency a for each channel, which is learnt (Ziyin et al. 2020, arXiv 2006.08195).

    Args:
        channels: Channels or features of x, its dimension 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        a = self.frequency.view(-1, *[1] * (x.ndim - 2))
        return x + torch.sin(a * x).square() / (a + TINY)


ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "gated": partial(nn.GLU, dim=1),  # dimension 1 holds the features of a dense layer, the channels of an image
}


def make_activation(name: Activation, channels: int) -> nn.Module:
    """Returns an activation by name, for so many channels or features of its output."""
    return Snake(channels) if name == "snake" else ACTIVATIONS[name]()


def gate_factor(activation: Activation) -> int:
    """Returns the factor by which the layer before this activation must be wider: 2 for `gated`, else 1.

    A gated layer computes (W x + b) * sigmoid(V x + c), as in Tomczak and Welling 2018, arXiv 1705.07120.
    One layer of twice the width holds both W and V. `nn.GLU` splits its output into halves and multiplies them.
    """
    return 2 if activation == "gated" else 1
