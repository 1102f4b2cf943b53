"""What the codes know of the labels: how well simple classifiers read them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaezoo.core.dependencies import eval_dependencies
from vaezoo.data.base import Split
from vaezoo.errors import VaezooError
from vaezoo.evaluation.likelihood import check_finite, iter_batches, mean
from vaezoo.evaluation.metrics import Metric
from vaezoo.vae import VAE, device_of, eval_mode

NEIGHBOURS = 5
ITERATIONS = 1000


def encode(vae: VAE, part: Split) -> npt.NDArray[np.float64]:
    """Returns the modes of the posteriors of all examples, `(N, latents)`.

    Raises:
        DivergedError: If the model gives values that are not finite.
    """
    device = device_of(vae)
    with eval_mode(vae):
        codes = torch.cat([vae.encode(x).mode().flatten(1).cpu() for x in iter_batches(part, "none", 0, device)])
    check_finite(codes)
    return codes.double().numpy()


def probe_metrics(vae: VAE, train: Split, held_out: Split) -> list[Metric]:
    """Measures how often k-nearest-neighbours and logistic regression tell the label by the code. Without chance.

    Args:
        vae: The model, on any device.
        train: What the classifiers are fitted on, all of it.
        held_out: What they are tested on.

    Raises:
        VaezooError: If a part has no labels or too few examples, or scikit-learn is missing.
        DivergedError: If the model gives values that are not finite.
    """
    labels, true = read_labels(train, "training"), read_labels(held_out, "held-out")
    classes = len(np.unique(labels))
    if classes < 2 or len(labels) < NEIGHBOURS or not len(true):
        raise VaezooError(
            f"{len(labels)} training examples of {classes} classes and {len(true)} others are too few",
            f"give two classes, {NEIGHBOURS} training examples and one other, or more",
        )
    with eval_dependencies():
        import sklearn
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    codes, tests = encode(vae, train), encode(vae, held_out)
    protocol = (
        f"codes: modes of q(z|x); fitted on {len(labels):,} training, tested on {len(true):,} held-out examples of "
        f"{classes} classes; scikit-learn {sklearn.__version__}"
    )
    neighbours = KNeighborsClassifier(NEIGHBOURS).fit(codes, labels)
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS)).fit(codes, labels)
    return [
        accuracy("k-NN accuracy", neighbours.predict(tests) == true, f"{NEIGHBOURS} nearest by distance; {protocol}"),
        accuracy(
            "logistic-regression accuracy",
            logistic.predict(tests) == true,
            f"codes standardized, L2 penalty with C=1, at most {ITERATIONS:,} iterations; {protocol}",
        ),
    ]


def accuracy(name: str, right: npt.NDArray[np.bool_], protocol: str) -> Metric:
    """Returns the share of examples, `(N,)`, that are told right."""
    value, error = mean(torch.from_numpy(right).double())
    return Metric(name, value, "", protocol, error)


def read_labels(part: Split, name: str) -> npt.NDArray[np.int64]:
    """Returns a part's labels, `(N,)`.

    Raises:
        VaezooError: If it has none, or factors of variation in their place.
    """
    y: Tensor | None = part.y
    if y is None or y.ndim != 1:
        raise VaezooError(
            f"the {name} examples have {'no labels' if y is None else 'factors of variation, no labels'}",
            "give data with one label an example, y of shape (N,)",
        )
    return np.asarray(y.cpu())
