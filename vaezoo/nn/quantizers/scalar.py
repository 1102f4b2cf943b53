"""Quantizers without a learned codebook: each dimension of the features has levels of its own."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vaezoo.nn.quantizers.base import Quantizer


class ScalarQuantizer(Quantizer):
    """The codebook is implied: the product of the levels of all dimensions.

    A code is a number in mixed radix. Its first digit is the level of the first dimension. Nothing here is state.

    Args:
        values: The values of the levels of each dimension, in ascending order.
    """

    def __init__(self, values: Sequence[Sequence[float]]) -> None:
        super().__init__()
        counts = [len(levels) for levels in values]
        before = [counts[:i] for i in range(len(counts))]
        # The last digit has no limit. So a code beyond the last one lies outside the table, which is an error.
        limits = [*counts[:-1], 1 << 62]
        numbers = {"basis": [*map(math.prod, before)], "limits": limits, "starts": [*map(sum, before)]}
        for name, column in numbers.items():
            self.register_buffer(name, torch.tensor(column).view(-1, 1, 1), persistent=False)
        table = torch.tensor([value for levels in values for value in levels], dtype=torch.float32)
        self.register_buffer("table", table.unsqueeze(1), persistent=False)
        self.basis: Tensor
        self.limits: Tensor
        self.starts: Tensor
        self.table: Tensor

    @abstractmethod
    def digits(self, features: Tensor) -> Tensor:
        """Returns the number of the nearest level of each dimension, `(B, dim, h, w)`, int64."""

    def nearest(self, features: Tensor) -> Tensor:
        return (self.digits(features) * self.basis).sum(1)

    def embed(self, codes: Tensor) -> Tensor:
        digits = codes.unsqueeze(1) // self.basis % self.limits
        return F.embedding(digits + self.starts, self.table).squeeze(-1)
