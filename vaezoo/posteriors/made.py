"""MADE: masked dense layers whose outputs depend only on the inputs before them (Germain et al. 2015, 1502.03509)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaskedLinear(nn.Linear):
    """A dense layer in which some weights are held at zero.

    Args:
        mask: 1 for weights that are used, 0 for others, `(out_features, in_features)`.
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)
        self.mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    """One hidden layer whose i-th output depends on the inputs before i, and on a context.

    Args:
        n: Number of inputs.
        context: Number of context values. 0: there is no context.
        hidden: Number of hidden units.
        outputs: Number of output vectors, each of length n.
    """

    def __init__(self, n: int, context: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.n_outputs = outputs
        inputs = torch.arange(n)
        degrees = torch.arange(hidden) % max(n - 1, 1)  # a hidden unit of degree k sees the inputs 0 to k
        self.first = MaskedLinear((degrees[:, None] >= inputs[None]).float())
        self.context = nn.Linear(context, hidden) if context else None
        self.second = MaskedLinear((inputs[:, None] > degrees[None]).float().repeat(outputs, 1))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """Returns the output vectors, `(B, n)` each, for `z` of shape `(B, n)`."""
        h = self.first(z)
        if self.context is not None and context is not None:
            h = h + self.context(context)
        vectors: tuple[Tensor, ...] = self.second(F.elu(h)).chunk(self.n_outputs, 1)
        return vectors
