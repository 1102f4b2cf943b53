"""Activations by name, and the check of sizes that network options share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import nn

from vaezoo.errors import VaezooError

Activation = Literal["relu", "leaky-relu", "elu", "silu", "gelu", "tanh", "softplus", "gated"]

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "gated": partial(nn.GLU, dim=1),  # dimension 1: features, or channels
}


def require_positive(option: str, *values: int) -> None:
    """Raises VaezooError unless every value of an option is at least 1."""
    if any(value < 1 for value in values):
        raise VaezooError(f"option '{option}' holds {min(values)}", f"give '{option}' at least 1")


def gate_factor(activation: Activation) -> int:
    """Returns how many times the outputs a layer before this activation puts out.

    A gated layer is (W x + b) * sigmoid(V x + c), as in Tomczak and Welling 2018, arXiv 1705.07120: W and V are the two
    halves of one layer of twice the size, which `nn.GLU` multiplies.
    """
    return 2 if activation == "gated" else 1
