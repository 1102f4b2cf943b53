"""One optimizer step, guarded: losses, gradients, and weights that change only if all of these are finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaezoo.core import distributed, signals
from vaezoo.core.compile import Compiled, CUDAGraphWrapper
from vaezoo.data.base import Batch, to_floats
from vaezoo.errors import DivergedError
from vaezoo.objectives.base import LossOutput, Objective, StepContext
from vaezoo.training.config import TrainConfig
from vaezoo.training.ema import ModelEMA
from vaezoo.training.optimizers import FLUSH_EVERY, Optimizer, StepScalars
from vaezoo.vae import VAE

ADVICE = "begin a new run with a lower --lr, --clip-grad 1 or --kl-warmup"
BLOCK = 1024  # steps whose rates are computed and brought to the device at once

Gradients = dict[str, list[Tensor | None]]


class StepGrads(NamedTuple):
    """What the forward and backward passes of a step give: by name losses, metrics and, by group, gradients."""

    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]
    gradients: Gradients


class TrainStep:
    """Takes optimizer steps and sums up their metrics, without waiting for the device.

    A step: losses from the objective; for each named loss its gradient with respect to its own group alone; then
    one optimizer step for each named group. All gradients are taken before any weight changes, because PyTorch
    rejects a backward pass through weights that have changed since.

    The first loss or gradient that is not finite marks this step and all later ones as bad, on the device, and a
    bad step changes no weight. The mark is read with the metrics. With several ranks, gradients, losses and metrics are
    averaged first, so that all of them take the same step, or none.

    Args:
        vae: The model, on its device.
        objective: What is minimised, on the same device.
        config: Optimizer, schedules, clipping, precision, compilation.
        total: Steps of the whole training.

    Attributes:
        average: The moving average of the VAE's weights.
    """

    def __init__(self, vae: VAE, objective: Objective, config: TrainConfig, total: int) -> None:
        self.vae = vae
        self.objective = objective
        self.config = config
        self.total = total
        self.device = next(vae.parameters()).device
        groups = objective.parameter_groups(vae)
        self.groups = {name: [p for p in group if p.requires_grad] for name, group in groups.items()}
        self.optimizers = {name: Optimizer(group, config) for name, group in self.groups.items()}
        self.average = ModelEMA(list(vae.parameters()), config.ema_decay)
        self.first = 0  # the step at which the sums begin
        self.bad = torch.zeros((), device=self.device)  # 1 from the first bad step on
        self.was_bad = torch.zeros((), device=self.device)
        self.good = torch.zeros((), device=self.device)  # steps in the sums
        self.names: list[str] = []
        self.last = self.sums = torch.zeros(0, device=self.device)  # of the newest step, or the first bad one; of good
        self.asked = torch.zeros((), device=self.device)  # above 0 where a rank has been asked to end
        self.schedule, self.schedule_from = torch.zeros(0), -BLOCK
        self.find: Callable[[Tensor, Tensor | None, Tensor], StepGrads]
        self.apply: Callable[[list[Tensor], Gradients, Tensor], None]
        self.step: Callable[[Tensor, Tensor | None, Tensor], dict[str, Tensor]]
        self.run: Callable[[Tensor, Tensor | None, Tensor], None]
        self._prepare()

    def __call__(self, index: int, batch: Batch) -> None:
        """Takes the step number `index`, counted from 0, on this rank's share of the batch, in bytes or floats."""
        if not self.schedule_from <= index < self.schedule_from + BLOCK:
            rows = [self._row(i) for i in range(index, min(index + BLOCK, self.total))]
            self.schedule, self.schedule_from = torch.tensor(rows, device=self.device), index
        if index % FLUSH_EVERY == 0:
            for optimizer in self.optimizers.values():
                optimizer.sweep()
        if distributed.world_size() > 1:
            self.asked.fill_(signals.pending_signal() or distributed.is_orphan())
        self.run(batch.x, batch.y, self.schedule[index - self.schedule_from])

    def state(self) -> dict[str, Tensor]:
        """Returns what, besides the weights that are evaluated, makes the next step what it is: tensors by name.

        To be asked while the average is applied, when the weights that are trained lie in its place.
        """
        tensors = {
            f"{group}.{i}.{name}": value
            for group, optimizer in self.optimizers.items()
            for i, values in enumerate(optimizer.state)
            for name, value in values.items()
        }
        tensors |= {f"weights.{i}": value for i, value in enumerate(self.average.values)}
        return tensors | {"sums": self.sums, "good": self.good}

    def resize(self, names: list[str]) -> None:
        """Makes room for sums of the metrics of these names; a step that was restored has not seen any."""
        self.names = names
        self.last, self.sums = (torch.zeros(len(names), device=self.device) for _ in range(2))

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], first: int) -> None:
        """Takes back what `state` gave; the sums begin at step `first`."""
        self.first = first
        for name, value in self.state().items():
            value.copy_(tensors[name])
        self.average.swap()

    def check(self) -> None:
        """Waits for the device.

        Raises:
            DivergedError: If a step was bad.
        """
        self._look()

    def read(self) -> dict[str, float]:
        """Returns each metric's average over the steps since the last read. Waits for the device.

        Raises:
            DivergedError: If a step since then was bad.
        """
        good, sums = self._look()
        self.first += good
        self.sums.zero_()
        self.good.zero_()
        return {name: value / good for name, value in zip(self.names, sums, strict=True)}

    def _look(self) -> tuple[int, list[float]]:
        """Returns the steps in the sums, and the sums; raises DivergedError."""
        bad, good, *values = torch.cat([torch.stack([self.bad, self.good]), self.sums, self.last]).tolist()
        sums, last = values[: len(self.names)], values[len(self.names) :]
        if bad:
            terms = ", ".join(f"{name} {value:.3g}" for name, value in zip(self.names, last, strict=True))
            raise DivergedError(
                f"training diverged at step {self.first + int(good) + 1}: a loss or gradient is not finite ({terms}); "
                f"the weights are those of step {self.first + int(good)}",
                ADVICE,
            )
        return int(good), sums

    def _prepare(self) -> None:
        """Decides what is compiled: the whole step, or its two halves where something has to come between them."""
        self.find, self.apply, self.step, self.run = self._find, self._apply, self._step, self._run
        if self.config.compile != "on":
            return
        if distributed.world_size() == 1 and self.config.grad_accum_steps == 1:
            self.step = Compiled(self._step)
        else:
            self.find, self.apply = Compiled(self._find), Compiled(self._apply)
        if self.device.type == "cuda":
            self.run = CUDAGraphWrapper(self._run)

    def _row(self, index: int) -> list[float]:
        lr = self.config.lr * self.config.lr_factor(index, self.total)
        return [self.config.kl_weight(index), *StepScalars.row(lr, index)]

    def _run(self, x: Tensor, y: Tensor | None, row: Tensor) -> None:
        self._note(self.step(x, y, row))

    def _step(self, x: Tensor, y: Tensor | None, row: Tensor) -> dict[str, Tensor]:
        """Does all of a step but to sum up its metrics, which it returns."""
        found = average_over_ranks(self._find_in_parts(x, y, row), self.asked)
        self.apply([*found.losses.values(), *found.metrics.values()], found.gradients, row)
        return found.metrics

    def _find_in_parts(self, x: Tensor, y: Tensor | None, row: Tensor) -> StepGrads:
        """Finds losses and gradients, of one part of the batch after the other if it does not fit in memory at once."""
        n = self.config.grad_accum_steps
        if n == 1:
            return self.find(x, y, row)
        ys = [None] * n if y is None else y.chunk(n)
        return mean([self.find(*part, row) for part in zip(x.chunk(n), ys, strict=True)])

    def _find(self, x: Tensor, y: Tensor | None, row: Tensor) -> StepGrads:
        """Runs the objective forward, and backward from each loss to its own group."""
        x = binarize(to_floats(x), self.config)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            step = StepContext(number=row[2], kl_weight=row[0], free_bits=self.config.free_bits)
            out: LossOutput = self.objective(self.vae, Batch(x, y), step)
        last = list(out.losses)[-1]
        gradients: Gradients = {
            name: list(torch.autograd.grad(loss, self.groups[name], retain_graph=name != last, allow_unused=True))
            for name, loss in out.losses.items()
        }
        losses = {name: loss.detach() for name, loss in out.losses.items()}
        return StepGrads(losses, {name: value.float() for name, value in out.metrics.items()}, gradients)

    def _apply(self, terms: list[Tensor], gradients: Gradients, row: Tensor) -> None:
        """Marks a step as bad whose terms (losses, metrics) or gradients are not finite; else changes the weights."""
        norms = {name: norm(group) for name, group in gradients.items()}
        finite = torch.stack([*terms, *norms.values()]).isfinite().all()
        self.was_bad.copy_(self.bad)
        self.bad.copy_(torch.maximum(self.bad, (~finite).to(self.bad.dtype)))
        rates = StepScalars(*row[1:].unbind())
        for name, group in gradients.items():
            if self.config.clip_grad is not None:
                factor = (self.config.clip_grad / (norms[name] + 1e-6)).clamp(max=1.0)  # as torch's clip_grad_norm_
                group = [g if g is None else g * factor for g in group]
            self.optimizers[name].update(group, rates, self.bad)
        self.average.update(rates.number, self.bad)

    def _note(self, metrics: dict[str, Tensor]) -> None:
        """Adds a good step's metrics to the sums."""
        values = torch.stack(list(metrics.values()))
        if not self.names:
            self.names = list(metrics)
            self.last, self.sums = torch.zeros_like(values), torch.zeros_like(values)
        self.last.copy_(torch.where(self.was_bad > 0, self.last, values))
        self.sums.add_(torch.where(self.bad > 0, 0.0, values))
        self.good.add_(1 - self.bad)


