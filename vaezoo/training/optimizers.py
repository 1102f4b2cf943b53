"""Optimizers whose steps can be skipped on the device, without asking it first.

The rules are those of `torch.optim` with its default settings. They are written out because a step of `torch.optim`
cannot be compiled together with the gradients. Only Adam's fused kernels can skip a step by a flag on the device.
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
DENORMAL_LIMIT = 1e-30  # negligible beside EPS
FLUSH_EVERY = 100  # steps; 0.9 ** 100 * DENORMAL_LIMIT is still above 1e-38, float32's smallest normal number
FUSED = {"adam": torch_adam, "adamw": torch_adamw}  # one kernel for all parameters, used when nothing is compiled

State = dict[str, Tensor]


class StepScalars(NamedTuple):
    """The numbers that change from step to step; all `()` on the device.

    They are tensors, because a compiled or captured step would otherwise be compiled again for each value.

    Attributes:
        kl_weight: The KL warm-up's factor, in [0, 1].
        lr: The learning rate.
        global_step: Steps before this one, including those in which a group was paused.
        lr_corrected: lr / (1 - BETA1 ** (global_step + 1)): the rate with the bias correction of the first moment.
        v_scale: (1 - BETA2 ** (global_step + 1)) ** -0.5: the bias correction of the second moment's root.
    """

    kl_weight: Tensor
    lr: Tensor
    global_step: Tensor
    lr_corrected: Tensor
    v_scale: Tensor

    @staticmethod
    def values(kl_weight: float, lr: float, step: int) -> list[float]:
        """Returns the five values as numbers. The corrections are computed in float64."""
        return [kl_weight, lr, step, lr / (1 - BETA1 ** (step + 1)), (1 - BETA2 ** (step + 1)) ** -0.5]


def adam(p: Tensor, g: Tensor, state: State, scalars: StepScalars, decay: float) -> State:
    """Kingma and Ba 2015, arXiv 1412.6980, algorithm 1. The weight decay is added to the gradient."""
    return _adam(p, g + decay * p if decay else g, state, scalars)


def adamw(p: Tensor, g: Tensor, state: State, scalars: StepScalars, decay: float) -> State:
    """Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2."""
    return _adam(p - scalars.lr * decay * p if decay else p, g, state, scalars)


def rmsprop(p: Tensor, g: Tensor, state: State, scalars: StepScalars, decay: float) -> State:
    """Tieleman and Hinton 2012, in the form of `torch.optim.RMSprop`."""
    g = g + decay * p if decay else g
    square = state["square_avg"] + (1 - ALPHA) * (g * g - state["square_avg"])
    return {"param": p - scalars.lr * g / (square.sqrt() + EPS), "square_avg": square}


def adamax(p: Tensor, g: Tensor, state: State, scalars: StepScalars, decay: float) -> State:
    """Kingma and Ba 2015, algorithm 2."""
    g = g + decay * p if decay else g
    mean = state["exp_avg"] + (1 - BETA1) * (g - state["exp_avg"])
    largest = torch.maximum(BETA2 * state["exp_inf"], g.abs() + EPS)
    return {"param": p - scalars.lr_corrected * mean / largest, "exp_avg": mean, "exp_inf": largest}


def _adam(p: Tensor, g: Tensor, state: State, scalars: StepScalars) -> State:
    mean = state["exp_avg"] + (1 - BETA1) * (g - state["exp_avg"])
    square = state["exp_avg_sq"] + (1 - BETA2) * (g * g - state["exp_avg_sq"])
    update = scalars.lr_corrected * mean / (square.sqrt() * scalars.v_scale + EPS)
    return {"param": p - update, "exp_avg": mean, "exp_avg_sq": square}


Rule = Callable[[Tensor, Tensor, State, StepScalars, float], State]
RULES: Mapping[str, tuple[Rule, tuple[str, ...]]] = {
    "adam": (adam, ("exp_avg", "exp_avg_sq")),
    "adamw": (adamw, ("exp_avg", "exp_avg_sq")),
    "rmsprop": (rmsprop, ("square_avg",)),
    "adamax": (adamax, ("exp_avg", "exp_inf")),
}


class Optimizer:
    """The optimizer of one parameter group.

    Args:
        params: The group.
        config: Names the optimizer and its weight decay.

    Attributes:
        state: The tensors of each parameter by name, in the order of the group.
    """

    def __init__(self, params: Sequence[nn.Parameter], config: TrainConfig) -> None:
        self.params = list(params)
        self.decay = config.weight_decay
        self.rule, names = RULES[config.optimizer]
        self.fused = FUSED.get(config.optimizer)
        self.state: list[State] = [{name: torch.zeros_like(p) for name in names} for p in params]

    @torch.no_grad()
    def update(self, gradients: Sequence[Tensor | None], scalars: StepScalars, found_inf: Tensor) -> None:
        """Takes a step in place, unless `found_inf` is 1. A parameter whose gradient is None does not change."""
        present = [(p, g, s) for p, g, s in zip(self.params, gradients, self.state, strict=True) if g is not None]
        if self.fused and not torch.compiler.is_compiling():
            self._update_fused(present, scalars, found_inf)
            return
        for p, g, state in present:
            for name, value in self.rule(p, g, state, scalars, self.decay).items():
                target = p if name == "param" else state[name]
                target.copy_(torch.where(found_inf > 0, target, value))

    @torch.no_grad()
    def flush_denormals(self) -> None:
        """Sets values of the state that are almost 0 to 0. Call it every `FLUSH_EVERY` steps.

        The moments of weights that stopped learning decay into denormal numbers, below 1e-38. A CPU computes with these
        many times slower: on MNIST, after 1,000 steps, 100,000 of them cost a tenth of the speed.
        `torch.set_flush_denormal` does not help: it leaves out the threads of OpenMP that run already, half of the
        elements with two threads.
        """
        for state in self.state:
            for values in state.values():
                values.copy_(F.hardshrink(values, DENORMAL_LIMIT))

    def _update_fused(
        self, present: list[tuple[nn.Parameter, Tensor, State]], scalars: StepScalars, found_inf: Tensor
    ) -> None:
        assert self.fused is not None
        self.fused(
            [p for p, _, _ in present],
            [like_parameter(p, g) for p, g, _ in present],
            [state["exp_avg"] for _, _, state in present],
            [state["exp_avg_sq"] for _, _, state in present],
            [],
            [scalars.global_step.clone() for _ in present],  # the kernel increments each of them
            fused=True,
            found_inf=found_inf,
            amsgrad=False,
            beta1=BETA1,
            beta2=BETA2,
            lr=scalars.lr,
            weight_decay=self.decay,
            eps=EPS,
            maximize=False,
        )


def like_parameter(p: Tensor, g: Tensor) -> Tensor:
    """Returns a gradient in the memory order of its parameter. The fused kernels walk both in storage order."""
    return g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)
