"""Activation functions by name, and a check that network options share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import nn

Activation = Literal["relu", "leaky-relu", "elu", "silu", "gelu", "tanh", "softplus", "gated"]

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


def gate_factor(activation: Activation) -> int:
    """Returns the factor by which the layer before this activation must be wider: 2 for `gated`, else 1.

    A gated layer computes (W x + b) * sigmoid(V x + c), as in Tomczak and Welling 2018, arXiv 1705.07120.
    One layer of twice the width holds both W and V. `nn.GLU` splits its output into halves and multiplies them.
    """
    return 2 if activation == "gated" else 1
