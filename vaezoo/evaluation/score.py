"""`score`: -ELBO, its terms and the likelihood of each example, and which examples are anomalous."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vaezoo.core.counts import whole_number
from vaezoo.core.dependencies import eval_dependencies
from vaezoo.core.device import on_device, resolve_device
from vaezoo.data.base import Dataset
from vaezoo.data.inference import Examples, examples_of
from vaezoo.data.prefetch import to_device_if_fits
from vaezoo.data.series.windows import Windows
from vaezoo.errors import VaezooError, VaezooWarning, safe_repr
from vaezoo.evaluation.evaluate import resolve_binarize
from vaezoo.evaluation.likelihood import check_settings, elbo_rows, nll_rows, refuse_score
from vaezoo.evaluation.metrics import Binarize, OnProgress, check_finite
from vaezoo.evaluation.onnx_vae import OnnxModuleVAE
from vaezoo.examples import Data, Model, load_examples, module_of, own_data
from vaezoo.runtime import OnnxVAE
from vaezoo.training.run import load
from vaezoo.vae import VAE, device_of

Values: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """The scores of examples, in nats. Each array has one value for each example, `(N,)`.

    Attributes:
        names: Files relative to the folder, or indices.
        neg_elbo: -ELBO = reconstruction + KL. A high value means that the example does not resemble the training data.
        reconstruction: -log p(x|z), the mean over samples of z.
        kl: KL(q(z|x) || p(z)).
        nll: -log p(x) by importance sampling. None if it was not asked for.
        y: Labels, `(N,)` or `(N, factors)`. None if the data have none.
        quantile: As given.
        threshold: The quantile of -ELBO on the validation examples of the training, or as given. None without both.
        valid_count: The number of these validation examples. None without a quantile.
        windows: Where the examples lie in a recording. None if they are not windows.
        auc: Area under the ROC curve of -ELBO, for examples of other classes than the normal one. None without labels.
    """

    names: Values
    neg_elbo: Values
    reconstruction: Values
    kl: Values
    nll: Values | None = None
    y: Values | None = None
    quantile: float | None = None
    threshold: float | None = None
    valid_count: int | None = None
    windows: Windows | None = None
    auc: float | None = None

    @property
    def anomaly(self) -> Values | None:
        """Whether -ELBO is above the threshold. None without a threshold."""
        return None if self.threshold is None else self.neg_elbo > self.threshold

    def columns(self) -> dict[str, Values]:
        """Returns the arrays by name, without those that are None, as `pandas.DataFrame` takes them."""
        anomaly = None if self.anomaly is None else self.anomaly.astype(np.int8)
        columns = {
            "name": self.names,
            "y": self.y,
            "neg_elbo": self.neg_elbo,
            "reconstruction": self.reconstruction,
            "kl": self.kl,
            "nll": self.nll,
            "anomaly": anomaly,
        }
        return {name: values for name, values in columns.items() if values is not None}

    def by_time(self) -> dict[str, Values]:
        """Returns for each step of a recording the mean of each score over the windows that hold it.

        The first array holds the times, under the name of their column, or the numbers of the steps as `step`.
        `windows` says how many windows hold a step. Steps in none are left out. `anomaly` compares the mean of -ELBO
        with the threshold.

        Raises:
            VaezooError: If the examples are not windows of a recording.
        """
        if self.windows is None:
            raise VaezooError("the examples are not windows of a recording", "leave out --by-time")
        counts = self.windows.counts()
        held = counts > 0
        scores = {"neg_elbo": self.neg_elbo, "reconstruction": self.reconstruction, "kl": self.kl, "nll": self.nll}
        columns = {name: self.windows.means(v)[held] for name, v in scores.items() if v is not None}
        if self.threshold is not None:
            columns["anomaly"] = (columns["neg_elbo"] > self.threshold).astype(np.int8)
        name = self.windows.time_column or "step"
        taken = {"windows", *columns}
        return {f"time_{name}" if name in taken else name: self.windows.times[held], "windows": counts[held], **columns}


def score(
    source: Model | str | os.PathLike[str],
    data: Data | None = None,
    *,
    nll_samples: int | None = None,
    elbo_samples: int = 10,
    binarize: Binarize | Literal["auto"] = "auto",
    quantile: float | None = None,
    threshold: float | None = None,
    normal_class: int | str | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    on_progress: OnProgress = lambda done, total: None,
) -> Scores:
    """Scores each example by how well the model explains it.

    The score of an example depends on the example, the model, the settings and the seed alone. All examples get the
    same noise, so an example has the same score at any place, alone or among others, but for rounding. `evaluate` draws
    other noise for each example. Its means are estimates of the same quantities.

    Args:
        source: A run or its folder, an export, or a module. An export runs in ONNX Runtime.
        data: As in `load_examples`, or what it returned. The default is the held-out part of the data set that the
            model was trained on.
        nll_samples: Samples of z per example for the NLL. None leaves it out.
        elbo_samples: Samples of z per example for the ELBO.
        binarize: As in `evaluate`.
        quantile: Between 0 and 1, such as 0.99. An example is an anomaly if its -ELBO is above this quantile of the
            validation examples of the training. A warning says if they are few.
        threshold: The -ELBO in nats above which an example is an anomaly, instead of a quantile. An export has no
            validation examples, unless its data set has a name.
        normal_class: The name or the number of the class of normal examples, for `auc`. By default 0, for
            labels 0 and 1 without names.
        limit: Number of evenly spaced examples to score. The default is all.
        seed: Seed of bits and latents.
        device: As in TrainConfig.
        on_progress: Called with the number of examples done and the total.

    Raises:
        UnsupportedDataError: If the data do not fit the model, or an export does not hold q(z|x) and p(x|z).
        VaezooError: If a setting is out of range, p(x|z) is a score of reconstructions, or no example has the normal
            class, or all have it.
        DivergedError: If the model's values are not finite.
    """
    check_threshold(quantile, threshold)
    seed = whole_number("seed", seed)
    if isinstance(source, str | os.PathLike):
        source = load(source)
    examples = load_examples(source, data).limited(limit)
    anomalous = anomalous_examples(examples, normal_class)
    bits = resolve_binarize(binarize, source)
    vae = OnnxModuleVAE(source) if isinstance(source, OnnxVAE) else module_of(source)
    refuse_score(vae, "ELBO")
    for samples in (elbo_samples, *([] if nll_samples is None else [nll_samples])):
        check_settings(vae.data, bits, samples)
    with on_device(vae, device_of(vae) if isinstance(source, OnnxVAE) else resolve_device(device)):
        valid_count = None
        if quantile is not None:
            valid = examples_of(training_data(source), "valid")
            valid_count = len(valid)
            _warn_of_few(valid_count, quantile)
            reconstruction, kl = _elbo_terms(vae, valid, elbo_samples, bits, seed, lambda done, total: None)
            threshold = float(np.quantile(reconstruction + kl, quantile))
        reconstruction, kl = _elbo_terms(vae, examples, elbo_samples, bits, seed, on_progress)
        nll = None
        if nll_samples is not None:
            split = to_device_if_fits(examples.split, device_of(vae))
            values = nll_rows(
                vae,
                split,
                num_samples=nll_samples,
                binarize=bits,
                seed=seed,
                common_noise=True,
                on_progress=on_progress,
            )
            nll = _finite(values)
    neg_elbo = reconstruction + kl
    return Scores(
        names=examples.names,
        neg_elbo=neg_elbo,
        reconstruction=reconstruction,
        kl=kl,
        nll=nll,
        y=None if examples.split.y is None else examples.split.y.numpy(),
        quantile=quantile,
        threshold=threshold,
        valid_count=valid_count,
        windows=examples.windows,
        auc=None if anomalous is None else _auc(anomalous, neg_elbo),
    )


def check_threshold(quantile: float | None, threshold: float | None) -> None:
    """Raises VaezooError if a quantile or a threshold is out of range, or both are given."""
    if quantile is not None and not (isinstance(quantile, int | float) and 0 < quantile < 1):
        what = f"quantile {safe_repr(quantile)} is out of range"
        raise VaezooError(what, "use a number between 0 and 1, such as 0.99")
    if threshold is not None and not (isinstance(threshold, int | float) and math.isfinite(threshold)):
        raise VaezooError(f"threshold {safe_repr(threshold)} is not a number", "give -ELBO in nats")
    if quantile is not None and threshold is not None:
        raise VaezooError("a quantile and a threshold are given", "give one of them")


def training_data(source: Model) -> Dataset:
    """Loads the data set that a model was trained on. An error about an export names the way without it."""
    try:
        return own_data(source)
    except VaezooError as e:
        if not isinstance(source, OnnxVAE):
            raise
        hint = "give --threshold, the number that 'vaezoo score RUN --quantile' prints"
        raise VaezooError(e.message, hint) from e


def _warn_of_few(count: int, quantile: float) -> None:
    """Warns if a quantile lies between the two highest of so many values."""
    if (count - 1) * (1 - quantile) < 1:
        warnings.warn(
            f"{count:,} validation examples are few for the quantile {quantile:g}: the threshold is about their "
            "highest score; give a lower quantile",
            VaezooWarning,
            stacklevel=3,
        )


def anomalous_examples(examples: Examples, normal_class: int | str | None) -> Values | None:
    """Returns which examples have another label than the normal one, `(N,)`. None if that is not known.

    Raises:
        VaezooError: If a normal class is given, and the labels do not have it and another one.
    """
    labels = examples.split.y
    if labels is None or labels.ndim != 1:
        if normal_class is None:
            return None
        what = "have no labels" if labels is None else "have several labels each"
        raise VaezooError(f"the examples of '{examples.spec.name}' {what}", "leave out the normal class")
    y: Values = labels.numpy()
    present, names = np.unique(y).tolist(), examples.spec.class_names
    if normal_class is None:
        # Classes by name are in the order of their names, so that none of them is the normal one by its number.
        return y.astype(bool) if not names and present == [0, 1] else None
    texts = [names[label] if names else str(label) for label in present]
    if str(normal_class) not in texts or len(texts) < 2:
        only = "" if len(texts) > 1 else ", but no other"
        what = f"have class {normal_class}{only}" if str(normal_class) in texts else f"lack class {normal_class}"
        raise VaezooError(f"the examples of '{examples.spec.name}' {what}", f"their classes are {', '.join(texts)}")
    anomalous: Values = y != present[texts.index(str(normal_class))]
    return anomalous


def _elbo_terms(
    vae: VAE, examples: Examples, num_samples: int, binarize: Binarize, seed: int, on_progress: OnProgress
) -> tuple[Values, Values]:
    """Returns the reconstruction and the KL of each example, `(N,)` each."""
    split = to_device_if_fits(examples.split, device_of(vae))
    rows = elbo_rows(
        vae,
        split,
        num_samples=num_samples,
        binarize=binarize,
        seed=seed,
        common_noise=True,
        on_progress=on_progress,
    )
    return _finite(rows.reconstruction), _finite(rows.kl)


def _finite(values: Tensor) -> Values:
    check_finite(values)
    return values.numpy()


def _auc(anomalous: Values, scores: Values) -> float:
    with eval_dependencies():
        from sklearn.metrics import roc_auc_score
    return float(roc_auc_score(anomalous, scores))
