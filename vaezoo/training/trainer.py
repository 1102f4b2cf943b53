"""The Trainer: the one loop that trains every model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from vaezoo import ranks
from vaezoo.data.base import Batch, Dataset, Part, Split, to_floats
from vaezoo.errors import DivergedError, UnsupportedDataError, VaezooError
from vaezoo.objectives import Objective, Step
from vaezoo.training.arithmetic import tf32
from vaezoo.training.chance import derive_seed, order_of_epoch, set_seed
from vaezoo.training.config import TrainConfig
from vaezoo.training.loading import ahead, settle
from vaezoo.training.memory import is_out_of_memory, out_of_memory
from vaezoo.training.stepping import GuardedStep, binarized
from vaezoo.vae import VAE

REPORT_EVERY = 50  # steps between two reads of the device


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the trainer tells while it works.

    Attributes:
        split: "train": metrics averaged over the steps since the last report. "valid": over the validation part.
        step: Optimizer steps done, of `steps`.
        epoch: Epochs done, with fraction, of `epochs`.
        metrics: Name -> value, a mean over examples; see `vaezoo.objectives` for the units.
        lr: Learning rate of the last step.
        images_per_second: Training examples a second since the last report, evaluation left out.
        seconds_left: Estimated from the time since the start.
    """

    split: Literal["train", "valid"]
    step: int
    steps: int
    epoch: float
    epochs: float
    metrics: Mapping[str, float]
    lr: float
    images_per_second: float
    seconds_left: float


