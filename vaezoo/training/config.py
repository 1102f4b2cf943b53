"""TrainConfig: how a model is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from vaezoo.errors import VaezooError
from vaezoo.spec import check_types

Optimizer = Literal["adam", "adamw", "rmsprop", "adamax"]
Schedule = Literal["constant", "cosine", "multistep"]

LONG = 20_000  # steps from which "auto" compiles: 10 to 30 s of it are paid back by about 0.7 ms a step


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The settings of a training. Schedules count optimizer steps, never epochs.

    Attributes:
        epochs: Passes over the training part.
        steps: Optimizer steps, instead of epochs; none: as many as the epochs have.
        batch_size: Examples a step, of all ranks together. The rest of an epoch that fills no batch waits for a later
            epoch's order.
        optimizer: For each parameter group of the objective.
        lr: Learning rate, after the warm-up.
        weight_decay: As the optimizer defines it.
        schedule: Of the learning rate: constant, cosine to 0 at the last step, or multistep.
        milestones: Steps at which multistep multiplies the rate by `lr_gamma`.
        lr_gamma: See milestones.
        lr_warmup: Steps over which the rate grows linearly to `lr`.
        kl_warmup: Steps over which the weight of the KL grows linearly from 0 to 1.
        free_bits: Nats of each latent dimension's KL that cost nothing.
        clip_grad: Largest L2 norm of a group's gradient; none: no clipping.
        binarize: "dynamic" draws each pixel as a coin anew in each step; "none" takes grey levels as they are.
        ema_decay: Decay of a moving average of the weights, which is evaluated and kept instead of them; none: no average.
        eval_every: Steps between evaluations and checkpoints; none: one an epoch.
        early_stopping: Evaluations in a row without a better bound that end the training; none: none do.
        precision: "fp32"; "tf32", where CUDA rounds the factors of products to 10 bits; "bf16", where the networks
            compute in 8 bits. Weights, likelihood, KL and optimizer are float32 always, and so is evaluation.
        compile: "on" compiles the whole step and, on CUDA, replays it from a CUDA graph; "auto" does so in trainings of
            20,000 steps and more; "off".
        grad_accum_steps: Parts that a batch is divided into, one after the other in memory. Statistics of the batch, such as
            free bits or the optimal sigma, are then those of each part.
        workers: Threads that prepare batches of data that do not lie on the device; 0: none but the training's own.
        seed: Determines initial weights, order, noise and binarization.
        device: auto takes CUDA, then MPS, then the CPU; or a device as PyTorch names it.

    Raises:
        VaezooError: If a value is of the wrong type or out of range.
    """

    epochs: int = 20
    steps: int | None = None
    batch_size: int = 128
    optimizer: Optimizer = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    milestones: tuple[int, ...] = ()
    lr_gamma: float = 0.1
    lr_warmup: int = 0
    kl_warmup: int = 0
    free_bits: float = 0.0
    clip_grad: float | None = None
    binarize: Literal["none", "dynamic"] = "none"
    ema_decay: float | None = None
    eval_every: int | None = None
    early_stopping: int | None = None
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    compile: Literal["auto", "on", "off"] = "auto"
    grad_accum_steps: int = 1
    workers: int = 2
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_types(self)
        at_least = {
            "epochs": (self.epochs, 1),
            "steps": (self.steps, 1),
            "batch_size": (self.batch_size, 1),
            "eval_every": (self.eval_every, 1),
            "early_stopping": (self.early_stopping, 1),
            "grad_accum_steps": (self.grad_accum_steps, 1),
            "workers": (self.workers, 0),
            "milestones": (min(self.milestones, default=1), 1),
            "lr_warmup": (self.lr_warmup, 0),
            "kl_warmup": (self.kl_warmup, 0),
            "free_bits": (self.free_bits, 0),
            "weight_decay": (self.weight_decay, 0),
            "seed": (self.seed, 0),
        }
        for name, (value, least) in at_least.items():
            if value is not None and value < least:
                raise VaezooError(f"'{name}' is {value}", f"give '{name}' at least {least}")
        for name in ("lr", "lr_gamma", "clip_grad"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise VaezooError(f"'{name}' is {value}", f"give '{name}' above 0")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise VaezooError(f"'ema_decay' is {self.ema_decay}", "give 'ema_decay' between 0 and 1, such as 0.999")
        if self.schedule == "multistep" and not self.milestones:
            raise VaezooError("'schedule' multistep has no 'milestones'", "for example milestones=5000,8000")
        if self.milestones and self.schedule != "multistep":
            raise VaezooError(f"'milestones' does nothing with 'schedule' {self.schedule}", "give schedule=multistep")

    def steps_an_epoch(self, examples: int) -> int:
        """Returns how many whole batches an epoch has."""
        return examples // self.batch_size

    def total_steps(self, examples: int) -> int:
        """Returns the steps of the whole training on so many examples."""
        return self.steps or self.epochs * self.steps_an_epoch(examples)

    def decided(self, examples: int) -> TrainConfig:
        """Returns these settings with "auto" for `compile` replaced by what it means on so many examples.

        It goes by the length of the whole training, so that a part of it computes the same as the whole.
        """
        if self.compile != "auto":
            return self
        return replace(self, compile="on" if self.total_steps(examples) >= LONG else "off")

    def lr_factor(self, step: int, total: int) -> float:
        """Returns what the learning rate is multiplied by at a step (from 0) of `total`."""
        warm = min(1.0, (step + 1) / self.lr_warmup) if self.lr_warmup else 1.0
        if self.schedule == "cosine":
            return warm * 0.5 * (1 + math.cos(math.pi * step / total))
        passed = sum(step >= milestone for milestone in self.milestones)
        return float(warm * self.lr_gamma**passed)

    def kl_weight(self, step: int) -> float:
        """Returns the KL warm-up's factor at a step (from 0)."""
        return min(1.0, step / self.kl_warmup) if self.kl_warmup else 1.0
