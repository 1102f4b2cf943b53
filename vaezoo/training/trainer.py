"""The Trainer: the one loop that trains every model."""

from __future__ import annotations

import math
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaezoo.core import distributed, signals
from vaezoo.core.device import resolve_device
from vaezoo.core.memory import is_out_of_memory, out_of_memory
from vaezoo.core.precision import tf32
from vaezoo.core.seed import derive_seed, epoch_permutation, isolate_rng, set_seed
from vaezoo.data.base import Dataset, TensorSplit, to_floats
from vaezoo.data.prefetch import prefetch, to_device_if_fits
from vaezoo.errors import DivergedError, VaezooWarning, safe_repr
from vaezoo.objectives.base import Objective
from vaezoo.posteriors.base import active_units
from vaezoo.training.config import TrainConfig
from vaezoo.training.reports import Report, Throughput
from vaezoo.training.train_step import TrainStep
from vaezoo.training.validate import check_device, validate_setup
from vaezoo.training.validation import evaluate
from vaezoo.vae import VAE, eval_mode

REPORT_EVERY = 50  # steps between two reads of the device
SEEN = 256  # examples that a collapsed posterior is looked for in ...
LEARNED = 500  # ... after so many steps: before, most models encode nothing yet


class TrainerState(NamedTuple):
    """A moment of a training, at which the model holds the weights that were evaluated.

    Attributes:
        step: Optimizer steps done.
        metrics: Of the evaluation at this step; empty if the training was stopped before one.
        counters: Numbers and names that `Trainer.restore` takes, to go on from here.
        tensors: As for these, but besides the model's and the objective's own.
    """

    step: int
    metrics: Mapping[str, float]
    counters: Mapping[str, object]
    tensors: Mapping[str, Tensor]


