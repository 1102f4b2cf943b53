"""TrainConfig: how a model is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from vaezoo.core.options import check_types, configure
from vaezoo.errors import VaezooError, safe_repr, suggest

Optimizer = Literal["adam", "adamw", "rmsprop", "adamax"]
Schedule = Literal["constant", "cosine", "multistep"]

AUGMENTATIONS = {"hflip": False, "vflip": False, "shift": True, "crop": True}  # name -> whether pixels follow
MAX_PIXELS = 1024  # of a shift or a crop
LONG = 20_000  # steps from which "auto" compiles: it takes 10 to 30 s and saves about 0.7 ms per step


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The settings of a training. Schedules count optimizer steps, not epochs.

    Each epoch shuffles the examples and leaves out those that do not fill the last batch. With gradient accumulation,
    statistics of a batch, such as free bits or the optimal sigma, are those of each part of the batch. Whatever
    `precision` is, weights, likelihood, KL, optimizer and evaluation are float32. "tf32" rounds the factors of matrix
    products to 10 bits on CUDA. "bf16" computes the networks in bfloat16, which has 8 bits of precision. `compile`
    compiles the whole step and, on CUDA, replays it from a CUDA graph.

    The texts below are the help of `vaezoo train`.

    Attributes:
        epochs: Passes over the training split.
        steps: Optimizer steps, instead of epochs.
        batch_size: Examples per step, summed over all processes.
        optimizer: Optimizer of each parameter group.
        lr: Learning rate after the warm-up.
        weight_decay: Weight decay, as the optimizer defines it.
        schedule: Learning rate schedule. cosine decreases to 0, multistep follows the milestones.
        milestones: Steps at which multistep lowers the learning rate, such as 2000,3000.
        lr_gamma: Factor of the learning rate at each milestone.
        lr_warmup: Increase the learning rate linearly over this many steps.
        kl_warmup: Anneal the KL weight from 0 to 1 over this many steps.
        free_bits: Minimum KL per latent dimension, in nats (free bits).
        clip_grad: Maximum L2 norm of the gradient of each parameter group.
        binarize: Train on grey levels (none), or on bits that are sampled anew in every step (dynamic).
        augment: Change images at random in each step: hflip, vflip, shift=PIXELS, crop=PIXELS, such as hflip,shift=2.
        ema_decay: Evaluate and save an exponential moving average of the weights with this decay, such as 0.999.
        eval_every: Evaluate and save a checkpoint every this many steps. The default is once per epoch.
        samples_every: Write a grid of sampled images to samples/ in the run folder every this many steps.
        log_csv: Also write the log as metrics.csv, at each checkpoint.
        early_stopping: Stop after this many evaluations in a row without a better value of the objective.
        precision: Precision of the networks. tf32 needs CUDA.
        compile: Compile the training step. auto compiles trainings of 20,000 steps or more.
        grad_accum_steps: Gradient accumulation steps.
        workers: Threads that prepare batches, if the data do not fit on the device. 0 uses the main thread.
        seed: Seed of initial weights, order, noise and binarization.
        device: auto, cpu, cuda, cuda:1 or mps. auto prefers CUDA, then MPS.

    Raises:
        VaezooError: If a setting is unknown, or a value is of the wrong type or out of range.
    """

    def __new__(cls, *values: object, **settings: object) -> TrainConfig:
        # Before __init__, which would raise a TypeError.
        if values:
            raise VaezooError("TrainConfig takes its settings by name", "for example TrainConfig(epochs=3)")
        check_settings(settings)
        return object.__new__(cls)

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
    augment: tuple[str, ...] = ()
    ema_decay: float | None = None
    eval_every: int | None = None
    samples_every: int | None = None
    log_csv: bool = False
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
            "samples_every": (self.samples_every, 1),
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
        self.augmentations()
        if self.schedule == "multistep" and not self.milestones:
            raise VaezooError("'schedule' multistep has no 'milestones'", "for example milestones=5000,8000")
        if self.milestones and self.schedule != "multistep":
            raise VaezooError(f"'milestones' does nothing with 'schedule' {self.schedule}", "give schedule=multistep")

    def augmentations(self) -> list[tuple[str, int]]:
        """Returns the entries of `augment`: names with their number of pixels, 0 for flips.

        Raises:
            VaezooError: If one is unknown, has no number of pixels, or comes twice.
        """
        found: dict[str, int] = {}
        for text in self.augment:
            name, equals, pixels = text.partition("=")
            takes_pixels, what, hint = AUGMENTATIONS.get(name), "", f"for example augment={name}=2"
            if takes_pixels is None or name in found:
                what = "comes twice" if name in found else "is not known"
                hint = "give hflip, vflip, shift=2 or crop=2, once each"
            elif takes_pixels and not (pixels.isascii() and pixels.isdigit() and 0 < int(pixels[:6]) <= MAX_PIXELS):
                what = "has no number of pixels"
            elif equals and not takes_pixels:
                what, hint = "has a number", f"give augment={name}"
            if what:
                raise VaezooError(f"'augment' {safe_repr(text)} {what}", hint)
            found[name] = int(pixels) if takes_pixels else 0
        return list(found.items())

    def steps_per_epoch(self, examples: int) -> int:
        """Returns how many whole batches an epoch has."""
        return examples // self.batch_size

    def total_steps(self, examples: int) -> int:
        """Returns the number of steps of the whole training on a split of `examples` examples."""
        return self.steps or self.epochs * self.steps_per_epoch(examples)

    def resolved(self, examples: int) -> TrainConfig:
        """Returns these settings with `compile` "auto" replaced by "on" or "off".

        The length of the whole training decides, for a split of `examples` examples. So a resumed training chooses the
        same.
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


def check_settings(settings: Mapping[str, object]) -> None:
    """Raises VaezooError if a setting is unknown, or both epochs and steps are given."""
    known = [field.name for field in fields(TrainConfig)]
    for name in settings:
        if name not in known:
            hint = suggest(str(name), known, f"the settings are: {', '.join(known)}")
            raise VaezooError(f"no setting named '{safe_repr(name)}'", hint)
    # All fields at once come from dataclasses.replace or from a record, not from a user.
    if "epochs" in settings and settings.get("steps") is not None and len(settings) < len(known):
        raise VaezooError("'epochs' and 'steps' both set the length of the training", "give one of them")


def as_config(config: TrainConfig | Mapping[str, object] | None) -> TrainConfig:
    """Returns the settings that a program gives: a TrainConfig, some settings by name, or None for the defaults.

    Raises:
        VaezooError: If they are something else, or as TrainConfig does.
    """
    if config is None:
        return TrainConfig()
    if isinstance(config, TrainConfig):
        return config
    if not isinstance(config, Mapping):
        what = f"config is a TrainConfig or a dict of settings by name, not {safe_repr(config)}"
        raise VaezooError(what, "for example config={'epochs': 3}")
    check_settings(config)
    return configure(TrainConfig(), config)
