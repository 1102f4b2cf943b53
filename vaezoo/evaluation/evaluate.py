"""`evaluate`: the figures of a run or an export, as one table and one JSON."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from vaezoo.data.base import Dataset, Part, spaced
from vaezoo.errors import UnsupportedDataError, VaezooError, suggest
from vaezoo.evaluation.codes import code_figures
from vaezoo.evaluation.exported import ExportedVAE
from vaezoo.evaluation.factors import factor_figures
from vaezoo.evaluation.features import find_features
from vaezoo.evaluation.figure import Binarize, Figure, OnProgress, Setting
from vaezoo.evaluation.likelihood import bound_figures, check, nll_figures
from vaezoo.evaluation.pictures import frechet, nearest_ratio, psnr, ssim
from vaezoo.runtime import OnnxVAE
from vaezoo.training.conditions import pick_device
from vaezoo.training.loading import settle
from vaezoo.training.run import Run, load
from vaezoo.vae import VAE, device_of

SCHEMA = 1
NLL_SAMPLES = 5000  # what the literature takes
NEAREST = 1000  # samples that are looked for among the training examples


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The figures of a model.

    Attributes:
        model: The model's name, `distribution/name`.
        checkpoint: Step and SHA-256 of the weights.
        data: Name of the data set.
        part: "test" or "valid".
        examples: How many of its examples, of `of` that it has.
        setting: How it was done.
        figures: The numbers.
    """

    model: str
    checkpoint: Mapping[str, object]
    data: str
    part: str
    examples: int
    of: int
    setting: Setting
    figures: Sequence[Figure]

    def as_dict(self) -> dict[str, object]:
        """Returns it as JSON has it."""
        plain = asdict(self)
        plain |= {"setting": self.setting._asdict(), "figures": [figure._asdict() for figure in self.figures]}
        return {"schema": SCHEMA, **plain}


def evaluate(
    source: Run | OnnxVAE | str | os.PathLike[str],
    data: Dataset | None = None,
    *,
    metrics: Sequence[str] = ("bound",),
    nll_samples: int = NLL_SAMPLES,
    binarize: Binarize | Literal["auto"] = "auto",
    draws: int = 10,
    examples: int | None = None,
    inception: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    on_progress: OnProgress = lambda done, total: None,
) -> Evaluation:
    """Evaluates a model on the held-out part of a data set: the test part, or the validation part where there is none.

    Args:
        source: A run, with the weights of its checkpoint, or its folder; or an export, which runs in ONNX Runtime.
        data: The data set; by default the one that the run was trained on.
        metrics: Groups of figures, out of `METRICS`.
        nll_samples: Latents for each example that the NLL draws.
        binarize: What is done to grey levels: "none", "fixed" or "dynamic" (see `likelihood.bound`); "auto": fixed bits
            where the training drew bits, else none.
        draws: Latents for each example that the bound draws.
        examples: Takes so many, evenly spaced, instead of all.
        inception: File of Inception's weights, in whose features Frechet distances are then measured.
        seed: Determines bits and latents.
        device: As in TrainConfig.
        on_progress: Called with examples done and all, where it takes long.

    Raises:
        UnsupportedDataError: If the data do not fit the model.
        VaezooError: If a metric is unknown or cannot be had for this model or these data.
        InputError: If `inception` is another file.
        DivergedError: If the model gives values that are not finite.
    """
    check_metrics(metrics)
    if isinstance(source, str | os.PathLike):
        source = load(source)
    if data is None:
        if isinstance(source, OnnxVAE):
            raise VaezooError("an export does not hold its data", "name a data set with --data")
        data = source.load_data()
    vae = ExportedVAE(source) if isinstance(source, OnnxVAE) else source.vae.to(pick_device(device))
    check_data(vae, data)
    name, whole = data.held_out
    part = whole if examples is None else whole.select(spaced(examples, len(whole)))
    if not len(part):
        raise VaezooError(f"{examples} examples are none", "give at least 1")
    setting = Setting(choose(binarize, source), nll_samples, draws, seed)
    for latents in (draws, nll_samples):
        check(setting.binarize, latents)
    part = settle(part, device_of(vae))
    try:
        subject = Subject(vae, data, part, setting, inception, on_progress)
        # A likelihood may take hours: what is refused to other groups is to be told before.
        found = {metric: METRICS[metric](subject) for metric in sorted(metrics, key=("bound", "nll").__contains__)}
    finally:
        vae.cpu()
    return Evaluation(
        model=source.manifest["model"] if isinstance(source, OnnxVAE) else source.full_name,
        checkpoint=checkpoint_of(source),
        data=data.spec.name,
        part=name,
        examples=len(part),
        of=len(whole),
        setting=setting,
        figures=[figure for metric in metrics for figure in found[metric]],
    )


class Subject(NamedTuple):
    """What is evaluated, and on what; `part` is the held-out part of the data, or some of it."""

    vae: VAE
    data: Dataset
    part: Part
    setting: Setting
    inception: str | os.PathLike[str] | None
    on_progress: OnProgress


METRICS: Mapping[str, Callable[[Subject], list[Figure]]] = {
    "bound": lambda s: bound_figures(s.vae, s.part, s.setting),
    "nll": lambda s: nll_figures(s.vae, s.part, s.setting, s.on_progress),
    "reconstructions": lambda s: [psnr(s.vae, s.part), *([ssim(s.vae, s.part)] if len(s.part.shape) == 3 else [])],
    "codes": lambda s: code_figures(s.vae, s.data.train, s.part),
    # The published protocols take 15,000 examples, and no classifier is asked for those it was fitted on.
    "factors": lambda s: factor_figures(s.vae, s.data.train, s.setting.seed),
    "samples": lambda s: [
        nearest_ratio(s.vae, s.data.train, s.part, count=min(1000, len(s.part)), seed=s.setting.seed)
    ],
    "frechet": lambda s: frechet(
        s.vae, s.data.train, s.part, find_features(s.part.shape, s.inception), s.setting.seed, s.on_progress
    ),
}


def check_metrics(metrics: Sequence[str]) -> None:
    """Raises VaezooError unless these are groups of `METRICS`, one at least."""
    if not metrics:
        raise VaezooError("no metrics are asked for", f"give some of {', '.join(METRICS)}")
    for name in metrics:
        if name not in METRICS:
            raise VaezooError(f"no metric named '{name}'", suggest(name, METRICS, f"use {', '.join(METRICS)}"))


def choose(binarize: Binarize | Literal["auto"], source: Run | OnnxVAE) -> Binarize:
    """Decides what "auto" means."""
    if binarize != "auto":
        return binarize
    trained_on = source.training.binarize if isinstance(source, Run) else source.manifest.get("binarize")
    return "fixed" if trained_on == "dynamic" else "none"


def check_data(vae: VAE, data: Dataset) -> None:
    """Raises UnsupportedDataError unless the examples have the model's shape."""
    if data.spec.shape != vae.data.shape:
        raise UnsupportedDataError(
            f"data set '{data.spec.name}' has shape {data.spec.shape}, the model was made for {vae.data.shape}",
            "bring pictures to its size with --size, or name other data",
        )


def checkpoint_of(source: Run | OnnxVAE) -> Mapping[str, object]:
    """Says which weights are evaluated."""
    if isinstance(source, OnnxVAE):
        return dict(source.manifest["checkpoint"])
    return {"step": source.checkpoint.step, "sha256": source.checkpoint.model_sha256}
