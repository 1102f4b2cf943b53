"""Classifiers on codes: of classes that lie apart, of noise, and of data that cannot be told."""

import copy
import math
import sys

import pytest
import sklearn
import torch
from torch import nn

from vaezoo import TensorSplit, create_model
from vaezoo.errors import DivergedError, VaezooError
from vaezoo.evaluation.probes import encode, probe_metrics


@pytest.fixture(scope="module")
def vae(digits):
    torch.manual_seed(0)
    return create_model("mlp-vae", digits, {"latent_dim": 4})


class Apart:
    """Images of one grey level a class, with a little noise; half to fit on and half to test on."""

    generator = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 3
    x = (0.2 + 0.3 * y[:, None, None, None] + 0.02 * torch.randn(300, 1, 28, 28, generator=generator)).clamp(0, 1)
    noise = torch.rand(300, 1, 28, 28, generator=generator)


def test_classes_that_lie_apart_are_told(vae):
    figures = probe_metrics(vae, TensorSplit(Apart.x[:150], Apart.y[:150]), TensorSplit(Apart.x[150:], Apart.y[150:]))
    assert [(f.name, f.value, f.error) for f in figures] == [
        ("k-NN accuracy", 1.0, 0.0),
        ("logistic-regression accuracy", 1.0, 0.0),
    ]
    for figure in figures:
        assert "fitted on 150 training, tested on 150 held-out examples of 3 classes" in figure.protocol
        assert sklearn.__version__ in figure.protocol


def test_noise_is_told_by_chance(vae):
    train, held_out = (TensorSplit(Apart.noise[i::2], Apart.y[i::2]) for i in (0, 1))
    for figure in probe_metrics(vae, train, held_out):
        assert abs(figure.value - 1 / 3) < 4 * figure.error
        assert figure.error == pytest.approx(math.sqrt(figure.value * (1 - figure.value) / 149))


def test_classifiers_are_not_fitted_on_what_they_are_tested_on(vae):
    """Held-out labels are turned round: what was learned of the training part is wrong there."""
    turned = TensorSplit(Apart.x[150:], (Apart.y[150:] + 1) % 3)
    assert [f.value for f in probe_metrics(vae, TensorSplit(Apart.x[:150], Apart.y[:150]), turned)] == [0, 0]


def test_codes_are_the_modes_of_the_posteriors_in_evaluation_mode(vae, digits):
    vae = copy.deepcopy(vae)
    vae.encoder.append(nn.Dropout())
    with torch.no_grad():
        expected = vae.eval().encode(digits.valid.batch(slice(None)).x).mode()
    torch.testing.assert_close(torch.from_numpy(encode(vae.train(), digits.valid)), expected.double())
    assert vae.training


@pytest.mark.parametrize(
    ("train", "held_out", "message"),
    [
        (TensorSplit(Apart.x, None), TensorSplit(Apart.x, Apart.y), "the training examples have no labels"),
        (TensorSplit(Apart.x, Apart.y), TensorSplit(Apart.x, None), "the held-out examples have no labels"),
        (TensorSplit(Apart.x, Apart.y[:, None]), TensorSplit(Apart.x, Apart.y), "have factors of variation, no labels"),
        (TensorSplit(Apart.x, 0 * Apart.y), TensorSplit(Apart.x, Apart.y), "300 training examples of 1 classes"),
        (TensorSplit(Apart.x[:4], Apart.y[:4]), TensorSplit(Apart.x, Apart.y), "4 training examples of 3 classes"),
    ],
)
def test_what_cannot_be_told_is_an_error_with_a_hint(vae, train, held_out, message):
    with pytest.raises(VaezooError, match=message) as error:
        probe_metrics(vae, train, held_out)
    assert error.value.hint


def test_codes_that_are_not_finite_give_an_error_instead_of_a_number(vae):
    x = Apart.x.clone()
    x[3] = math.nan
    with pytest.raises(DivergedError, match="for 1 of 300 examples"):
        probe_metrics(vae, TensorSplit(x, Apart.y), TensorSplit(Apart.x, Apart.y))


def test_without_scikit_learn_the_error_says_what_to_install(vae, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(VaezooError) as error:
        probe_metrics(vae, TensorSplit(Apart.x, Apart.y), TensorSplit(Apart.x, Apart.y))
    assert error.value.hint == 'pip install "vaezoo[eval]"'
