"""Scores of reconstructions: their values, and that nobody mistakes them for likelihoods."""

import numpy as np
import pytest
import torch

from vaezoo import DataSpec, create_model
from vaezoo.composition import MLPParts, composed_objective
from vaezoo.core.options import configure
from vaezoo.data.base import Batch, TensorSplit
from vaezoo.data.sound.spectrogram import stft
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.evaluation.likelihood import elbo_metrics, negative_log_likelihood
from vaezoo.evaluation.metrics import EvalConfig
from vaezoo.likelihoods.base import ReconstructionScore
from vaezoo.likelihoods.make import BUILT_IN, make_likelihood
from vaezoo.likelihoods.ms_ssim import EXPONENTS, WINDOW, ms_ssim
from vaezoo.likelihoods.multi_stft import SIZES, spectral_distance
from vaezoo.models.ladder_vae import SPEC as LADDER
from vaezoo.objectives.base import StepContext
from vaezoo.objectives.elbo import ELBO

SCORES = [name for name, family in BUILT_IN.items() if issubclass(family, ReconstructionScore)]


def images(n, channels, side, seed=0):
    """Returns smooth random images and noisy copies of them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((n, channels, 8, 8), generator=generator)
    x = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return x, (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(0, 1)


def test_the_scores():
    assert SCORES == ["log-cosh", "ms-ssim", "multi-stft"]


@pytest.mark.parametrize("sharpness", [0.5, 10.0, 50.0])
@pytest.mark.parametrize("kind", ["unit", "real"])
def test_log_cosh_by_hand(sharpness, kind):
    torch.manual_seed(0)
    params, x = torch.randn(20, 7, dtype=torch.float64), torch.rand(20, 7, dtype=torch.float64)
    mean = torch.sigmoid(params) if kind == "unit" else params
    score = make_likelihood(f"log-cosh:{sharpness}", kind)
    expected = -(torch.cosh(sharpness * (x - mean)).log() / sharpness).sum(1)
    torch.testing.assert_close(score.log_prob(params, x), expected)
    torch.testing.assert_close(score.mean(params), mean)


def test_log_cosh_does_not_overflow():
    params = torch.tensor([[1e6, -1e6, 0.0]], requires_grad=True)
    value = make_likelihood("log-cosh:100", "real").log_prob(params, torch.zeros(1, 3))
    (gradient,) = torch.autograd.grad(value.sum(), params)
    assert value.item() == pytest.approx(-2e6, rel=1e-6) and gradient.tolist() == [[-1.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("side", "scales"), [(11, 1), (21, 1), (22, 2), (28, 2), (64, 3), pytest.param(176, 5, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_ms_ssim_is_that_of_torchmetrics(side, scales, channels):
    functional = pytest.importorskip("torchmetrics.functional.image")
    x, y = images(4, channels, side)
    exponents = tuple(exponent / sum(EXPONENTS[:scales]) for exponent in EXPONENTS[:scales])
    expected = functional.multiscale_structural_similarity_index_measure(
        y, x, kernel_size=WINDOW, data_range=1.0, betas=exponents, normalize="simple", reduction="none"
    )
    assert expected.min() < 0.95
    torch.testing.assert_close(ms_ssim(y, x), expected, atol=1e-5, rtol=1e-5)


def test_ms_ssim_counts_values():
    x, y = images(3, 3, 28)
    score = make_likelihood("ms-ssim")
    torch.testing.assert_close(
        score.log_prob(torch.logit(y, 1e-6), x), 3 * 28 * 28 * (ms_ssim(y, x) - 1), rtol=1e-3, atol=1
    )
    assert score.log_prob(torch.logit(x, 1e-6), x).abs().max() < 0.1  # 0 for an exact reconstruction


@pytest.mark.parametrize("x", [torch.zeros(2, 1, 28, 28), torch.ones(2, 1, 28, 28), 1 - images(2, 1, 28)[0]])
def test_ms_ssim_has_gradients_everywhere(x):
    """Also for constant images, and where the contrast is reversed."""
    params = torch.logit(images(2, 1, 28)[0], 1e-3).requires_grad_()
    (gradient,) = torch.autograd.grad(make_likelihood("ms-ssim").log_prob(params, x).sum(), params)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 10, 40), (400,)], ids=str)
def test_ms_ssim_needs_images(shape):
    data = DataSpec(name="small", shape=shape, likelihood="ms-ssim")
    with pytest.raises(UnsupportedDataError, match="ms-ssim is not defined for examples of shape") as e:
        create_model("mlp-vae", data)
    assert "11x11" in e.value.hint


def waves(n):
    """Returns tones, and the same with noise, `(n, 1, 300)`."""
    generator = torch.Generator().manual_seed(0)
    frequency, phase = torch.rand((n, 1, 1), generator=generator), torch.rand((n, 1, 1), generator=generator)
    x = torch.sin(torch.arange(300.0) * (0.1 + frequency) + 6 * phase)
    return x, x + 0.3 * torch.randn(x.shape, generator=generator)


def test_spectral_distance_by_hand():
    """With NumPy's transform: spectral convergence, and the mean difference of logarithms, by resolution."""
    x, y = (values.double() for values in waves(3))
    expected = []
    for again, given in zip(y[:, 0].numpy(), x[:, 0].numpy(), strict=True):
        terms = []
        for size in SIZES:
            a, b = (np.sqrt(np.maximum(np.abs(stft(v, size)) ** 2, 1e-7)) for v in (again, given))
            terms.append(np.linalg.norm(b - a) / np.linalg.norm(b) + np.abs(np.log(a / b)).mean())
        expected.append(np.mean(terms))
    assert spectral_distance(y, x).numpy() == pytest.approx(np.array(expected), rel=1e-6)
    score = make_likelihood("multi-stft", "real")
    torch.testing.assert_close(score.log_prob(y, x), -300 * spectral_distance(y, x))
    assert score.log_prob(x, x).abs().max() == 0


