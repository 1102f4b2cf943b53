"""One optimizer step, guarded: losses, gradients, and weights that change only if all of these are finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaezoo.data.base import Batch
from vaezoo.errors import DivergedError
from vaezoo.objectives import Objective, Step, StepOutput
from vaezoo.training.config import TrainConfig
from vaezoo.vae import VAE

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adamax": torch.optim.Adamax,
}
FUSED = ("adam", "adamw")  # one kernel for all parameters, which can also skip a step that is marked bad


class GuardedStep:
    """Takes optimizer steps and sums up their metrics, without waiting for the device.

    A step: losses from the objective; for each named loss its gradient with respect to its own group alone; then
    one optimizer step for each named group. All gradients are taken before any weight changes, because PyTorch
    rejects a backward pass through weights that have changed since.

    The first loss or gradient that is not finite marks this step and all later ones as bad, on the device, and a
    bad step changes no weight. The mark is read with the metrics.

    Args:
        vae: The model, on its device.
        objective: What is minimised, on the same device.
        config: Optimizer, schedules and clipping.
        total: Steps of the whole training.
    """

    def __init__(self, vae: VAE, objective: Objective, config: TrainConfig, total: int) -> None:
        self.vae = vae
        self.objective = objective
        self.config = config
        self.total = total
        self.device = next(vae.parameters()).device
        groups = objective.parameter_groups(vae)
        self.groups = {name: [p for p in group if p.requires_grad] for name, group in groups.items()}
        self.optimizers = {name: self._optimizer(group) for name, group in self.groups.items()}
        self.bad = torch.zeros((), device=self.device)  # 1 from the first bad step on
        self.first = 0  # the step at which the sums begin
        self.names: list[str] = []
        self.last = torch.zeros(0, device=self.device)  # the metrics of the newest step, or of the first bad one
        self.sums = self.good = torch.zeros((), device=self.device)  # over good steps, and their number

    def __call__(self, index: int, batch: Batch) -> None:
        """Takes the step number `index`, counted from 0."""
        weight = torch.full((), self.config.kl_weight(index), device=self.device)
        out: StepOutput = self.objective(
            self.vae, batch, Step(torch.full((), float(index), device=self.device), weight, self.config.free_bits)
        )
        norms = self._gradients(out)
        self._note(out, norms)
        rate = self.config.lr * self.config.lr_factor(index, self.total)
        for name in out.losses:
            self._update(self.optimizers[name], rate)

    def read(self) -> dict[str, float]:
        """Returns each metric's average over the steps since the last read. Waits for the device.

        Raises:
            DivergedError: If a step since then was bad.
        """
        names, good = self.names, int(self.good)
        if float(self.bad):
            terms = ", ".join(f"{name} {value:.3g}" for name, value in zip(names, self.last.tolist(), strict=True))
            raise DivergedError(
                f"training diverged at step {self.first + good + 1}: a loss or gradient is not finite ({terms}); "
                f"the weights are those of step {self.first + good}",
                "try a lower --lr, --clip-grad 1 or --kl-warmup",
            )
        metrics = dict(zip(names, (self.sums / good).tolist(), strict=True))
        self._forget(self.first + good)
        return metrics

    def _gradients(self, out: StepOutput) -> list[Tensor]:
        """Fills the gradients of the named groups, clips them, and returns their L2 norms."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        last = list(out.losses)[-1]
        for name, loss in out.losses.items():
            loss.backward(inputs=self.groups[name], retain_graph=name != last)  # type: ignore[no-untyped-call]
        norms = []
        for name in out.losses:
            group = self.groups[name]
            norm = nn.utils.get_total_norm([p.grad for p in group if p.grad is not None])
            if self.config.clip_grad is not None:
                nn.utils.clip_grads_with_norm_(group, self.config.clip_grad, norm)
            norms.append(norm)
        return norms

    def _note(self, out: StepOutput, norms: list[Tensor]) -> None:
        """Marks a bad step and adds a good step's metrics to the sums."""
        checked = torch.stack([*(loss.detach() for loss in out.losses.values()), *norms])
        was_bad = self.bad
        self.bad = torch.maximum(was_bad, (~checked.isfinite().all()).to(was_bad.dtype))
        values = torch.stack([value.float() for value in out.metrics.values()])
        self.names = list(out.metrics)
        self.last = values if not self.last.numel() else torch.where(was_bad > 0, self.last, values)
        self.sums = self.sums + torch.where(self.bad > 0, 0.0, values)
        self.good = self.good + (1 - self.bad)

    def _update(self, optimizer: torch.optim.Optimizer, rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate
        if self.config.optimizer in FUSED:
            optimizer.found_inf = self.bad  # type: ignore[attr-defined]  # what torch.amp.GradScaler sets, too
            optimizer.step()
        elif not float(self.bad):  # these kernels cannot skip by themselves: the price is one read a step
            optimizer.step()

    def _optimizer(self, group: list[nn.Parameter]) -> torch.optim.Optimizer:
        fused = self.config.optimizer in FUSED
        settings: dict[str, Any] = {"fused": True} if fused else {"foreach": True}
        return OPTIMIZERS[self.config.optimizer](
            group, lr=self.config.lr, weight_decay=self.config.weight_decay, **settings
        )

    def _forget(self, first: int) -> None:
        """Starts new sums at a step."""
        self.first, self.last = first, torch.zeros(0, device=self.device)
        self.sums = self.good = torch.zeros((), device=self.device)