class Trainer:
    """Trains a VAE with an objective on a data set.

    Args:
        vae: The model; it is moved to the device.
        objective: What is minimised; moved too.
        data: What it is trained on.
        config: How.
        on_report: Called with each Report.
        on_checkpoint: Called with the step and the validation metrics before the first step and after each
            evaluation.

    Attributes:
        steps: Optimizer steps of the whole training.
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
        on_checkpoint: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None,
    ) -> None:
        check_fit(vae, objective, data, config)
        self.device = pick_device(config.device)
        check_device(self.device, config)
        self.config = config = config.decided(len(data.train))
        self.vae = vae.to(self.device)
        self.objective = objective.to(self.device)
        if config.compile == "on" and len(vae.data.shape) == 3:
            # Compiled convolutions are a sixteenth faster so on a CPU, eager ones slower; see benchmarks/README.md.
            self.vae.to(memory_format=torch.channels_last)
            self.objective.to(memory_format=torch.channels_last)
        self.train_part = settle(data.train, self.device)
        self.valid_part = settle(data.valid, self.device)
        self.on_report = on_report
        self.on_checkpoint = on_checkpoint
        self.steps_per_epoch = config.steps_an_epoch(len(data.train))
        self.steps = config.total_steps(len(data.train))
        self.eval_every = config.eval_every or self.steps_per_epoch
        self.step = GuardedStep(self.vae, self.objective, config, self.steps)
        self.best, self.waited = -math.inf, 0  # the best evaluation so far, and those since

    def fit(self) -> None:
        """Trains to the end. The caller's global random state is left as it was.

        With several ranks (see `vaezoo.ranks`) all of them call this and take the same steps.

        Raises:
            DivergedError: If a loss or gradient becomes infinite or NaN; the weights are those before that step.
            VaezooError: If there is too little memory for the batch.
        """
        self.vae.train()
        self.objective.train()
        try:
            with own_chance(self.device), tf32(self.config.precision == "tf32"):
                self.on_checkpoint(0, self._evaluate())
                self._train()
        except (RuntimeError, MemoryError) as e:
            if is_out_of_memory(e):
                raise out_of_memory(self.config.batch_size, self.config.grad_accum, self.device) from e
            raise

    def _train(self) -> None:
        start = since = time.perf_counter()
        reported = 0
        with closing(ahead(self.train_part, self._indices(), self.device, self.config.workers)) as batches:
            for index, batch in enumerate(batches):
                set_seed(derive_seed(self.config.seed, "noise", index, ranks.number()), self.device)
                self.step(index, batch)
                done = index + 1
                if done == 1 and self.config.compile == "on" and self.steps > 1:
                    reported, since = done, time.perf_counter()  # what compiling took is no speed
                evaluating = done % self.eval_every == 0 or done == self.steps
                if not evaluating and done % REPORT_EVERY:
                    continue
                metrics = self.step.read()
                now = time.perf_counter()
                report = Report(
                    split="train",
                    step=done,
                    steps=self.steps,
                    epoch=done / self.steps_per_epoch,
                    epochs=self.steps / self.steps_per_epoch,
                    metrics=metrics,
                    lr=self.config.lr * self.config.lr_factor(index, self.steps),
                    images_per_second=(done - reported) * self.config.batch_size / (now - since),
                    seconds_left=(now - start) / done * (self.steps - done),
                )
                self.on_report(report)
                if evaluating and self._ends_with(report):
                    return
                reported, since = done, time.perf_counter()

    def _ends_with(self, report: Report) -> bool:
        """Evaluates, and tells whether early stopping ends the training here."""
        metrics = self._evaluate()
        self.on_checkpoint(report.step, metrics)
        self.on_report(replace(report, split="valid", metrics=metrics))
        if self.config.early_stopping is None:
            return False
        value = metrics[str(self.objective.monitor)]
        self.best, self.waited = (value, 0) if value > self.best else (self.best, self.waited + 1)
        return self.waited >= self.config.early_stopping

    def _indices(self) -> Iterator[Tensor]:
        """Yields the examples of this rank's share of each batch. How many ranks there are changes no batch."""
        size = self.config.batch_size
        share = size // ranks.size()
        offset = ranks.number() * share
        for first in range(0, self.steps, self.steps_per_epoch):
            order = order_of_epoch(self.config.seed, first // self.steps_per_epoch, len(self.train_part))
            if isinstance(self.train_part, Split):
                order = order.to(self.train_part.x.device)
            for position in range(min(self.steps_per_epoch, self.steps - first)):
                start = position * size + offset
                yield order[start : start + share]

    def _evaluate(self) -> dict[str, float]:
        return evaluate(self.vae, self.objective, self.valid_part, self.config)


def evaluate(vae: VAE, objective: Objective, part: Part, config: TrainConfig) -> dict[str, float]:
    """Returns an objective's metrics over a part of a data set: means over its examples, z sampled once for each.

    z and, where the training binarizes, the pixels are drawn from the run's seed: the same at each call, on any number
    of ranks. The caller's random state is left as it was. Model and objective are in evaluation mode meanwhile.

    Raises:
        DivergedError: If a metric is not finite.
    """
    modes = vae.training, objective.training
    vae.eval()
    objective.eval()
    device = next(vae.parameters()).device
    # Each rank takes every so many-th batch; one for which none is left takes the first again, and counts it 0 times.
    mine = range(ranks.number(), -(-len(part) // config.batch_size), ranks.size())
    numbers = mine or range(1)
    examples = torch.arange(len(part), device=part.x.device if isinstance(part, Split) else None)
    indices = [examples[n * config.batch_size :][: config.batch_size] for n in numbers]
    sums: dict[str, Tensor] = {}
    batches = ahead(part, indices, device, config.workers)
    with closing(batches), torch.no_grad(), own_chance(device), ranks.alone():
        for number, raw in zip(numbers, batches, strict=True):
            set_seed(derive_seed(config.seed, "evaluation", number), device)
            x = binarized(to_floats(raw.x), config)
            metrics = objective(vae, Batch(x, raw.y), Step.plain(device)).metrics
            for name, value in metrics.items():
                weight = len(x) if number in mine else 0
                sums[name] = sums.get(name, torch.zeros((), device=device)) + value * weight
    vae.train(modes[0])
    objective.train(modes[1])
    means = {name: float(ranks.average(total)) * ranks.size() / len(part) for name, total in sums.items()}
    if not all(math.isfinite(value) for value in means.values()):
        terms = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
        raise DivergedError(f"an evaluation is not finite ({terms})", "try a lower --lr, --clip-grad 1 or --kl-warmup")
    return means


def own_chance(device: torch.device) -> AbstractContextManager[None]:
    """Returns a context in which seeding does not disturb the caller's random state."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def check_fit(vae: VAE, objective: Objective, data: Dataset, config: TrainConfig) -> None:
    """Raises unless model, data and batch size fit together; see Trainer."""
    if config.early_stopping is not None and objective.monitor is None:
        raise VaezooError(
            "no metric of this model tells when it is at its best", "leave out --early-stopping, and set --epochs"
        )
    if vae.data.shape != data.spec.shape:
        raise UnsupportedDataError(
            f"the model is made for shape {vae.data.shape}, data set '{data.spec.name}' has {data.spec.shape}",
            "build the model from the data set's spec",
        )
    if config.batch_size > len(data.train):
        raise VaezooError(
            f"batch size {config.batch_size} is larger than the {len(data.train)} training examples of "
            f"'{data.spec.name}'",
            f"give --batch-size at most {len(data.train)}",
        )
    parts = ranks.size() * config.grad_accum
    if config.batch_size % parts:
        raise VaezooError(
            f"batch size {config.batch_size} cannot be divided into {parts} equal parts "
            f"(processes: {ranks.size()}, parts for each: {config.grad_accum})",
            f"give --batch-size a multiple of {parts}",
        )


def check_device(device: torch.device, config: TrainConfig) -> None:
    """Raises if the device cannot do what is asked for."""
    if config.precision == "tf32" and device.type != "cuda":
        raise VaezooError(f"precision tf32 is CUDA's, and the device is {device}", "use fp32 or bf16")


def pick_device(name: str) -> torch.device:
    """Returns the device of that name, for "auto" the best there is.

    Raises:
        VaezooError: If there is no such device here.
    """
    there = [d for d, ok in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())) if ok]
    there.append("cpu")
    if name == "auto":
        name = there[0]
    if name == "cuda" and ranks.launched():
        name = f"cuda:{ranks.local_number()}"  # one GPU for each rank
    try:
        device = torch.device(name)
        if device.type in there and (device.index or 0) < max(1, torch.cuda.device_count()):
            return device
    except RuntimeError:
        pass
    raise VaezooError(f"there is no device '{name}' here", f"use auto, {', '.join(there)}")
