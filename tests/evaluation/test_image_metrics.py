"""Metrics of reconstructions and samples against torchmetrics, scipy and closed forms."""

import math
import sys

import numpy as np
import pytest
import scipy.linalg
import torch
import torchmetrics
from stub_vae import StubVAE
from torch import nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from vaezoo import TensorSplit, create_model
from vaezoo.core.dependencies import install_hint
from vaezoo.errors import DivergedError, VaezooError
from vaezoo.evaluation.feature_extractors import FeatureExtractor
from vaezoo.evaluation.image_metrics import (
    frechet_distance,
    frechet_metrics,
    iter_samples,
    nearest_neighbour_ratio,
    psnr,
    reconstruction_frechet,
    ssim,
)

SHAPE = (1, 16, 16)
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand((120, *SHAPE), generator=GENERATOR)


def split(x):
    return TensorSplit(x, None)


def test_constant_error_has_closed_form():
    grey = torch.full_like(IMAGES, 0.5)
    assert psnr(StubVAE(grey + 0.1), split(grey)).value == pytest.approx(20, abs=1e-3)  # 20 log10(1 / 0.1)
    c = 0.01**2
    expected = (2 * 0.5 * 0.6 + c) / (0.5**2 + 0.6**2 + c)  # the contrast term is 1
    assert ssim(StubVAE(grey + 0.1), split(grey)).value == pytest.approx(expected, abs=1e-4)


def test_perfect_reconstruction():
    assert psnr(StubVAE(IMAGES), split(IMAGES)).value == 100
    assert ssim(StubVAE(IMAGES), split(IMAGES)).value == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("model", ["mlp-vae", "conv-vae"])
def test_metrics_equal_torchmetrics(model, digits):
    vae = create_model(model, digits).train()
    valid = digits.valid.select(torch.arange(120))
    metrics = psnr(vae, valid), ssim(vae, valid)
    assert vae.training
    x = valid.batch(slice(None)).x
    with torch.no_grad():
        pairs = list(zip(vae.eval().reconstruct(x).split(1), x.split(1), strict=True))
    functions = peak_signal_noise_ratio, structural_similarity_index_measure
    for metric, function in zip(metrics, functions, strict=True):
        each = torch.stack([function(actual, expected, data_range=1.0) for actual, expected in pairs])
        assert metric.value == pytest.approx(each.mean().item(), rel=1e-4)
        assert metric.error == pytest.approx(each.std().item() / math.sqrt(len(each)), rel=1e-3)
        assert torchmetrics.__version__ in metric.protocol and f"{len(x)} examples" in metric.protocol


@pytest.mark.parametrize("shape", [(20,), (1, 10, 16), (3, 16, 10)])
def test_ssim_needs_large_images(shape):
    x = torch.rand((3, *shape))
    with pytest.raises(VaezooError, match="SSIM is not defined") as error:
        ssim(StubVAE(x, shape=shape), split(x))
    assert error.value.hint
    assert psnr(StubVAE(x, shape=shape), split(x)).value == 100


