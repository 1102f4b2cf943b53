"""Optimizers whose steps can be left out on the device: the state stays as it was where a flag there says so.

The rules are those of `torch.optim` at its defaults. They are written out here because a `torch.optim` step can be
neither compiled together with the gradients nor, but for Adam's fused kernel, left out without asking the device first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.adam import adam as torch_adam
from torch.optim.adamw import adamw as torch_adamw

from vaezoo.training.config import TrainConfig

BETA1, BETA2 = 0.9, 0.999  # of Adam, AdamW and Adamax
ALPHA = 0.99  # of RMSprop
EPS = 1e-8
DENORMAL_LIMIT = 1e-30  # next to EPS it is nothing
FLUSH_EVERY = 100  # steps, in which 0.9 ** 100 of TINY stays above float32's smallest normal number, 1e-38
FUSED = {"adam": torch_adam, "adamw": torch_adamw}  # one kernel for all parameters, where nothing is compiled

State = dict[str, Tensor]


class StepScalars(NamedTuple):
    """What a step's update depends on besides gradients; all `()` on the device.

    Attributes:
        lr: The learning rate.
        number: Steps taken before this one. It counts those in which a group rested, too.
        first: lr / (1 - BETA1 ** (number + 1)), the rate with the correction of the first moment's bias.
        second: (1 - BETA2 ** (number + 1)) ** -0.5, the correction of the second's.
    """

    lr: Tensor
    number: Tensor
    first: Tensor
    second: Tensor

    @staticmethod
    def row(lr: float, number: int) -> tuple[float, ...]:
        """Returns the four values as numbers. The corrections are made here, in float64, once a step."""
        return lr, number, lr / (1 - BETA1 ** (number + 1)), (1 - BETA2 ** (number + 1)) ** -0.5


def adam(p: Tensor, g: Tensor, state: State, rates: StepScalars, decay: float) -> State:
    """Kingma and Ba 2015, arXiv 1412.6980, algorithm 1; decay is added to the gradient."""
    return _adam(p, g + decay * p if decay else g, state, rates)


def adamw(p: Tensor, g: Tensor, state: State, rates: StepScalars, decay: float) -> State:
    """Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2."""
    return _adam(p - rates.lr * decay * p if decay else p, g, state, rates)


def rmsprop(p: Tensor, g: Tensor, state: State, rates: StepScalars, decay: float) -> State:
    """Tieleman and Hinton 2012, as `torch.optim.RMSprop` has it."""
    g = g + decay * p if decay else g
    square = state["square_avg"] + (1 - ALPHA) * (g * g - state["square_avg"])
    return {"param": p - rates.lr * g / (square.sqrt() + EPS), "square_avg": square}


def adamax(p: Tensor, g: Tensor, state: State, rates: StepScalars, decay: float) -> State:
    """Kingma and Ba 2015, algorithm 2."""
    g = g + decay * p if decay else g
    mean = state["exp_avg"] + (1 - BETA1) * (g - state["exp_avg"])
    largest = torch.maximum(BETA2 * state["exp_inf"], g.abs() + EPS)
    return {"param": p - rates.first * mean / largest, "exp_avg": mean, "exp_inf": largest}


def _adam(p: Tensor, g: Tensor, state: State, rates: StepScalars) -> State:
    mean = state["exp_avg"] + (1 - BETA1) * (g - state["exp_avg"])
    square = state["exp_avg_sq"] + (1 - BETA2) * (g * g - state["exp_avg_sq"])
    update = rates.first * mean / (square.sqrt() * rates.second + EPS)
    return {"param": p - update, "exp_avg": mean, "exp_avg_sq": square}


Rule = Callable[[Tensor, Tensor, State, StepScalars, float], State]
RULES: Mapping[str, tuple[Rule, tuple[str, ...]]] = {
    "adam": (adam, ("exp_avg", "exp_avg_sq")),
    "adamw": (adamw, ("exp_avg", "exp_avg_sq")),
    "rmsprop": (rmsprop, ("square_avg",)),
    "adamax": (adamax, ("exp_avg", "exp_inf")),
}


class Optimizer:
    """The optimizer of one group of parameters.

    Args:
        params: The group.
        config: Which optimizer, and its weight decay.

    Attributes:
        state: For each parameter its tensors by name, in the order of the group.
    """

    def __init__(self, params: Sequence[nn.Parameter], config: TrainConfig) -> None:
        self.params = list(params)
        self.decay = config.weight_decay
        self.rule, names = RULES[config.optimizer]
        self.fused = FUSED.get(config.optimizer)
        self.state: list[State] = [{name: torch.zeros_like(p) for name in names} for p in params]

    @torch.no_grad()
    def update(self, gradients: Sequence[Tensor | None], rates: StepScalars, bad: Tensor) -> None:
        """Takes a step, in place, unless `bad` is 1. A parameter whose gradient is None is left alone."""
        there = [(p, g, s) for p, g, s in zip(self.params, gradients, self.state, strict=True) if g is not None]
        if self.fused and not torch.compiler.is_compiling():
            self._update_fused(there, rates, bad)
            return
        for p, g, state in there:
            for name, value in self.rule(p, g, state, rates, self.decay).items():
                target = p if name == "param" else state[name]
                target.copy_(torch.where(bad > 0, target, value))

    @torch.no_grad()
    def sweep(self) -> None:
        """Makes what is nearly 0 in the state 0. To be called every `FLUSH_EVERY` steps.

        The first moments of weights that no longer learn decay for ever, into the numbers below 1e-38, with which a CPU
        computes many times slower: on MNIST, after 1,000 steps, a hundred thousand of them took a tenth of the speed.
        """
        for state in self.state:
            for values in state.values():
                values.copy_(F.hardshrink(values, DENORMAL_LIMIT))

    def _update_fused(self, there: list[tuple[nn.Parameter, Tensor, State]], rates: StepScalars, bad: Tensor) -> None:
        assert self.fused is not None
        self.fused(
            [p for p, _, _ in there],
            [like(p, g) for p, g, _ in there],
            [state["exp_avg"] for _, _, state in there],
            [state["exp_avg_sq"] for _, _, state in there],
            [],
            [rates.number.clone() for _ in there],  # the kernel counts on, each its own
            fused=True,
            found_inf=bad,
            amsgrad=False,
            beta1=BETA1,
            beta2=BETA2,
            lr=rates.lr,
            weight_decay=self.decay,
            eps=EPS,
            maximize=False,
        )


def like(p: Tensor, g: Tensor) -> Tensor:
    """Returns a gradient in the memory order of its parameter: the fused kernels go through both as they lie there."""
    return g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)
