"""What a trainer tells while it works, and how fast it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from vaezoo.training.trainer import Trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the trainer tells while it works.

    Attributes:
        split: "train": metrics averaged over the steps since the last report. "valid": over the validation part.
        step: Optimizer steps done, of `steps`.
        epoch: Epochs done, with fraction, of `epochs`.
        metrics: Name -> value, a mean over examples; see `vaezoo.objectives.base` for the units.
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


class Throughput:
    """Times a trainer's work and makes its reports."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.start = self.since = time.perf_counter()
        self.begun = self.reported = trainer.done
        self.rate = 0.0

    def restart(self) -> None:
        """Leaves out what was done since the last report."""
        self.reported, self.since = self.trainer.done, time.perf_counter()

    def report(self, split: Literal["train", "valid"], metrics: Mapping[str, float]) -> Report:
        """Returns a report of now. A validation's has the speed of the training before it."""
        t, now = self.trainer, time.perf_counter()
        if split == "train":
            self.rate = (t.done - self.reported) * t.config.batch_size / (now - self.since)
        return Report(
            split=split,
            step=t.done,
            steps=t.steps,
            epoch=t.done / t.steps_per_epoch,
            epochs=t.steps / t.steps_per_epoch,
            metrics=metrics,
            lr=t.config.lr * t.config.lr_factor(t.done - 1, t.steps),
            images_per_second=self.rate,
            seconds_left=(now - self.start) / max(1, t.done - self.begun) * (t.steps - t.done),
        )
