"""Finite scalar quantization (FSQ): each dimension is bounded and rounded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vaezoo.errors import VaezooError
from vaezoo.nn.quantizers.base import QuantizerPart, require_codes
from vaezoo.nn.quantizers.scalar import ScalarQuantizer

MARGIN = 1e-3  # share by which bounds are narrower than the levels. tanh = 1 would round beyond them


class FSQ(ScalarQuantizer):
    """Rounds tanh of each dimension to its levels (Mentzer et al. 2023, arXiv 2309.15505, section 3.1).

    L levels are the whole numbers from -floor(L / 2) to ceil(L / 2) - 1, divided by floor(L / 2). So an even L has one
    more below zero than above, and tanh is shifted by half a level. A feature of 0 stays 0: the shift within tanh is
    atanh(1 / (2 h)) with h the half width. The paper's code has tan there, which differs by less than 0.001. There is
    no loss but the reconstruction's.

    Args:
        levels: Number of levels of each dimension, at least 3. The paper recommends 5 or more.
    """

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__([[(i - n // 2) / (n // 2) for i in range(n)] for n in levels])
        half_widths = [(n - 1) * (1 - MARGIN) / 2 for n in levels]
        offsets = [0.5 * (n % 2 == 0) for n in levels]
        shifts = [math.atanh(offset / width) for offset, width in zip(offsets, half_widths, strict=True)]
        numbers = {"widths": half_widths, "offsets": offsets, "shifts": shifts, "halves": [n // 2 for n in levels]}
        for name, values in numbers.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.widths: Tensor
        self.offsets: Tensor
        self.shifts: Tensor
        self.halves: Tensor

    def bound(self, features: Tensor) -> Tensor:
        """Overridden: the features bounded to the range of the levels, in the units of the vectors."""
        return self._positions(features) / self.halves

    def digits(self, features: Tensor) -> Tensor:
        positions = self._positions(features)
        positions = torch.where(positions.isnan(), 0.0, positions)  # a code all the same: the loss is NaN, and reported
        return (torch.round(positions) + self.halves).to(torch.int64)

    def _positions(self, features: Tensor) -> Tensor:
        """Returns bounded features in units of a level."""
        return torch.tanh(features + self.shifts) * self.widths - self.offsets


@dataclass(frozen=True, kw_only=True)
class FSQPart(QuantizerPart):
    """Finite scalar quantization (Mentzer et al. 2023): each dimension is rounded to its levels.

    Attributes:
        levels: Number of levels of each dimension, at least 3. Their product is the number of codes (K).

    Raises:
        VaezooError: If there is no dimension, one has too few levels, or there are too many codes.
    """

    part = "fsq"
    formula = (
        r"v_{ij} = \frac{1}{\lfloor L_j / 2 \rfloor}\,\mathrm{round}\left(h_j \tanh(f_{ij}(x) + s_j)"
        r" - o_j\right), \qquad \ell = 0"
    )
    levels: tuple[int, ...] = (8, 8, 8)

    def __post_init__(self) -> None:
        if not self.levels:
            raise VaezooError("option 'levels' is empty", "give one number for each dimension, such as levels=8,5,5,5")
        if min(self.levels) < 3:
            raise VaezooError(
                f"option 'levels' is {min(self.levels)}", "give 'levels' at least 3; quantizer=lfq has two levels"
            )
        require_codes("levels", math.prod(self.levels))

    @property
    def size(self) -> int:
        return math.prod(self.levels)

    @property
    def dim(self) -> int:
        return len(self.levels)

    def build(self) -> FSQ:
        return FSQ(self.levels)
