"""Progress reports of a training, and its speed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

TRIAL_STEPS = 20  # a training of fewer steps only tries whether everything works
COLLAPSED = "the posterior has collapsed"
OPTIMAL = "gaussian:optimal"  # it learns how exact a reconstruction can be
NUMBERS = ("bernoulli", "continuous-bernoulli", "gaussian")  # likelihoods that it can replace
ONLY_WORSE = (
    "the model only got worse: its best checkpoint is that of step 0, before the training; try a lower --lr, "
    "--clip-grad 1, or another --likelihood or --scale"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The progress of a training.

    Attributes:
        split: "train" for metrics averaged over the steps since the last report; "valid" for the validation split.
        step: Optimizer steps taken, out of `steps`.
        epoch: Epochs trained, with a fraction, out of `epochs`.
        metrics: Name -> mean over examples; see `vaezoo.objectives.base` for the units.
        lr: Learning rate of the last step.
        images_per_second: Training examples per second since the last report, without evaluation.
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


def collapse_advice(likelihood: str) -> str:
    """Returns what a posterior that has collapsed means, and what helps with a likelihood of the data."""
    text = "no latent dimension depends on the data; try more steps, --kl-warmup, a larger --free-bits, a lower beta"
    if likelihood == OPTIMAL or likelihood.partition(":")[0] not in NUMBERS:
        return text
    return f"{text}, or --likelihood {OPTIMAL} if the data are not bits"


def unused_advice(levels: Sequence[str]) -> str:
    """Returns that levels of a quantizer's codes hold nothing of the data, and what helps."""
    return (
        f"the codes of {', '.join(levels)} are the same for all examples and encode nothing; try a lower --lr, or with "
        "codebooks a larger revive_below"
    )


class Throughput:
    """Measures the speed of a training.

    Args:
        step: Steps taken so far.
        batch_size: Examples per step.

    Attributes:
        first_step: The step at which this process started.
        images_per_second: Of the last `measure`.
    """

    def __init__(self, step: int, batch_size: int) -> None:
        self.first_step = self._step = step
        self.batch_size = batch_size
        self.images_per_second = 0.0
        self._start = self._since = time.perf_counter()

    def restart(self, step: int) -> None:
        """Excludes the time since the last measurement."""
        self._step, self._since = step, time.perf_counter()

    def measure(self, step: int) -> None:
        """Measures the speed since the last `restart`."""
        seconds = time.perf_counter() - self._since
        self.images_per_second = (step - self._step) * self.batch_size / seconds

    def seconds_left(self, step: int, total_steps: int) -> float:
        """Estimates the time to the end, in seconds."""
        elapsed = time.perf_counter() - self._start
        return elapsed / max(1, step - self.first_step) * (total_steps - step)