def test_spectral_distance_ignores_phases():
    x, y = waves(3)
    assert (spectral_distance(-x, x) == 0).all() and (spectral_distance(y, x) > 0.1).all()
    silence = torch.zeros(2, 1, 300)
    params = waves(2)[1].requires_grad_()
    (gradient,) = torch.autograd.grad(spectral_distance(params, silence).sum(), params)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


@pytest.mark.parametrize("shape", [(1, 32), (1, 8, 8), (400,)], ids=str)
def test_multi_stft_needs_series(shape):
    data = DataSpec(name="small", shape=shape, kind="real", likelihood="multi-stft")
    with pytest.raises(UnsupportedDataError, match="multi-stft is not defined for examples of shape") as e:
        create_model("mlp-vae", data)
    assert "64 steps" in e.value.hint


@pytest.mark.parametrize("text", ["log-cosh:0", "log-cosh:-1", "log-cosh:x", "log-cosh:nan", "ms-ssim:2"])
def test_wrong_arguments_are_refused(text):
    with pytest.raises(VaezooError) as e:
        make_likelihood(text)
    assert e.value.hint


def spec(text):
    """Returns data that a score is for."""
    shape, kind = ((1, 300), "real") if text == "multi-stft" else ((1, 28, 28), "unit")
    return DataSpec(name="data", shape=shape, kind=kind, likelihood=text)


def examples(text, n):
    return waves(n)[0] if text == "multi-stft" else images(n, 1, 28)[0]


def small(text):
    torch.manual_seed(0)
    return create_model("mlp-vae", spec(text), {"hidden": "8", "latent_dim": 3})


@pytest.mark.parametrize("text", SCORES)
def test_a_score_has_no_likelihood(text):
    vae, split = small(text), TensorSplit(examples(text, 5), None)
    with pytest.raises(VaezooError, match=f"likelihood '{text}' is a score of reconstructions, so .* no NLL") as e:
        negative_log_likelihood(vae, split, num_samples=3)
    assert e.value.hint
    with pytest.raises(VaezooError, match=f"'{text}' is a score, not a distribution") as e:
        vae.likelihood.sample(vae.decode(torch.zeros(1, 3)))
    assert "--draw" in e.value.hint


@pytest.mark.parametrize("text", SCORES)
def test_metrics_say_that_it_is_a_score(text):
    vae, split = small(text), TensorSplit(examples(text, 5), None)
    metrics = {metric.name: metric for metric in elbo_metrics(vae, split, EvalConfig("none", 1, 2, 0))}
    assert not {"-ELBO", "reconstruction", "bits per dimension"} & set(metrics)
    score = metrics["reconstruction score"]
    assert score.unit == "" and score.value > 0
    assert score.protocol.startswith(f"{text}, a score, not a likelihood")
    assert metrics["KL"].unit == "nats" and "not part of a bound" in metrics["KL"].protocol


@pytest.mark.parametrize("text", SCORES)
def test_no_importance_weights_of_a_score(text):
    data = spec(text)
    words = f"objective=iwae needs a likelihood, and likelihood={text} is a score"
    for gradient in ("plain", "dreg", "piwae"):
        options = {"objective": "iwae", "objective.gradient": gradient}
        with pytest.raises(VaezooError, match=words):
            composed_objective(configure(MLPParts(), options), data)
    with pytest.raises(VaezooError, match=words):
        LADDER.objective(configure(LADDER.config, {"objective": "iwae"}), data)


@pytest.mark.slow
@pytest.mark.parametrize("text", SCORES)
def test_score_trains(text):
    """Some steps make the reconstructions more similar."""
    vae, x = small(text), examples(text, 32)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)

    def distance():
        with torch.no_grad():
            return -vae.likelihood.log_prob(vae.decode(vae.encode(x).mode()), x).mean().item()

    before = distance()
    for _ in range(100):
        loss = ELBO(beta=0.01)(vae, Batch(x), StepContext.initial()).losses["vae"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert distance() < 0.95 * before
