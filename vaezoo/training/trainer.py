"""The Trainer: the one loop that trains every model."""

from __future__ import annotations

import math
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vaezoo.core import distributed, signals
from vaezoo.core.device import resolve_device
from vaezoo.core.memory import is_out_of_memory, keep_freed_memory, limited_to_available, out_of_memory
from vaezoo.core.precision import tf32
from vaezoo.core.seed import derive_seed, epoch_permutation, isolate_rng, set_seed
from vaezoo.data.base import Dataset, TensorSplit
from vaezoo.data.prefetch import prefetch, to_device_if_fits
from vaezoo.decoding import decode_latents
from vaezoo.errors import DivergedError, VaezooWarning, safe_repr
from vaezoo.objectives.base import Objective
from vaezoo.objectives.vq import unused_levels
from vaezoo.posteriors.base import active_units, map_tensors
from vaezoo.training.config import TrainConfig, as_config
from vaezoo.training.reports import COLLAPSED, TRIAL_STEPS, Report, Throughput, collapse_advice, unused_advice
from vaezoo.training.train_step import TrainStep
from vaezoo.training.validate import check_device, validate_setup
from vaezoo.training.validation import evaluate
from vaezoo.vae import VAE, blank_batch, conditioned_on, eval_mode, sample_prior

REPORT_EVERY = 50  # steps between two reads of the device
SAMPLES = 64  # images that `samples_every` draws
COLLAPSE_EXAMPLES = 256  # validation examples whose codes are tested for posterior collapse
COLLAPSE_STEPS = 500  # no test before this step, because most models encode nothing yet


class TrainerState(NamedTuple):
    """The state of a training at one step. The model holds the weights that were evaluated.

    Attributes:
        step: Optimizer steps taken.
        metrics: The evaluation at this step; empty if the training stopped before one.
        counters: Numbers and names that `Trainer.restore` needs to continue.
        tensors: Tensors that `Trainer.restore` needs to continue, without those of model and objective.
    """

    step: int
    metrics: Mapping[str, float]
    counters: Mapping[str, object]
    tensors: Mapping[str, Tensor]