class Trainer:
    """Trains a VAE with an objective on a data set.

    Args:
        vae: The model; it is moved to the device.
        objective: What is minimised; moved too.
        data: What it is trained on.
        config: How.
        on_report: Called with each Report.
        on_checkpoint: Called with a Snapshot before the first step, after each evaluation and its report, and
            where `vaezoo.core.signals` ends the training.

    Attributes:
        steps: Optimizer steps of the whole training.
        done: Steps done so far.
        config: The settings, with what "auto" means decided.
        device: Where it trains.

    Raises:
        UnsupportedDataError: If the model was made for other data.
        VaezooError: If the batch is larger than the training part or cannot be divided among ranks and parts, or the
            device is not there or cannot do what is asked for.
    """

    def __init__(
        self,
        vae: VAE,
        objective: Objective,
        data: Dataset,
        config: TrainConfig,
        *,
        on_report: Callable[[Report], None] = lambda report: None,
        on_checkpoint: Callable[[TrainerState], None] = lambda snapshot: None,
    ) -> None:
        validate_setup(vae, objective, data, config)
        self.device = resolve_device(config.device)
        check_device(self.device, config)
        self.config = config = config.decided(len(data.train))
        self.vae = vae.to(self.device)
        self.objective = objective.to(self.device)
        if config.compile == "on" and len(vae.data.shape) == 3:
            # Compiled convolutions are a sixteenth faster so on a CPU, eager ones slower; see benchmarks/README.md.
            self.vae.to(memory_format=torch.channels_last)
            self.objective.to(memory_format=torch.channels_last)
        self.train_part = to_device_if_fits(data.train, self.device)
        self.valid_part = to_device_if_fits(data.valid, self.device)
        self.on_report = on_report
        self.on_checkpoint = on_checkpoint
        self.steps_per_epoch = config.steps_an_epoch(len(data.train))
        self.steps = config.total_steps(len(data.train))
        self.eval_every = config.eval_every or self.steps_per_epoch
        self.step = TrainStep(self.vae, self.objective, config, self.steps)
        self.done = 0
        self.evaluated = self.saved = -1  # the steps of the newest evaluation and the newest snapshot
        self.best, self.waited = -math.inf, 0  # the best evaluation so far, and those since
        self.collapsed = False

    def fit(self) -> None:
        """Trains to the end, from the start or from what was restored. The caller's global random state is left alone.

        With several ranks (see `vaezoo.core.distributed`) all of them call this and take the same steps.

        Raises:
            DivergedError: If a loss or gradient becomes infinite or NaN; the weights are those before that step.
            VaezooError: If there is too little memory for the batch.
            Stopped: If the process was asked to end (see `vaezoo.core.signals`), after a last snapshot.
        """
        self.vae.train()
        self.objective.train()
        try:
            with signals.defer_signals(), isolate_rng(self.device), tf32(self.config.precision == "tf32"):
                self.clock = Throughput(self)
                try:
                    if self._is_due(self.done) and self.evaluated != self.done:
                        self._evaluate()
                    if not self._is_over():
                        self._train()
                except signals.Stopped:
                    if self.saved != self.done:
                        self.step.check()
                        self._save({})
                    raise
        except (RuntimeError, MemoryError) as e:
            if is_out_of_memory(e):
                raise out_of_memory(self.config.batch_size, self.config.grad_accum_steps, self.device) from e
            raise

    def restore(
        self, counters: Mapping[str, object], read: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
    ) -> None:
        """Puts the training where a Snapshot was taken, whose weights model and objective hold already.

        Args:
            counters: The Snapshot's.
            read: Takes tensors of the names, shapes and types of the Snapshot's, and returns the Snapshot's own.

        Raises:
            ValueError, KeyError, TypeError, OverflowError: If the counters are none of a Snapshot of this training.
        """
        numbers: list[Any] = [counters[name] for name in ("done", "evaluated", "waited", "first")]
        names, best = counters["names"], counters["best"]
        if not all(type(n) is int for n in numbers) or not isinstance(names, list):
            raise ValueError(f"counters {safe_repr(dict(counters))}")
        self.done, self.evaluated, self.waited, first = numbers
        if not (
            0 <= first <= self.done <= self.steps
            and -1 <= self.evaluated <= self.done
            and 0 <= self.waited <= self.done
            and type(best) in (int, float, type(None))
            and all(type(name) is str for name in names)
        ):
            raise ValueError(f"counters {safe_repr(dict(counters))}")
        self.best = -math.inf if best is None else float(best)  # type: ignore[arg-type]
        self.saved = self.done
        self.step.resize(names)
        self.step.restore(read(self.step.state()), first)

    def _is_due(self, step: int) -> bool:
        """Tells whether there is an evaluation after so many steps; the first is before any."""
        return step % self.eval_every == 0 or step == self.steps

    def _is_over(self) -> bool:
        return self.done >= self.steps or self.waited >= (self.config.early_stopping or math.inf)

    def _train(self) -> None:
        clock = self.clock
        with closing(prefetch(self.train_part, self._indices(), self.device, self.config.workers)) as batches:
            for index, batch in enumerate(batches, self.done):
                set_seed(derive_seed(self.config.seed, "noise", index, distributed.rank()), self.device)
                self.step(index, batch)
                self.done = index + 1
                if self.config.compile == "on" and self.done == clock.begun + 1 < self.steps:
                    clock.restart()  # what compiling took is no speed
                if self._is_due(self.done) or self.done % REPORT_EVERY == 0:
                    metrics = self.step.read()
                    self.on_report(clock.report("train", metrics))
                    if self._is_due(self.done):
                        self._evaluate()
                        if self._is_over():
                            return
                    clock.restart()
                self._leave_if_asked()

    def _leave_if_asked(self) -> None:
        """Ends a training that was asked to end; of several ranks all, after the same step."""
        if distributed.world_size() == 1:
            signals.raise_if_stopped()
        elif (self.device.type == "cpu" or self.done % REPORT_EVERY == 0) and self.step.asked > 0:
            raise signals.Stopped(signals.pending_signal() or signal.SIGTERM)

    def _evaluate(self) -> None:
        """Evaluates, reports, and saves."""
        with self.step.average.applied():
            try:
                metrics = evaluate(self.vae, self.objective, self.valid_part, self.config)
            except DivergedError as e:
                raise DivergedError(f"training diverged by step {self.done}: {e.message}", e.hint) from e
            self._look_for_collapse()
        self.evaluated = self.done
        if self.config.early_stopping is not None and self.done:
            value = metrics[str(self.objective.monitor)]
            self.best, self.waited = (value, 0) if value > self.best else (self.best, self.waited + 1)
        if self.done:
            self.on_report(self.clock.report("valid", metrics))
        self._save(metrics)

    def _save(self, metrics: Mapping[str, float]) -> None:
        counters = {
            "done": self.done,
            "evaluated": self.evaluated,
            "waited": self.waited,
            "first": self.step.first,
            "best": self.best if math.isfinite(self.best) else None,
            "names": self.step.names,
        }
        with self.step.average.applied():
            self.on_checkpoint(TrainerState(self.done, metrics, counters, self.step.state()))
        self.saved = self.done

    def _look_for_collapse(self) -> None:
        """Warns once, in the second half of a training, if the codes say nothing of the images."""
        if self.collapsed or self.done < max(LEARNED, self.steps / 2) or distributed.rank():
            return
        with eval_mode(self.vae), distributed.single_process():
            x = self.valid_part.subsample(SEEN).x.to(self.device)
            codes = self.vae.encode(to_floats(x)).mode()
        if active_units(codes) == 0:
            self.collapsed = True
            what = f"the posterior has collapsed by step {self.done}: no latent dimension depends on the data"
            warnings.warn(f"{what}; try --kl-warmup, --free-bits 0.1 or a lower beta", VaezooWarning, stacklevel=2)

    def _indices(self) -> Iterator[Tensor]:
        """Yields the examples of this rank's share of each batch to come. How many ranks there are changes no batch."""
        size = self.config.batch_size
        share = size // distributed.world_size()
        offset = distributed.rank() * share
        for step in range(self.done, self.steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if position == 0 or step == self.done:
                order = epoch_permutation(self.config.seed, epoch, len(self.train_part))
                if isinstance(self.train_part, TensorSplit):
                    order = order.to(self.train_part.x.device)
            start = position * size + offset
            yield order[start : start + share]
