"""`evaluate`: the metrics of a run or an export."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from vaezoo.core.counts import whole_number
from vaezoo.core.device import on_device, resolve_device
from vaezoo.core.memory import keep_freed_memory
from vaezoo.core.perceptual import LpipsFiles
from vaezoo.data.base import Split
from vaezoo.data.inference import Examples
from vaezoo.data.prefetch import to_device_if_fits
from vaezoo.errors import UnsupportedDataError, VaezooError, VaezooWarning, safe_repr, suggest
from vaezoo.evaluation.codebook import codebook_metrics
from vaezoo.evaluation.disentanglement import disentanglement_metrics
from vaezoo.evaluation.feature_extractors import find_feature_extractor
from vaezoo.evaluation.image_metrics import (
    frechet_metrics,
    nearest_neighbour_ratio,
    psnr,
    reconstruction_frechet,
    ssim,
)
from vaezoo.evaluation.likelihood import ACTIVE_UNITS, check_nll, check_settings, elbo_metrics, nll_metrics
from vaezoo.evaluation.metrics import Binarize, EvalConfig, Metric, OnProgress
from vaezoo.evaluation.onnx_vae import OnnxModuleVAE
from vaezoo.evaluation.perceptual import perceptual_distance
from vaezoo.evaluation.perplexity import perplexity_metrics
from vaezoo.evaluation.probes import probe_metrics
from vaezoo.evaluation.table_metrics import check_target, table_metrics
from vaezoo.examples import Data, Model, load_examples, module_of, own_data
from vaezoo.registry import find_model
from vaezoo.runtime import OnnxVAE
from vaezoo.training.reports import COLLAPSED, ONLY_WORSE, collapse_advice
from vaezoo.training.run import Run, load
from vaezoo.training.run_files import EVALUATION_SCHEMA
from vaezoo.vae import VAE, device_of

NLL_SAMPLES = 5000  # as in the literature
MAX_NEIGHBOUR_SAMPLES = 1000  # samples that are compared with the training examples


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The metrics of a model on a data set.

    Attributes:
        model: The model's name, `distribution/name`.
        checkpoint: Step and SHA-256 of the weights. Empty for a module.
        data: Name of the data set.
        split: The part of the data: "test", "valid", "train" or "all".
        examples: Number of evaluated examples.
        total: Number of examples in the split.
        config: The settings.
        metrics: The results, in the order of the requested groups.
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
        """Returns the evaluation as JSON data."""
        fields = asdict(self)
        fields |= {"config": self.config._asdict(), "metrics": [metric._asdict() for metric in self.metrics]}
        return {"schema": EVALUATION_SCHEMA, **fields}


def evaluate(
    source: Model | str | os.PathLike[str],
    data: Data | None = None,
    *,
    metrics: Sequence[str] = ("elbo",),
    nll_samples: int = NLL_SAMPLES,
    binarize: Binarize | Literal["auto"] = "auto",
    elbo_samples: int = 10,
    limit: int | None = None,
    inception: str | os.PathLike[str] | None = None,
    lpips: LpipsFiles | None = None,
    target: str | None = None,
    seed: int = 0,
    device: str = "auto",
    on_progress: OnProgress = lambda done, total: None,
) -> Evaluation:
    """Evaluates a model on examples, or on the held-out part of a data set.

    The held-out part is the test split, or the validation split if there is no test split.

    Args:
        source: A run or its folder, an export, or a module. An export runs in ONNX Runtime.
        data: As in `load_examples`, or what it returned. The default is the data set that the run was trained on.
            `fid`, `probe`, `nearest-neighbour` and `table` compare with training examples: those of the data, or else
            those that the model was trained on.
        metrics: Groups of metrics, from `METRICS`.
        nll_samples: Samples of z per example for the NLL.
        binarize: "none", "fixed" or "dynamic", see `vaezoo.evaluation.likelihood.elbo`. "auto" is "fixed" for models
            that were trained on random bits, and "none" for others.
        elbo_samples: Samples of z per example for the ELBO.
        limit: Number of evenly spaced examples to evaluate. The default is all.
        inception: File of Inception's weights. With it, Frechet distances are measured in Inception's features.
        lpips: Files of LPIPS. Without them, `lpips` measures a distance in the features of the packaged classifier, and
            its name says so.
        target: A column of a table. `table` then predicts it from the others, trained on drawn and on real rows.
        seed: Seed of bits and latents.
        device: As in TrainConfig.
        on_progress: Called with the number of examples done and the total, in the slow metrics.

    Raises:
        UnsupportedDataError: If the data do not fit the model.
        VaezooError: If a metric is unknown, or is not defined for this model or these data.
        InputError: If a file of `inception` or `lpips` is not the expected one.
        DivergedError: If the model's values are not finite.
    """
    check_metrics(metrics)
    check_target(target, metrics)
    seed = whole_number("seed", seed)
    if isinstance(source, str | os.PathLike):
        source = load(source)
    examples = load_examples(source, data)
    vae = OnnxModuleVAE(source) if isinstance(source, OnnxVAE) else module_of(source)
    spec, whole = examples.spec, examples.split
    for name in metrics:
        if name in FOR_UNIT and spec.kind != "unit":
            raise UnsupportedDataError(
                f"metric '{name}' is for data in [0, 1], and '{spec.name}' is of kind {spec.kind}", "use elbo or nll"
            )
    split = examples.limited(limit).split
    config = EvalConfig(resolve_binarize(binarize, source), nll_samples, elbo_samples, seed)
    for num_samples in (elbo_samples, nll_samples):
        check_settings(vae.data, config.binarize, num_samples)

    def training_split() -> Split:
        return examples.train if examples.train is not None else own_data(source).train

    with on_device(vae, device_of(vae) if isinstance(source, OnnxVAE) else resolve_device(device)):
        if device_of(vae).type == "cpu":
            keep_freed_memory()
        split = to_device_if_fits(split, device_of(vae))
        context = EvalContext(vae, examples, training_split, split, config, inception, lpips, on_progress, target)
        # The ELBO and the NLL come last. The NLL may take hours, and errors of the other groups should come before it.
        order = sorted(metrics, key=("elbo", "nll").__contains__)
        with find_model(source.full_name).failures("evaluated") if isinstance(source, Run) else nullcontext():
            if "nll" in metrics:
                check_nll(vae, split, device_of(vae))  # now, not after the others
            results = {name: METRICS[name](context) for name in order}
    _warn(source, vae.data.likelihood, len(split), [metric for group in results.values() for metric in group])
    return Evaluation(
        model=name_of(source),
        checkpoint=checkpoint_of(source),
        data=spec.name,
        split=examples.part,
        examples=len(split),
        total=len(whole),
        config=config,
        metrics=[metric for name in metrics for metric in results[name]],
    )


def _warn(source: Model, likelihood: str, examples: int, metrics: Sequence[Metric]) -> None:
    """Repeats the warnings of a training: a model that encodes nothing, and one that only got worse."""
    active = [metric.value for metric in metrics if metric.name == ACTIVE_UNITS]
    if active == [0] and examples > 1:
        warnings.warn(f"{COLLAPSED}: {collapse_advice(likelihood)}", VaezooWarning, stacklevel=3)
    if isinstance(source, Run) and source.only_got_worse and source.checkpoint.step == 0:
        warnings.warn(ONLY_WORSE, VaezooWarning, stacklevel=3)


class EvalContext(NamedTuple):
    """The input of a group of metrics. `split` is a selection of the examples, and `train` loads training examples."""

    vae: VAE
    examples: Examples
    train: Callable[[], Split]
    split: Split
    config: EvalConfig
    inception: str | os.PathLike[str] | None
    lpips: LpipsFiles | None
    on_progress: OnProgress
    target: str | None = None


def _reconstructions(c: EvalContext) -> list[Metric]:
    is_image = len(c.split.shape) == 3
    return [psnr(c.vae, c.split), *([ssim(c.vae, c.split)] if is_image else [])]


def _nearest_neighbour(c: EvalContext) -> list[Metric]:
    count = min(MAX_NEIGHBOUR_SAMPLES, len(c.split))
    return [nearest_neighbour_ratio(c.vae, c.train(), c.split, count=count, seed=c.config.seed)]


def _disentanglement(c: EvalContext) -> list[Metric]:
    # On the training split: the published protocol needs 15,000 examples, and tests on other ones than it fits on.
    return disentanglement_metrics(c.vae, c.examples.train or c.examples.split, c.config.seed)


def _fid(c: EvalContext) -> list[Metric]:
    extractor = find_feature_extractor(c.split.shape, c.inception)
    return frechet_metrics(c.vae, c.train(), c.split, extractor, c.config.seed, c.on_progress)


def _rfid(c: EvalContext) -> list[Metric]:
    # Published figures of latent-diffusion autoencoders are measured with torch-fidelity or as it does.
    extractor = find_feature_extractor(c.split.shape, c.inception, "torch-fidelity")
    return [reconstruction_frechet(c.vae, c.split, extractor, c.on_progress)]


def _with_perplexity(c: EvalContext, metrics: list[Metric]) -> list[Metric]:
    """Adds the perplexities of texts, which follow from the first metric."""
    first = metrics[0]
    assert isinstance(first.value, float)
    has_bound = first.unit == "nats"  # not a score of reconstructions
    return [*metrics, *(perplexity_metrics(c.vae.data, c.split, first.value, first.name) if has_bound else [])]


METRICS: Mapping[str, Callable[[EvalContext], list[Metric]]] = {
    "elbo": lambda c: _with_perplexity(c, elbo_metrics(c.vae, c.split, c.config)),
    "nll": lambda c: _with_perplexity(c, nll_metrics(c.vae, c.split, c.config, c.on_progress)),
    "reconstructions": _reconstructions,
    "probe": lambda c: probe_metrics(c.vae, c.train(), c.split),
    "disentanglement": _disentanglement,
    "nearest-neighbour": _nearest_neighbour,
    "fid": _fid,
    "rfid": _rfid,
    "lpips": lambda c: [perceptual_distance(c.vae, c.split, c.lpips, c.on_progress)],
    "codebook": lambda c: codebook_metrics(c.vae, c.split, c.config),
    "table": lambda c: table_metrics(c.vae, c.train(), c.split, c.config.seed, c.target),
}


FOR_UNIT = ("reconstructions", "nearest-neighbour", "fid", "rfid", "lpips")  # they compare pixels


def check_metrics(metrics: Sequence[str]) -> None:
    """Raises VaezooError unless these are names of groups in `METRICS`, at least one."""
    if isinstance(metrics, str) or not metrics:
        what = f"metrics is the text '{safe_repr(metrics)}', not a list" if metrics else "no metrics given"
        raise VaezooError(what, f"give a list of one or more of {', '.join(METRICS)}")
    for name in metrics:
        if name not in METRICS:
            raise VaezooError(f"no metric named '{name}'", suggest(name, METRICS, f"use {', '.join(METRICS)}"))


def resolve_binarize(binarize: Binarize | Literal["auto"], source: Model) -> Binarize:
    """Replaces "auto" by "fixed" if the model was trained on random bits, and by "none" if not or if unknown."""
    if binarize != "auto":
        return binarize
    if isinstance(source, VAE):
        return "none"
    trained_on = source.training.binarize if isinstance(source, Run) else source.manifest.get("binarize")
    return "fixed" if trained_on == "dynamic" else "none"


def name_of(source: Model) -> str:
    """Returns `distribution/name` of a registered model, or the class of a module."""
    if isinstance(source, VAE):
        return type(source).__name__
    return source.manifest["model"] if isinstance(source, OnnxVAE) else source.full_name


def checkpoint_of(source: Model) -> Mapping[str, object]:
    """Returns step and SHA-256 of the weights. Empty for a module, which has no checkpoint."""
    if isinstance(source, VAE):
        return {}
    if isinstance(source, OnnxVAE):
        return dict(source.manifest["checkpoint"])
    return {"step": source.checkpoint.step, "sha256": source.checkpoint.model_sha256}