class Trainer:
    """Trains a VAE with an objective on a data set.

    Args:
        vae: The model; it is moved to the device.
        objective: The loss; it is moved, too.
        data: The data set.
        config: The settings, as in `train`.
        on_report: Called with each Report.
        on_checkpoint: Called with a TrainerState before the first step, after each evaluation and its report, and when
            `vaezoo.signals` ends the training.
        on_samples: Called with the step and images `(64, C, H, W)` in [0, 1], on the CPU, if `config.samples_every` is
            set. All are drawn from the same noise. The training has the same bytes as without them.

    Attributes:
        steps: Optimizer steps of the whole training.
        global_step: Steps taken so far.
        config: The settings, with "auto" resolved.
        device: The device.

    Raises:
        UnsupportedDataError: If the model was built for other data.
        VaezooError: If the batch is larger than the training split or cannot be divided among processes and
            micro-batches, or the device does not exist or does not support the settings.
    """

    def __init__(
        self,
        vae: VAE,
        objective: Objective,
        data: Dataset,
        config: TrainConfig | Mapping[str, object],
        *,
        on_report: Callable[[Report], None] = lambda report: None,
        on_checkpoint: Callable[[TrainerState], None] = lambda state: None,
        on_samples: Callable[[int, Tensor], None] = lambda step, images: None,
    ) -> None:
        config = as_config(config)
        validate_setup(vae, objective, data, config)
        self.device = resolve_device(config.device)
        check_device(self.device, config)
        self.config = config = config.resolved(len(data.train))
        self.vae = vae.to(self.device)
        self.objective = objective.to(self.device)
        if config.compile == "on" and len(vae.data.shape) == 3:
            # On a CPU this makes compiled convolutions 6 % faster and eager ones slower; see benchmarks/README.md.
            self.vae.to(memory_format=torch.channels_last)
            self.objective.to(memory_format=torch.channels_last)
        self.sampler = objective.sampler(data.train, config.seed)
        train = data.train if self.sampler is None else self.sampler.split
        self.train_split = to_device_if_fits(train, self.device)
        self.valid_split = to_device_if_fits(data.valid, self.device)
        self.on_report = on_report
        self.on_checkpoint = on_checkpoint
        self.on_samples = on_samples
        self.steps_per_epoch = config.steps_per_epoch(len(data.train))
        self.steps = config.total_steps(len(data.train))
        self.eval_every = config.eval_every or self.steps_per_epoch
        self.train_step = TrainStep(self.vae, self.objective, config, self.steps, len(data.train))
        self.throughput = Throughput(0, config.batch_size)
        self.global_step = 0
        self.last_eval_step = self.last_saved_step = -1
        self.best_metric, self.wait_count = -math.inf, 0  # wait_count: evaluations since the best one
        self.collapse_reported = False

    def fit(self) -> None:
        """Trains to the end, from the start or from the restored state. The caller's random state does not change.

        With several processes (see `vaezoo.distributed`) all of them call this and take the same steps.

        Raises:
            DivergedError: If a loss, metric, gradient or buffer is not finite; the weights are those before that step.
            VaezooError: If the batch does not fit into memory.
            Stopped: If the process was asked to stop (see `vaezoo.signals`), after a last checkpoint.
        """
        self.vae.train()
        self.objective.train()
        limit: AbstractContextManager[None] = nullcontext()
        if self.device.type == "cpu":
            keep_freed_memory()
            limit = limited_to_available()
        try:
            with limit, signals.defer_signals(), isolate_rng(self.device), tf32(self.config.precision == "tf32"):
                self.throughput = Throughput(self.global_step, self.config.batch_size)
                try:
                    if self._is_eval_due() and self.last_eval_step != self.global_step:
                        self._evaluate()
                    if not self._is_finished():
                        self._train()
                except signals.Stopped:
                    if self.last_saved_step != self.global_step:
                        self.train_step.raise_if_diverged()
                        self._save({})
                    raise
        except (RuntimeError, MemoryError) as e:
            if is_out_of_memory(e):
                raise out_of_memory(self.config.batch_size, self.config.grad_accum_steps, self.device) from e
            raise

    def restore(
        self, counters: Mapping[str, object], read: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
    ) -> None:
        """Restores a TrainerState. Model and objective must hold its weights already.

        Args:
            counters: The state's counters.
            read: Receives tensors with the names, shapes and types of the state's tensors, and returns the state's.

        Raises:
            ValueError, KeyError, TypeError, OverflowError: If the counters do not belong to this training.
        """
        keys = ("global_step", "last_eval_step", "wait_count", "window_start")
        numbers: list[Any] = [counters[key] for key in keys]
        names, best = counters["metric_names"], counters["best_metric"]
        if not all(type(n) is int for n in numbers) or not isinstance(names, list):
            raise ValueError(f"counters {safe_repr(dict(counters))}")
        self.global_step, self.last_eval_step, self.wait_count, window_start = numbers
        if not (
            0 <= window_start <= self.global_step <= self.steps
            and -1 <= self.last_eval_step <= self.global_step
            and 0 <= self.wait_count <= self.global_step
            and type(best) in (int, float, type(None))
            and all(type(name) is str for name in names)
        ):
            raise ValueError(f"counters {safe_repr(dict(counters))}")
        self.best_metric = -math.inf if best is None else float(best)  # type: ignore[arg-type]
        self.last_saved_step = self.global_step
        self.train_step.init_metrics(names)
        self.train_step.load_state_dict(read(self.train_step.state_dict()), window_start)

    def _is_eval_due(self) -> bool:
        """Returns whether to evaluate after the current step. The first evaluation comes before any step."""
        return self.global_step % self.eval_every == 0 or self.global_step == self.steps

    def _is_finished(self) -> bool:
        return self.global_step >= self.steps or self.wait_count >= (self.config.early_stopping or math.inf)

    def _train(self) -> None:
        with closing(prefetch(self.train_split, self._indices(), self.device, self.config.workers)) as batches:
            for step, batch in enumerate(batches, self.global_step):
                set_seed(derive_seed(self.config.seed, "noise", step, distributed.rank()), self.device)
                self.train_step.run(batch.x, batch.y, self.train_step.prepare(step))
                self.global_step = step + 1
                if self.config.samples_every and self.global_step % self.config.samples_every == 0:
                    self._draw_samples()
                if self.config.compile == "on" and self.global_step == self.throughput.first_step + 1 < self.steps:
                    self.throughput.restart(self.global_step)  # the speed excludes compilation
                if self._is_eval_due() or self.global_step % REPORT_EVERY == 0:
                    metrics = self.train_step.read_metrics()
                    self.throughput.measure(self.global_step)
                    self._report("train", metrics)
                    if self._is_eval_due():
                        self._evaluate()
                        if self._is_finished():
                            return
                    self.throughput.restart(self.global_step)
                self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        """Ends a training that was asked to stop. All processes leave after the same step."""
        if distributed.world_size() == 1:
            signals.raise_if_stopped()
            return
        # Reading the flag waits for the device, so on a GPU it is read with the reports.
        due = self.device.type == "cpu" or self.global_step % REPORT_EVERY == 0
        if due and self.train_step.stop_requested > 0:
            raise signals.Stopped(signals.pending_signal() or signal.SIGTERM)

    def _evaluate(self) -> None:
        """Evaluates, reports and saves."""
        with self.train_step.ema.applied():
            try:
                metrics = evaluate(
                    self.vae, self.objective, self.valid_split, self.config, train_size=len(self.train_split)
                )
            except DivergedError as e:
                raise DivergedError(f"training diverged by step {self.global_step}: {e.message}", e.hint) from e
            if self.config.early_stopping is not None and self.global_step:
                value = metrics[str(self.objective.monitor)]
                improved = value > self.best_metric
                self.best_metric, self.wait_count = (value, 0) if improved else (self.best_metric, self.wait_count + 1)
            self._warn_of_collapse()
        self.last_eval_step = self.global_step
        if self.global_step:
            self._report("valid", metrics)
        self._save(metrics)

    def _report(self, split: Literal["train", "valid"], metrics: Mapping[str, float]) -> None:
        step, steps = self.global_step, self.steps
        report = Report(
            split=split,
            step=step,
            steps=steps,
            epoch=step / self.steps_per_epoch,
            epochs=steps / self.steps_per_epoch,
            metrics=metrics,
            lr=self.config.lr * self.config.lr_factor(step - 1, steps),
            images_per_second=self.throughput.images_per_second,
            seconds_left=self.throughput.seconds_left(step, steps),
        )
        self.on_report(report)

    def _save(self, metrics: Mapping[str, float]) -> None:
        counters = {
            "global_step": self.global_step,
            "last_eval_step": self.last_eval_step,
            "wait_count": self.wait_count,
            "window_start": self.train_step.window_start,
            "best_metric": self.best_metric if math.isfinite(self.best_metric) else None,
            "metric_names": self.train_step.metric_names,
        }
        with self.train_step.ema.applied():
            self.on_checkpoint(TrainerState(self.global_step, metrics, counters, self.train_step.state_dict()))
        self.last_saved_step = self.global_step

    def _draw_samples(self) -> None:
        """Draws images from the prior, in the primary process. The next step sets its own seed."""
        if distributed.rank():
            return
        labels = self.valid_split.subsample(SAMPLES).y if "y" in conditioned_on(self.vae) else None
        if labels is not None:
            labels = labels[torch.arange(SAMPLES) % len(labels)].to(self.device)
        with self.train_step.ema.applied(), eval_mode(self.vae), distributed.single_process(), torch.no_grad():
            set_seed(derive_seed(self.config.seed, "latents"), self.device)
            batch = blank_batch(self.vae, SAMPLES, labels)
            images = decode_latents(self.vae, sample_prior(self.vae, batch), batch)
        self.on_samples(self.global_step, images.float().cpu())

    def _warn_of_collapse(self) -> None:
        """Warns once if no latent dimension depends on the data: in the second half of a training, or at its end.

        Of a quantizer it warns if the codes of a level do not.

        A table may have few steps in all, so its training is tested at the end. A trial of a few steps is not.
        """
        at_end = self.global_step >= TRIAL_STEPS and self._is_finished()
        too_early = self.global_step < max(COLLAPSE_STEPS, self.steps / 2) and not at_end
        if self.collapse_reported or too_early or distributed.rank() or len(self.valid_split) < 2:
            return
        with eval_mode(self.vae), distributed.single_process():
            batch = map_tensors(
                self.valid_split.subsample(COLLAPSE_EXAMPLES).batch(slice(None)), lambda t: t.to(self.device)
            )
            codes = self.vae.infer(batch).mode()
        if self.vae.latent_levels:
            unused = unused_levels(codes, self.vae.latent_levels)
            message = f"by step {self.global_step}, {unused_advice(unused)}" if unused else ""
        else:
            advice = collapse_advice(self.vae.data.likelihood)
            message = f"{COLLAPSED} by step {self.global_step}: {advice}" if active_units(codes) == 0 else ""
        if message:
            self.collapse_reported = True
            warnings.warn(message, VaezooWarning, stacklevel=2)

    def _indices(self) -> Iterator[Tensor]:
        """Yields the indices of this process's share of each batch. The number of processes does not change a batch."""
        size = self.config.batch_size
        share = size // distributed.world_size()
        offset = distributed.rank() * share
        first_step = self.global_step  # it moves while this generator is consumed
        device = self.train_split.x.device if isinstance(self.train_split, TensorSplit) else torch.device("cpu")
        for step in range(first_step, self.steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if position == 0 or step == first_step:
                order = epoch_permutation(self.config.seed, epoch, len(self.train_split))
                order = order.to(device) if self.sampler is None else order
            rows = order[position * size :][:size]
            if self.sampler is not None:
                rows = self.sampler.rows(rows, step).to(device)
            yield rows[offset : offset + share]
