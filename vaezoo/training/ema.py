"""The exponential moving average of a model's weights, which is evaluated and kept instead of the newest ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ModelEMA:
    """An exponential moving average of parameters (Polyak and Juditsky 1992).

    Its decay grows with the steps taken, n, as min(decay, (1 + n) / (10 + n)), so that the weights which the training
    began with are soon forgotten.

    Args:
        params: What is averaged.
        decay: Share of the average that stays in a step, in (0, 1); None: the average is the newest weights.

    Attributes:
        values: The averages, in the order of the parameters; empty without a decay.
    """

    def __init__(self, params: Sequence[nn.Parameter], decay: float | None) -> None:
        self.params = list(params) if decay is not None else []
        self.decay = decay or 0.0
        self.values = [p.detach().clone() for p in self.params]

    @torch.no_grad()
    def update(self, number: Tensor, bad: Tensor) -> None:
        """Takes a step's new weights in, unless `bad` is 1. `number`, `()`: steps taken before this one."""
        if self.params:
            share = (1 - ((1 + number) / (10 + number)).clamp(max=self.decay)) * (1 - bad)
            for value, p in zip(self.values, self.params, strict=True):
                value.add_(share * (p - value))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the averages in the place of the weights while the context lasts."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Lets averages and weights change places."""
        # Values move, not tensors: a compiled or captured step knows the weights by where they lie.
        for value, p in zip(self.values, self.params, strict=True):
            kept = value.clone()
            value.copy_(p)
            p.copy_(kept)
