"""One training step: gradients, a guarded optimizer step, and sums of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaezoo.core import distributed, signals
from vaezoo.core.compile import Compiled, CUDAGraphWrapper
from vaezoo.data.augment import augment
from vaezoo.data.base import Batch, to_floats
from vaezoo.errors import DivergedError
from vaezoo.objectives.base import LossOutput, Objective, StepContext
from vaezoo.training.config import TrainConfig
from vaezoo.training.ema import ModelEMA
from vaezoo.training.optimizers import FLUSH_EVERY, Optimizer, StepScalars
from vaezoo.vae import VAE

DIVERGED_HINT = "start a new run with a lower --lr, with --clip-grad 1 or with --kl-warmup"
SCHEDULE_STEPS = 1024  # steps whose scalars are computed and copied to the device together

Gradients = dict[str, list[Tensor | None]]


class StepGrads(NamedTuple):
    """The result of a forward and a backward pass.

    Attributes:
        losses: Parameter group -> detached loss, `()`.
        metrics: Metric -> value, `()`, float32.
        gradients: Parameter group -> the gradient of each of its parameters, or None where the loss has none.
    """

    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]
    gradients: Gradients


class TrainStep:
    """Runs training steps and sums their metrics without waiting for the device.

    A step has three parts. `forward_backward` computes the losses and, for each parameter group, the gradient of its
    own loss. `optimizer_step` updates the groups. `accumulate_metrics` adds the metrics to sums on the device. All
    gradients come before any update, because PyTorch rejects a backward pass through weights that have changed.

    The guard: the first step with a loss, metric, gradient or buffer that is not finite sets `found_inf` on the device.
    That step and all later ones change no state: no weight, no buffer, no average and no optimizer state. The flag is
    read with the metrics. With several processes, gradients, losses, metrics and floating-point buffers are averaged
    first, so that all processes decide alike.

    Modules must change their buffers in place. Integer buffers must count alike in all processes.

    Args:
        vae: The model, on its device.
        objective: The loss, on the same device.
        config: Optimizer, schedules, clipping, precision and compilation.
        total_steps: Steps of the whole training.
        train_size: Number of training examples. 0: not known.

    Attributes:
        ema: The moving average of the VAE's weights and buffers.
        window_start: The step at which the sums of metrics begin.
        metric_names: Names of the metrics in the sums; empty before the first step.
        stop_requested: `()`, above 0 if any process was asked to stop.
    """

    def __init__(
        self, vae: VAE, objective: Objective, config: TrainConfig, total_steps: int, train_size: int = 0
    ) -> None:
        self.vae = vae
        self.objective = objective
        self.config = config
        self.total_steps = total_steps
        self.train_size = train_size
        self.augmentations = config.augmentations()
        self.device = next(vae.parameters()).device
        groups = objective.parameter_groups(vae)
        self.groups = {name: [p for p in group if p.requires_grad] for name, group in groups.items()}
        self.optimizers = {name: Optimizer(group, config) for name, group in self.groups.items()}
        self.buffers = saved_buffers(vae, objective)
        averaged = [*vae.parameters(), *(b for b in saved_buffers(vae) if b.is_floating_point())]
        self.ema = ModelEMA(averaged, config.ema_decay)
        self.window_start = 0
        self.metric_names: list[str] = []
        self.found_inf = torch.zeros((), device=self.device)  # 1 from the first step that is not finite
        self.found_inf_before = torch.zeros((), device=self.device)  # its value before the newest step
        self.good_steps = torch.zeros((), device=self.device)  # steps in the sums
        # The metrics of the newest step, or of the first that was not finite, and the sums over good steps.
        self.last_metrics = self.metric_sums = torch.zeros(0, device=self.device)
        self.stop_requested = torch.zeros((), device=self.device)
        self._schedule, self._schedule_start = torch.zeros(0), -SCHEDULE_STEPS
        if config.compile == "on":
            self._compile()

    def prepare(self, step: int) -> Tensor:
        """Returns the scalars of step number `step`, counted from 0, `(5,)` on the device, for `run`."""
        if step % FLUSH_EVERY == 0:
            for optimizer in self.optimizers.values():
                optimizer.flush_denormals()
        if distributed.world_size() > 1:
            self.stop_requested.fill_(signals.pending_signal() or distributed.is_orphan())
        if not self._schedule_start <= step < self._schedule_start + SCHEDULE_STEPS:
            rows = [self._scalars(i) for i in range(step, min(step + SCHEDULE_STEPS, self.total_steps))]
            self._schedule, self._schedule_start = torch.tensor(rows, device=self.device), step
        return self._schedule[step - self._schedule_start]

    def run(self, x: Tensor, y: Tensor | None, scalars: Tensor) -> None:
        """Takes a step on this process's share of the batch.

        Args:
            x: Examples `(B, *shape)`, bytes or floats.
            y: Labels, or None.
            scalars: What `prepare` returned for this step.
        """
        self.accumulate_metrics(self.update(Batch(x, y), scalars))

    def update(self, batch: Batch, scalars: Tensor) -> dict[str, Tensor]:
        """Changes the weights by one step and returns its metrics."""
        buffers_before = [buffer.clone() for buffer in self.buffers]
        if self.config.grad_accum_steps == 1:
            grads = self.forward_backward(batch, scalars)
        else:
            micro_batches = split_batch(batch, self.config.grad_accum_steps)
            grads = mean_grads([self.forward_backward(part, scalars) for part in micro_batches])
        grads = average_over_processes(grads, self.buffers, self.stop_requested)
        self.optimizer_step(grads, scalars, buffers_before)
        return grads.metrics

    def forward_backward(self, batch: Batch, scalars: Tensor) -> StepGrads:
        """Runs the objective, then the backward pass of each loss to its own parameter group."""
        x = binarize(augment(to_floats(batch.x), self.augmentations), self.config)
        step = StepScalars(*scalars.unbind())
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            context = StepContext(step.global_step, step.kl_weight, self.config.free_bits, self.train_size)
            out: LossOutput = self.objective(self.vae, Batch(x, batch.y), context)
        last = list(out.losses)[-1]
        gradients: Gradients = {
            name: list(torch.autograd.grad(loss, self.groups[name], retain_graph=name != last, allow_unused=True))
            for name, loss in out.losses.items()
        }
        losses = {name: loss.detach() for name, loss in out.losses.items()}
        return StepGrads(losses, {name: value.float() for name, value in out.metrics.items()}, gradients)

    def optimizer_step(self, grads: StepGrads, scalars: Tensor, buffers_before: Sequence[Tensor]) -> None:
        """Updates weights and the average, or restores the buffers if anything is not finite."""
        norms = {name: grad_norm(group) for name, group in grads.gradients.items()}
        finite = torch.stack([*grads.losses.values(), *grads.metrics.values(), *norms.values()]).isfinite().all()
        for buffer in self.buffers:
            finite = finite & buffer.isfinite().all()
        self.found_inf_before.copy_(self.found_inf)
        self.found_inf.copy_(torch.maximum(self.found_inf, (~finite).to(self.found_inf.dtype)))
        for buffer, before in zip(self.buffers, buffers_before, strict=True):
            buffer.copy_(torch.where(self.found_inf > 0, before, buffer))
        step = StepScalars(*scalars.unbind())
        for name, group in grads.gradients.items():
            if self.config.clip_grad is not None:
                factor = (self.config.clip_grad / (norms[name] + 1e-6)).clamp(max=1.0)  # as torch's clip_grad_norm_
                group = [g if g is None else g * factor for g in group]
            self.optimizers[name].update(group, step, self.found_inf)
        self.ema.update(step.global_step, self.found_inf)

    def accumulate_metrics(self, metrics: dict[str, Tensor]) -> None:
        """Adds the metrics of a good step to the sums."""
        values = torch.stack(list(metrics.values()))
        if not self.metric_names:
            self.metric_names = list(metrics)
            self.last_metrics, self.metric_sums = torch.zeros_like(values), torch.zeros_like(values)
        self.last_metrics.copy_(torch.where(self.found_inf_before > 0, self.last_metrics, values))
        self.metric_sums.add_(torch.where(self.found_inf > 0, 0.0, values))
        self.good_steps.add_(1 - self.found_inf)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what the next step depends on, besides the evaluated weights and buffers.

        Call it while the average is applied. `ema.values` then holds the weights that are trained.
        """
        tensors = {
            f"{group}.{i}.{name}": value
            for group, optimizer in self.optimizers.items()
            for i, values in enumerate(optimizer.state)
            for name, value in values.items()
        }
        tensors |= {f"raw.{i}": value for i, value in enumerate(self.ema.values)}
        return tensors | {"metric_sums": self.metric_sums, "good_steps": self.good_steps}

    @torch.no_grad()
    def load_state_dict(self, tensors: Mapping[str, Tensor], window_start: int) -> None:
        """Restores what `state_dict` returned; the sums of metrics begin at step `window_start`."""
        self.window_start = window_start
        for name, value in self.state_dict().items():
            value.copy_(tensors[name])
        self.ema.swap()

    def init_metrics(self, names: list[str]) -> None:
        """Allocates the sums for metrics of these names, before `load_state_dict`."""
        self.metric_names = names
        self.last_metrics, self.metric_sums = (torch.zeros(len(names), device=self.device) for _ in range(2))

    def raise_if_diverged(self) -> None:
        """Waits for the device and raises DivergedError if a step was not finite."""
        self._read()

    def read_metrics(self) -> dict[str, float]:
        """Returns each metric's mean over the steps since the last call. Waits for the device.

        Raises:
            DivergedError: If a step since then was not finite.
        """
        good_steps, sums = self._read()
        self.window_start += good_steps
        self.metric_sums.zero_()
        self.good_steps.zero_()
        return {name: value / good_steps for name, value in zip(self.metric_names, sums, strict=True)}

    def _read(self) -> tuple[int, list[float]]:
        """Copies flag and sums to the host; returns the number of steps in the sums, and the sums."""
        flags = torch.stack([self.found_inf, self.good_steps])
        found_inf, good_steps, *values = torch.cat([flags, self.metric_sums, self.last_metrics]).tolist()
        n = len(self.metric_names)
        if found_inf:
            terms = ", ".join(f"{name} {v:.3g}" for name, v in zip(self.metric_names, values[n:], strict=True))
            good = self.window_start + int(good_steps)
            raise DivergedError(
                f"training diverged at step {good + 1}: a loss, metric, gradient or buffer is not finite ({terms}); "
                f"the weights are those of step {good}",
                DIVERGED_HINT,
            )
        return int(good_steps), values[:n]

    def _compile(self) -> None:
        """Compiles the step as one graph, or as two if processes or micro-batches are averaged in between."""
        if distributed.world_size() == 1 and self.config.grad_accum_steps == 1:
            self.update = Compiled(self.update)  # type: ignore[method-assign]
        else:
            self.forward_backward = Compiled(self.forward_backward)  # type: ignore[method-assign]
            self.optimizer_step = Compiled(self.optimizer_step)  # type: ignore[method-assign]
        if self.device.type == "cuda":
            self.run = CUDAGraphWrapper(self.run)  # type: ignore[method-assign, assignment]

    def _scalars(self, step: int) -> list[float]:
        lr = self.config.lr * self.config.lr_factor(step, self.total_steps)
        return StepScalars.values(self.config.kl_weight(step), lr, step)