@pytest.mark.parametrize("function", [psnr, ssim])
def test_missing_torchmetrics(function, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(VaezooError) as error:
        function(StubVAE(IMAGES), split(IMAGES))
    assert error.value.hint == install_hint("eval")


@pytest.mark.parametrize("function", [psnr, ssim])
def test_nonfinite_reconstructions_are_refused(function):
    reconstructions = IMAGES.clone()
    reconstructions[7] = math.nan
    with pytest.raises(DivergedError, match="for 1 of 120 examples"):
        function(StubVAE(reconstructions), split(IMAGES))


def with_moments(mean, deviations):
    """Returns uncorrelated features with exactly this mean and these standard deviations."""
    d = len(mean)
    signs = torch.cat([torch.eye(d), -torch.eye(d)]).double() * math.sqrt((2 * d - 1) / 2)
    return signs * torch.tensor(deviations).double() + torch.tensor(mean).double()


def test_frechet_distance_has_closed_form():
    a = with_moments([0.0, 1.0, -2.0], [1.0, 2.0, 0.0])
    b = with_moments([3.0, 1.0, -1.0], [1.5, 0.5, 0.25])
    expected = (9 + 0 + 1) + (0.5**2 + 1.5**2 + 0.25**2)
    assert frechet_distance(a, b) == pytest.approx(expected) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_equals_matrix_root():
    mix = torch.randn(2, 30, 30, generator=GENERATOR)
    a, b = (torch.randn(200, 30, generator=GENERATOR) @ mix[i] + i for i in (0, 1))
    x, y = a.double().numpy(), b.double().numpy()
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_is_precise():
    a = with_moments([1e4], [1e-3]).float()
    assert frechet_distance(a, a) < 1e-8


@pytest.mark.parametrize(("a", "b"), [((4, 4), (9, 4)), ((9, 4), (4, 4)), ((9, 4), (9, 3)), ((9,), (9,))])
def test_bad_feature_shapes_are_refused(a, b):
    with pytest.raises(VaezooError, match="have no Frechet distance") as error:
        frechet_distance(torch.rand(a), torch.rand(b))
    assert error.value.hint


def test_nonfinite_features_are_refused():
    bad = torch.rand(9, 2)
    bad[4, 1] = math.inf
    with pytest.raises(DivergedError, match="for 1 of 9 examples"):
        frechet_distance(torch.rand(9, 2), bad)


class Corners(nn.Module):
    def forward(self, x):
        return x[:, 0, :2, :2].flatten(1)


def test_frechet_metrics():
    samples, train = torch.rand((2, 120, *SHAPE), generator=GENERATOR)
    corners, steps = Corners(), []
    metric, floor = frechet_metrics(
        StubVAE(samples=samples),
        split(train),
        split(IMAGES),
        FeatureExtractor("corners", 4, corners),
        seed=3,
        on_progress=lambda *done: steps.append(done),
    )
    assert (metric.name, floor.name) == (
        "Frechet distance (corners)",
        "Frechet distance (corners) of training examples",
    )
    assert metric.value == pytest.approx(frechet_distance(corners(IMAGES), corners(samples)))
    assert floor.value == pytest.approx(frechet_distance(corners(IMAGES), corners(train)))
    assert "120 held-out" in metric.protocol and "4 dimensions" in metric.protocol and "seed 3" in metric.protocol
    assert "120 training examples" in floor.protocol and steps[-1] == (360, 360)


def test_floor_is_drawn_by_seed():
    """Every second image is white, so evenly spaced examples would be all white or not white at all."""
    train = IMAGES.repeat(20, 1, 1, 1)
    train[::2] = 1
    extractor, samples = FeatureExtractor("corners", 4, Corners()), IMAGES.clone()
    first, again, other = (
        frechet_metrics(StubVAE(samples=samples), split(train), split(IMAGES), extractor, s)[1] for s in (0, 0, 1)
    )
    assert first == again and first.value != other.value and "120 training examples" in first.protocol
    whole = frechet_distance(Corners()(IMAGES), Corners()(train))
    assert first.value == pytest.approx(whole, rel=0.5) == pytest.approx(other.value, rel=0.5)


def test_copies_of_training_images():
    train, held_out = split(IMAGES[:80]), split(IMAGES[80:])
    copies = nearest_neighbour_ratio(StubVAE(samples=IMAGES[20:60]), train, held_out, count=40)
    assert copies.value == 0
    assert "40 samples" in copies.protocol and "80 training examples" in copies.protocol
    fresh = torch.rand((40, *SHAPE), generator=GENERATOR)
    ratio = nearest_neighbour_ratio(StubVAE(samples=fresh), train, held_out, count=40).value
    assert ratio == pytest.approx(1, abs=0.02)


def test_nearest_over_all_batches():
    """Training examples are 0, 3 and, in the third batch, 10. Samples are 4 and 9, held-out examples 1 and 12."""
    train = torch.zeros(1100, 1)
    train[1], train[1099] = 3, 10
    held_out, samples = torch.tensor([[1.0], [12.0]]), torch.tensor([[4.0], [9.0]])
    metric = nearest_neighbour_ratio(StubVAE(samples=samples, shape=(1,)), split(train), split(held_out), count=2)
    assert metric.value == pytest.approx((1 + 1) / (1 + 2))


@pytest.mark.parametrize("count", [0, 41])
def test_bad_sample_count_is_refused(count):
    with pytest.raises(VaezooError, match="cannot be compared with 40"):
        nearest_neighbour_ratio(StubVAE(samples=IMAGES), split(IMAGES[:80]), split(IMAGES[80:]), count=count)


def test_leaked_held_out_is_refused():
    with pytest.raises(VaezooError, match="is also a training example"):
        nearest_neighbour_ratio(StubVAE(samples=IMAGES), split(IMAGES), split(IMAGES[80:]), count=40)


def test_samples_depend_on_seed_only(digits):
    vae = create_model("mlp-vae", digits).train()
    state = torch.get_rng_state()
    first, again, other = (torch.cat([*iter_samples(vae, 600, seed)]) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and len(first) == 600
    assert not torch.equal(first[:100], first[500:])
    assert torch.equal(torch.get_rng_state(), state) and vae.training


def test_nonfinite_samples_are_refused():
    samples = IMAGES.clone()
    samples[3] = math.nan
    with pytest.raises(DivergedError):
        nearest_neighbour_ratio(StubVAE(samples=samples), split(IMAGES[:80]), split(IMAGES[80:]), count=40)


def test_reconstruction_distance_is_that_of_features():
    """Of the features of examples and reconstructions, in the order of the examples. An exact model has 0."""
    extractor = FeatureExtractor("means", 2, nn.Sequential(nn.Flatten(), nn.Linear(256, 2)))
    again = (IMAGES * 0.5).roll(1, 0)
    metric = reconstruction_frechet(StubVAE(again), split(IMAGES), extractor)
    with torch.no_grad():
        expected = frechet_distance(extractor.network(IMAGES), extractor.network(again))
    assert metric.value == pytest.approx(expected, rel=1e-6) and expected > 0.01
    assert metric.name == "Frechet distance of reconstructions (means)" and "120 examples" in metric.protocol
    assert reconstruction_frechet(StubVAE(IMAGES), split(IMAGES), extractor).value == pytest.approx(0, abs=1e-6)


def test_reconstruction_distance_needs_examples():
    extractor = FeatureExtractor("pixels", 256, nn.Flatten())
    with pytest.raises(VaezooError, match="have no Frechet distance"):
        reconstruction_frechet(StubVAE(IMAGES), split(IMAGES), extractor)
