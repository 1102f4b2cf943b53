"""Classifiers on codes: separable classes, noise, and data without usable labels."""

import copy
import math
import sys

import pytest
import sklearn
import torch
from torch import nn

from vaezoo import TensorSplit, create_model
from vaezoo.core.dependencies import install_hint
from vaezoo.errors import DivergedError, VaezooError
from vaezoo.evaluation.latents import encode_split
from vaezoo.evaluation.probes import probe_metrics


@pytest.fixture(scope="module")
def vae(digits):
    torch.manual_seed(0)
    return create_model("mlp-vae", digits, {"latent_dim": 4})


GENERATOR = torch.Generator().manual_seed(0)
Y = torch.arange(300) % 3
# Images of one grey level per class, with a little noise.
X = (0.2 + 0.3 * Y[:, None, None, None] + 0.02 * torch.randn(300, 1, 28, 28, generator=GENERATOR)).clamp(0, 1)
NOISE = torch.rand(300, 1, 28, 28, generator=GENERATOR)


def test_separable_classes(vae):
    metrics = probe_metrics(vae, TensorSplit(X[:150], Y[:150]), TensorSplit(X[150:], Y[150:]))
    assert [(m.name, m.value, m.error) for m in metrics] == [
        ("k-NN accuracy", 1.0, 0.0),
        ("logistic-regression accuracy", 1.0, 0.0),
    ]
    for metric in metrics:
        assert "fitted on 150 training, tested on 150 held-out examples of 3 classes" in metric.protocol
        assert sklearn.__version__ in metric.protocol


def test_noise_has_chance_accuracy(vae):
    train, held_out = (TensorSplit(NOISE[i::2], Y[i::2]) for i in (0, 1))
    for metric in probe_metrics(vae, train, held_out):
        assert abs(metric.value - 1 / 3) < 4 * metric.error
        assert metric.error == pytest.approx(math.sqrt(metric.value * (1 - metric.value) / 149))


def test_classifiers_use_training_split_only(vae):
    """The held-out labels are permuted, so that what the training split teaches is wrong."""
    permuted = TensorSplit(X[150:], (Y[150:] + 1) % 3)
    assert [m.value for m in probe_metrics(vae, TensorSplit(X[:150], Y[:150]), permuted)] == [0, 0]


def test_codes_are_posterior_modes(vae, digits):
    vae = copy.deepcopy(vae)
    vae.encoder.append(nn.Dropout())
    with torch.no_grad():
        expected = vae.eval().encode(digits.valid.batch(slice(None)).x).mode()
    torch.testing.assert_close(torch.from_numpy(encode_split(vae.train(), digits.valid)), expected.double())
    assert vae.training


@pytest.mark.parametrize(
    ("train", "held_out", "message"),
    [
        (TensorSplit(X, None), TensorSplit(X, Y), "the training examples have no labels"),
        (TensorSplit(X, Y), TensorSplit(X, None), "the held-out examples have no labels"),
        (TensorSplit(X, Y[:, None]), TensorSplit(X, Y), "have factors of variation instead of labels"),
        (TensorSplit(X, 0 * Y), TensorSplit(X, Y), "300 training examples of 1 classes"),
        (TensorSplit(X[:4], Y[:4]), TensorSplit(X, Y), "4 training examples of 3 classes"),
    ],
)
def test_bad_labels_are_refused(vae, train, held_out, message):
    with pytest.raises(VaezooError, match=message) as error:
        probe_metrics(vae, train, held_out)
    assert error.value.hint


def test_nonfinite_codes_are_refused(vae):
    x = X.clone()
    x[3] = math.nan
    with pytest.raises(DivergedError, match="for 1 of 300 examples"):
        probe_metrics(vae, TensorSplit(x, Y), TensorSplit(X, Y))


def test_missing_scikit_learn(vae, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(VaezooError) as error:
        probe_metrics(vae, TensorSplit(X, Y), TensorSplit(X, Y))
    assert error.value.hint == install_hint("eval")