def saved_buffers(*modules: nn.Module) -> list[Tensor]:
    """Returns the persistent buffers of modules, each once: state that a forward pass may change."""
    tensors = [t for m in modules for t in m.state_dict(keep_vars=True).values() if not isinstance(t, nn.Parameter)]
    return list({id(t): t for t in tensors}.values())


def split_batch(batch: Batch, n: int) -> list[Batch]:
    """Splits a batch into n micro-batches of equal size."""
    labels = [None] * n if batch.y is None else batch.y.chunk(n)
    return [Batch(x, y) for x, y in zip(batch.x.chunk(n), labels, strict=True)]


def binarize(x: Tensor, config: TrainConfig) -> Tensor:
    """Samples bits with the grey levels in [0, 1] as probabilities, if the training binarizes."""
    return torch.bernoulli(x) if config.binarize == "dynamic" else x


def grad_norm(gradients: Sequence[Tensor | None]) -> Tensor:
    """Returns the L2 norm of all gradients of a group together, `()`."""
    present = [g for g in gradients if g is not None]
    if not torch.compiler.is_compiling():
        return nn.utils.get_total_norm(present)
    # The compiler fuses sums of squares into other loops. It does not fuse the kernels of get_total_norm.
    return torch.stack([g.square().sum() for g in present]).sum().sqrt()