def binarize(x: Tensor, config: TrainConfig) -> Tensor:
    """Draws bits with grey levels in [0, 1] as their probabilities, where the training does."""
    return torch.bernoulli(x) if config.binarize == "dynamic" else x


def norm(gradients: list[Tensor | None]) -> Tensor:
    """Returns the L2 norm of a group's gradients together, `()`."""
    there = [g for g in gradients if g is not None]
    if not torch.compiler.is_compiling():
        return nn.utils.get_total_norm(there)
    # Compiled, sums of squares become part of other loops, which get_total_norm's kernels do not.
    return torch.stack([g.square().sum() for g in there]).sum().sqrt()


def mean(parts: list[StepGrads]) -> StepGrads:
    """Returns the mean of what the parts of a batch gave. A loss that only some of them have counts 0 in the others."""

    def average(values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        names = dict.fromkeys(name for value in values for name in value)
        return {n: torch.stack([v[n] for v in values if n in v]).sum(0) / len(parts) for n in names}

    def total(group: str) -> list[Tensor | None]:
        there = [part.gradients[group] for part in parts if group in part.gradients]
        columns = [[g for g in column if g is not None] for column in zip(*there, strict=True)]
        return [sum(column[1:], column[0]) / len(parts) if column else None for column in columns]

    losses, metrics = average([p.losses for p in parts]), average([p.metrics for p in parts])
    return StepGrads(losses, metrics, {name: total(name) for name in losses})


def average_over_ranks(found: StepGrads, asked: Tensor) -> StepGrads:
    """Returns the mean of what all ranks found; `asked` is averaged, too, in place. All in one exchange."""
    if distributed.world_size() == 1:
        return found
    flat = [g for group in found.gradients.values() for g in group if g is not None]
    values = [asked, *found.losses.values(), *found.metrics.values(), *flat]
    joined = distributed.dist_mean_(torch.cat([v.flatten() for v in values]))
    parts = iter(torch.split(joined, [v.numel() for v in values]))
    asked.copy_(next(parts).view(()))
    losses = {name: next(parts).view_as(value) for name, value in found.losses.items()}
    metrics = {name: next(parts).view_as(value).float() for name, value in found.metrics.items()}
    gradients = {
        name: [g if g is None else next(parts).view_as(g) for g in group] for name, group in found.gradients.items()
    }
    return StepGrads(losses, metrics, gradients)
