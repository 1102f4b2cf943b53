"""The Trainer: the one loop that trains every model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from vaezoo.data.base import Batch, Dataset, Part
from vaezoo.errors import DivergedError, UnsupportedDataError, VaezooError
from vaezoo.objectives import Objective, Step
from vaezoo.training.chance import derive_seed, order_of_epoch
from vaezoo.training.config import TrainConfig
from vaezoo.training.loading import settle
from vaezoo.training.stepping import GuardedStep
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

    Raises:
        UnsupportedDataError: If the model was made for other data.
        VaezooError: If the batch is larger than the training part, or the device is not there.
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
        check_fit(vae, data, config)
        self.device = pick_device(config.device)
        self.vae = vae.to(self.device)
        self.objective = objective.to(self.device)
        self.config = config
        self.train_part = settle(data.train, self.device)
        self.valid_part = settle(data.valid, self.device)
        self.on_report = on_report
        self.on_checkpoint = on_checkpoint
        self.steps_per_epoch = len(data.train) // config.batch_size
        self.steps = config.steps or config.epochs * self.steps_per_epoch
        self.step = GuardedStep(self.vae, self.objective, config, self.steps)

    def fit(self) -> None:
        """Trains to the end. The caller's global random state is left as it was.

        Raises:
            DivergedError: If a loss or gradient becomes infinite or NaN; the weights are those before that step.
        """
        with own_chance(self.device):
            self.on_checkpoint(0, self._evaluate())
            self._train()

    def _train(self) -> None:
        eval_every = self.config.eval_every or self.steps_per_epoch
        start = since = time.perf_counter()
        reported = 0
        for index, batch in enumerate(self._batches()):
            self.step(index, batch)
            done = index + 1
            evaluating = done % eval_every == 0 or done == self.steps
            if evaluating or done % REPORT_EVERY == 0:
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
                if evaluating:
                    valid = self._evaluate()
                    self.on_checkpoint(done, valid)
                    self.on_report(replace(report, split="valid", metrics=valid))
                reported, since = done, time.perf_counter()

    def _batches(self) -> Iterator[Batch]:
        """Yields the batches of the whole training, each with the random state that belongs to its step."""
        size, order = self.config.batch_size, torch.empty(0)
        for index in range(self.steps):
            epoch, position = divmod(index, self.steps_per_epoch)
            if position == 0:
                order = order_of_epoch(self.config.seed, epoch, len(self.train_part)).to(self.device)
            torch.manual_seed(derive_seed(self.config.seed, "noise", index))
            yield draw(self.train_part, order[position * size : (position + 1) * size], self.config)

    def _evaluate(self) -> dict[str, float]:
        return evaluate(self.vae, self.objective, self.valid_part, self.config)


def evaluate(vae: VAE, objective: Objective, part: Part, config: TrainConfig) -> dict[str, float]:
    """Returns an objective's metrics over a part of a data set: means over its examples, z sampled once for each.

    z and, where the training binarizes, the pixels are drawn from the run's seed: the same at each call. The caller's
    random state is left as it was. Model and objective are in evaluation mode meanwhile. The part has to be on the
    model's device.

    Raises:
        DivergedError: If a metric is not finite.
    """
    modes = vae.training, objective.training
    vae.eval()
    objective.eval()
    sums: dict[str, Tensor] = {}
    device = next(vae.parameters()).device
    with torch.no_grad(), own_chance(device):
        for number, index in enumerate(torch.split(torch.arange(len(part), device=device), config.batch_size)):
            torch.manual_seed(derive_seed(config.seed, "evaluation", number))
            metrics = objective(vae, draw(part, index, config), Step.plain(device)).metrics
            for name, value in metrics.items():
                sums[name] = sums.get(name, torch.zeros((), device=device)) + value * len(index)
    vae.train(modes[0])
    objective.train(modes[1])
    means = {name: float(total) / len(part) for name, total in sums.items()}
    if not all(math.isfinite(value) for value in means.values()):
        terms = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
        raise DivergedError(f"an evaluation is not finite ({terms})", "try a lower --lr, --clip-grad 1 or --kl-warmup")
    return means


def own_chance(device: torch.device) -> AbstractContextManager[None]:
    """Returns a context in which seeding does not disturb the caller's random state."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def draw(part: Part, index: Tensor, config: TrainConfig) -> Batch:
    """Gathers a batch and binarizes it where the training does."""
    batch = part.batch(index)
    return batch._replace(x=torch.bernoulli(batch.x)) if config.binarize == "dynamic" else batch


def check_fit(vae: VAE, data: Dataset, config: TrainConfig) -> None:
    """Raises unless model, data and batch size fit together; see Trainer."""
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


def pick_device(name: str) -> torch.device:
    """Returns the device of that name, for "auto" the best there is.

    Raises:
        VaezooError: If there is no such device here.
    """
    there = [d for d, ok in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())) if ok]
    there.append("cpu")
    if name == "auto":
        return torch.device(there[0])
    try:
        device = torch.device(name)
        if device.type in there and (device.index or 0) < max(1, torch.cuda.device_count()):
            return device
    except RuntimeError:
        pass
    raise VaezooError(f"there is no device '{name}' here", f"use auto, {', '.join(there)}")
