"""The exponential moving average of a model's weights and buffers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class ModelEMA:
    """An exponential moving average (Polyak and Juditsky 1992) that is evaluated and saved instead of the model.

    The decay grows with the number n of steps as min(decay, (1 + n) / (10 + n)), so that the average soon forgets the
    initial weights.

    Args:
        tensors: Parameters and floating-point buffers to average.
        decay: Share of the old average that a step keeps, in (0, 1). None disables the average.

    Attributes:
        values: The averages, in the order of the tensors; empty if disabled.
    """

    def __init__(self, tensors: Sequence[Tensor], decay: float | None) -> None:
        self.tensors = list(tensors) if decay is not None else []
        self.decay = decay or 0.0
        self.values = [t.detach().clone() for t in self.tensors]

    @torch.no_grad()
    def update(self, step: Tensor, found_inf: Tensor) -> None:
        """Adds the values after a step, unless `found_inf` is 1.

        Args:
            step: `()`, steps before this one.
            found_inf: `()`, 0 or 1.
        """
        if self.tensors:
            share = (1 - ((1 + step) / (10 + step)).clamp(max=self.decay)) * (1 - found_inf)
            for value, tensor in zip(self.values, self.tensors, strict=True):
                value.add_(share * (tensor - value))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the averages into the model inside the block."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Swaps the averages and the model's values."""
        # Values are copied and tensors stay: a compiled or captured step holds the addresses of the weights.
        for value, tensor in zip(self.values, self.tensors, strict=True):
            saved = value.clone()
            value.copy_(tensor)
            tensor.copy_(saved)
