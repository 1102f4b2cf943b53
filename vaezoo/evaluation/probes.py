"""Probes: how accurately simple classifiers predict the labels from the codes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaezoo.core.dependencies import eval_dependencies
from vaezoo.data.base import Split
from vaezoo.errors import VaezooError
from vaezoo.evaluation.latents import encode_split
from vaezoo.evaluation.metrics import Metric, mean_with_error
from vaezoo.vae import VAE

NEIGHBOURS = 5
MAX_ITERATIONS = 1000


def probe_metrics(vae: VAE, train: Split, held_out: Split) -> list[Metric]:
    """Measures the accuracy of k-nearest-neighbours and logistic regression on the codes. It is deterministic.

    Args:
        vae: The model, on any device.
        train: Examples to fit the classifiers on.
        held_out: Examples to test them on.

    Raises:
        VaezooError: If a split has no labels or too few examples, or scikit-learn is missing.
        DivergedError: If the model's values are not finite.
    """
    labels, held_out_labels = read_labels(train, "training"), read_labels(held_out, "held-out")
    classes = len(np.unique(labels))
    if classes < 2 or len(labels) < NEIGHBOURS or not len(held_out_labels):
        raise VaezooError(
            f"{len(labels)} training examples of {classes} classes and {len(held_out_labels)} held-out examples are "
            "too few",
            f"give at least two classes, {NEIGHBOURS} training examples and one held-out example",
        )
    with eval_dependencies():
        import sklearn
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    codes, held_out_codes = encode_split(vae, train), encode_split(vae, held_out)
    protocol = (
        f"codes: modes of q(z|x); fitted on {len(labels):,} training, tested on {len(held_out_labels):,} held-out "
        f"examples of {classes} classes; scikit-learn {sklearn.__version__}"
    )
    neighbours = KNeighborsClassifier(NEIGHBOURS).fit(codes, labels)
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS)).fit(codes, labels)
    return [
        accuracy(
            "k-NN accuracy",
            neighbours.predict(held_out_codes) == held_out_labels,
            f"{NEIGHBOURS} nearest by distance; {protocol}",
        ),
        accuracy(
            "logistic-regression accuracy",
            logistic.predict(held_out_codes) == held_out_labels,
            f"codes standardized, L2 penalty with C=1, at most {MAX_ITERATIONS:,} iterations; {protocol}",
        ),
    ]


def accuracy(name: str, correct: npt.NDArray[np.bool_], protocol: str) -> Metric:
    """Returns the share of correct predictions, from one boolean per example."""
    value, error = mean_with_error(torch.from_numpy(correct).double())
    return Metric(name, value, "", protocol, error)


def read_labels(split: Split, name: str) -> npt.NDArray[np.int64]:
    """Returns the labels of a split, `(N,)`.

    Raises:
        VaezooError: If it has no labels, or factors of variation instead.
    """
    y: Tensor | None = split.y
    if y is None or y.ndim != 1:
        raise VaezooError(
            f"the {name} examples have {'no labels' if y is None else 'factors of variation instead of labels'}",
            "give data with one label per example, y of shape (N,)",
        )
    return np.asarray(y.cpu())