def mean_grads(parts: Sequence[StepGrads]) -> StepGrads:
    """Returns the mean over micro-batches. A loss that is missing in a micro-batch counts as 0 there."""

    def mean(values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        names = dict.fromkeys(name for value in values for name in value)
        return {n: torch.stack([v[n] for v in values if n in v]).sum(0) / len(parts) for n in names}

    def mean_gradients(group: str) -> list[Tensor | None]:
        present = [part.gradients[group] for part in parts if group in part.gradients]
        columns = [[g for g in column if g is not None] for column in zip(*present, strict=True)]
        return [sum(column[1:], column[0]) / len(parts) if column else None for column in columns]

    losses, metrics = mean([p.losses for p in parts]), mean([p.metrics for p in parts])
    return StepGrads(losses, metrics, {name: mean_gradients(name) for name in losses})


def average_over_processes(grads: StepGrads, buffers: Sequence[Tensor], stop_requested: Tensor) -> StepGrads:
    """Averages the results of all processes in one exchange.

    Args:
        grads: The results of this process.
        buffers: The modules' buffers. Those in floating point are averaged in place.
        stop_requested: Averaged in place, too.
    """
    if distributed.world_size() == 1:
        return grads
    in_place = [stop_requested, *(b for b in buffers if b.is_floating_point())]
    gradients = [g for group in grads.gradients.values() for g in group if g is not None]
    tensors = [*in_place, *grads.losses.values(), *grads.metrics.values(), *gradients]
    averaged = distributed.dist_mean_(torch.cat([t.flatten() for t in tensors]))
    parts = iter(torch.split(averaged, [t.numel() for t in tensors]))
    for tensor in in_place:
        tensor.copy_(next(parts).view_as(tensor))

    def mean_of(value: Tensor) -> Tensor:
        return next(parts).view_as(value).to(value.dtype)

    losses = {name: mean_of(value) for name, value in grads.losses.items()}
    metrics = {name: mean_of(value) for name, value in grads.metrics.items()}
    mean = {name: [g if g is None else mean_of(g) for g in group] for name, group in grads.gradients.items()}
    return StepGrads(losses, metrics, mean)
