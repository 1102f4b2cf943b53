"""`evaluate`: the figures of a run or an export, as one table and one JSON."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from vaezoo.core.device import resolve_device
from vaezoo.data.base import Dataset, Split, even_indices
from vaezoo.data.prefetch import to_device_if_fits
from vaezoo.errors import UnsupportedDataError, VaezooError, suggest
from vaezoo.evaluation.disentanglement import disentanglement_metrics
from vaezoo.evaluation.feature_extractors import find_feature_extractor
from vaezoo.evaluation.image_metrics import frechet_metrics, nearest_neighbour_ratio, psnr, ssim
from vaezoo.evaluation.likelihood import check, elbo_metrics, nll_metrics
from vaezoo.evaluation.metrics import Binarize, EvalConfig, Metric, OnProgress
from vaezoo.evaluation.onnx_vae import OnnxModuleVAE
from vaezoo.evaluation.probes import probe_metrics
from vaezoo.runtime import OnnxVAE
from vaezoo.training.run import Run, load
from vaezoo.vae import VAE, device_of

SCHEMA = 2
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
        config: How it was done.
        figures: The numbers.
    """

    model: str
    checkpoint: Mapping[str, object]
    data: str
    split: str
    examples: int
    total: int
    config: EvalConfig
    metrics: Sequence[Metric]

    def as_dict(self) -> dict[str, object]:
        """Returns it as JSON has it."""
        plain = asdict(self)
        plain |= {"config": self.config._asdict(), "metrics": [figure._asdict() for figure in self.metrics]}
        return {"schema": SCHEMA, **plain}


def evaluate(
    source: Run | OnnxVAE | str | os.PathLike[str],
    data: Dataset | None = None,
    *,
    metrics: Sequence[str] = ("elbo",),
    nll_samples: int = NLL_SAMPLES,
    binarize: Binarize | Literal["auto"] = "auto",
    elbo_samples: int = 10,
    limit: int | None = None,
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
        nll_samples: Samples of z for each example in the NLL.
        binarize: What is done to grey levels: "none", "fixed" or "dynamic" (see `likelihood.bound`); "auto": fixed bits
            where the training drew bits, else none.
        elbo_samples: Samples of z for each example in the ELBO.
        limit: Evaluate this many evenly spaced examples instead of all.
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
    vae = OnnxModuleVAE(source) if isinstance(source, OnnxVAE) else source.vae.to(resolve_device(device))
    check_data(vae, data)
    name, whole = data.held_out
    part = whole if limit is None else whole.select(even_indices(limit, len(whole)))
    if not len(part):
        raise VaezooError(f"a limit of {limit} leaves no examples", "give at least 1")
    config = EvalConfig(choose(binarize, source), nll_samples, elbo_samples, seed)
    for latents in (elbo_samples, nll_samples):
        check(config.binarize, latents)
    part = to_device_if_fits(part, device_of(vae))
    try:
        subject = EvalContext(vae, data, part, config, inception, on_progress)
        # A likelihood may take hours: what is refused to other groups is to be told before.
        found = {metric: METRICS[metric](subject) for metric in sorted(metrics, key=("elbo", "nll").__contains__)}
    finally:
        vae.cpu()
    return Evaluation(
        model=source.manifest["model"] if isinstance(source, OnnxVAE) else source.full_name,
        checkpoint=checkpoint_of(source),
        data=data.spec.name,
        split=name,
        examples=len(part),
        total=len(whole),
        config=config,
        metrics=[figure for metric in metrics for figure in found[metric]],
    )


class EvalContext(NamedTuple):
    """What is evaluated, and on what; `part` is the held-out part of the data, or some of it."""

    vae: VAE
    data: Dataset
    part: Split
    config: EvalConfig
    inception: str | os.PathLike[str] | None
    on_progress: OnProgress


METRICS: Mapping[str, Callable[[EvalContext], list[Metric]]] = {
    "elbo": lambda s: elbo_metrics(s.vae, s.part, s.config),
    "nll": lambda s: nll_metrics(s.vae, s.part, s.config, s.on_progress),
    "reconstructions": lambda s: [psnr(s.vae, s.part), *([ssim(s.vae, s.part)] if len(s.part.shape) == 3 else [])],
    "probe": lambda s: probe_metrics(s.vae, s.data.train, s.part),
    # The published protocols take 15,000 examples, and no classifier is asked for those it was fitted on.
    "disentanglement": lambda s: disentanglement_metrics(s.vae, s.data.train, s.config.seed),
    "nearest-neighbour": lambda s: [
        nearest_neighbour_ratio(s.vae, s.data.train, s.part, count=min(1000, len(s.part)), seed=s.config.seed)
    ],
    "fid": lambda s: frechet_metrics(
        s.vae, s.data.train, s.part, find_feature_extractor(s.part.shape, s.inception), s.config.seed, s.on_progress
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
            "bring images to its size with --image-size, or name other data",
        )


def checkpoint_of(source: Run | OnnxVAE) -> Mapping[str, object]:
    """Says which weights are evaluated."""
    if isinstance(source, OnnxVAE):
        return dict(source.manifest["checkpoint"])
    return {"step": source.checkpoint.step, "sha256": source.checkpoint.model_sha256}
