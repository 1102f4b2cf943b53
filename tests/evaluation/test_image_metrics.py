"""Reconstructions and samples, against torchmetrics, scipy and closed forms."""

import math
import sys

import numpy as np
import pytest
import scipy.linalg
import torch
import torchmetrics
from torch import nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from vaezoo import DataSpec, GaussianVAE, TensorSplit, create_model
from vaezoo.errors import DivergedError, VaezooError
from vaezoo.evaluation.feature_extractors import FeatureExtractor
from vaezoo.evaluation.image_metrics import (
    frechet_distance,
    frechet_metrics,
    nearest_neighbour_ratio,
    psnr,
    samples,
    ssim,
)

SHAPE = (1, 16, 16)
GENERATOR = torch.Generator().manual_seed(0)
PICTURES = torch.rand((120, *SHAPE), generator=GENERATOR)


class Fixed(GaussianVAE):
    """Gives the same images whatever it is asked: `again` as reconstructions, `made` as samples."""

    def __init__(self, again=None, made=None, shape=SHAPE):
        super().__init__(DataSpec(name="fixed", shape=shape), 1, nn.Linear(1, 2), nn.Identity())
        self.again, self.made, self.done = again, made, 0

    def reconstruct(self, x):
        assert not self.training  # dropout would be at work
        self.done += len(x)
        return self.again[self.done - len(x) : self.done]

    def sample(self, n):
        assert not self.training
        self.done += n
        return self.made[self.done - n : self.done]


def split(x):
    return TensorSplit(x, None)


def test_a_constant_error_has_the_psnr_and_ssim_of_the_closed_form():
    grey = torch.full_like(PICTURES, 0.5)
    assert psnr(Fixed(grey + 0.1), split(grey)).value == pytest.approx(20, abs=1e-3)  # 20 log10(1 / 0.1)
    c = 0.01**2
    expected = (2 * 0.5 * 0.6 + c) / (0.5**2 + 0.6**2 + c)  # without contrast, its other half is 1
    assert ssim(Fixed(grey + 0.1), split(grey)).value == pytest.approx(expected, abs=1e-4)


def test_a_perfect_reconstruction_has_the_best_figures():
    assert psnr(Fixed(PICTURES), split(PICTURES)).value == 100
    assert ssim(Fixed(PICTURES), split(PICTURES)).value == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("model", ["mlp-vae", "conv-vae"])
def test_figures_are_those_of_torchmetrics_image_by_image(model, digits):
    vae = create_model(model, digits).train()
    part = digits.valid.select(torch.arange(120))
    peak, similar = psnr(vae, part), ssim(vae, part)
    assert vae.training
    x = part.batch(slice(None)).x
    with torch.no_grad():
        pairs = list(zip(vae.eval().reconstruct(x).split(1), x.split(1), strict=True))
    for figure, function in ((peak, peak_signal_noise_ratio), (similar, structural_similarity_index_measure)):
        each = torch.stack([function(again, true, data_range=1.0) for again, true in pairs])
        assert figure.value == pytest.approx(each.mean().item(), rel=1e-4)
        assert figure.error == pytest.approx(each.std().item() / math.sqrt(len(each)), rel=1e-3)
        assert torchmetrics.__version__ in figure.protocol and f"{len(x)} examples" in figure.protocol


@pytest.mark.parametrize("shape", [(20,), (1, 10, 16), (3, 16, 10)])
def test_ssim_of_vectors_and_of_images_below_its_window_is_an_error(shape):
    x = torch.rand((3, *shape))
    with pytest.raises(VaezooError, match="SSIM is not defined") as error:
        ssim(Fixed(x, shape=shape), split(x))
    assert error.value.hint
    assert psnr(Fixed(x, shape=shape), split(x)).value == 100


@pytest.mark.parametrize("figure", [psnr, ssim])
def test_without_torchmetrics_the_error_says_what_to_install(figure, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(VaezooError) as error:
        figure(Fixed(PICTURES), split(PICTURES))
    assert error.value.hint == 'pip install "vaezoo[eval]"'


@pytest.mark.parametrize("figure", [psnr, ssim])
def test_reconstructions_that_are_not_finite_give_an_error_instead_of_a_number(figure):
    again = PICTURES.clone()
    again[7] = math.nan
    with pytest.raises(DivergedError, match="for 1 of 120 examples"):
        figure(Fixed(again), split(PICTURES))


def with_moments(mean, deviations):
    """Returns features of exactly this mean and these deviations, uncorrelated."""
    d = len(mean)
    signs = torch.cat([torch.eye(d), -torch.eye(d)]).double() * math.sqrt((2 * d - 1) / 2)
    return signs * torch.tensor(deviations).double() + torch.tensor(mean).double()


def test_the_frechet_distance_of_diagonal_gaussians_is_the_closed_form():
    a = with_moments([0.0, 1.0, -2.0], [1.0, 2.0, 0.0])
    b = with_moments([3.0, 1.0, -1.0], [1.5, 0.5, 0.25])
    expected = (9 + 0 + 1) + (0.5**2 + 1.5**2 + 0.25**2)
    assert frechet_distance(a, b) == pytest.approx(expected) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_the_frechet_distance_is_that_by_the_matrix_root():
    mix = torch.randn(2, 30, 30, generator=GENERATOR)
    a, b = (torch.randn(200, 30, generator=GENERATOR) @ mix[i] + i for i in (0, 1))
    x, y = a.double().numpy(), b.double().numpy()
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_the_frechet_distance_of_far_features_keeps_its_digits():
    a = with_moments([1e4], [1e-3]).float()
    assert frechet_distance(a, a) < 1e-8


@pytest.mark.parametrize(("a", "b"), [((4, 4), (9, 4)), ((9, 4), (4, 4)), ((9, 4), (9, 3)), ((9,), (9,))])
def test_too_few_features_and_unlike_ones_are_an_error(a, b):
    with pytest.raises(VaezooError, match="have no Frechet distance") as error:
        frechet_distance(torch.rand(a), torch.rand(b))
    assert error.value.hint


def test_features_that_are_not_finite_give_an_error_instead_of_a_distance():
    bad = torch.rand(9, 2)
    bad[4, 1] = math.inf
    with pytest.raises(DivergedError, match="for 1 of 9 examples"):
        frechet_distance(torch.rand(9, 2), bad)


class Corners(nn.Module):
    def forward(self, x):
        return x[:, 0, :2, :2].flatten(1)


def test_the_frechet_figures_are_of_samples_and_of_training_examples_in_any_features():
    made, train = torch.rand((2, 120, *SHAPE), generator=GENERATOR)
    corners, steps = Corners(), []
    told = {"seed": 3, "on_progress": lambda *done: steps.append(done)}
    figure, floor = frechet_metrics(
        Fixed(made=made), split(train), split(PICTURES), FeatureExtractor("corners", 4, corners), **told
    )
    assert (figure.name, floor.name) == (
        "Frechet distance (corners)",
        "Frechet distance (corners) of training examples",
    )
    assert figure.value == pytest.approx(frechet_distance(corners(PICTURES), corners(made)))
    assert floor.value == pytest.approx(frechet_distance(corners(PICTURES), corners(train)))
    assert "120 held-out" in figure.protocol and "4 dimensions" in figure.protocol and "seed 3" in figure.protocol
    assert "120 training examples" in floor.protocol and steps[-1] == (360, 360)


def test_the_floor_is_of_as_many_training_examples_drawn_by_the_seed():
    """Every second one is white: evenly spaced, they would be all there is or nothing of it."""
    train = PICTURES.repeat(20, 1, 1, 1)
    train[::2] = 1
    features, made = FeatureExtractor("corners", 4, Corners()), PICTURES.clone()
    first, again, other = (
        frechet_metrics(Fixed(made=made), split(train), split(PICTURES), features, s)[1] for s in (0, 0, 1)
    )
    assert first == again and first.value != other.value and "120 training examples" in first.protocol
    whole = frechet_distance(Corners()(PICTURES), Corners()(train))
    assert first.value == pytest.approx(whole, rel=0.5) == pytest.approx(other.value, rel=0.5)


def test_samples_that_are_training_images_are_found_out():
    train, held_out = split(PICTURES[:80]), split(PICTURES[80:])
    copies = nearest_neighbour_ratio(Fixed(made=PICTURES[20:60]), train, held_out, count=40)
    assert copies.value == 0
    assert "40 samples" in copies.protocol and "80 training examples" in copies.protocol
    fresh = torch.rand((40, *SHAPE), generator=GENERATOR)
    assert nearest_neighbour_ratio(Fixed(made=fresh), train, held_out, count=40).value == pytest.approx(1, abs=0.02)


def test_the_ratio_is_of_distances_to_the_nearest_over_all_blocks():
    """Training examples at 0, 3 and, in the third block, 10; samples at 4, 9 and held-out ones at 1, 12."""
    train = torch.zeros(1100, 1)
    train[1], train[1099] = 3, 10
    held_out, made = torch.tensor([[1.0], [12.0]]), torch.tensor([[4.0], [9.0]])
    figure = nearest_neighbour_ratio(Fixed(made=made, shape=(1,)), split(train), split(held_out), count=2)
    assert figure.value == pytest.approx((1 + 1) / (1 + 2))


@pytest.mark.parametrize("count", [0, 41])
def test_as_many_held_out_examples_as_samples_are_needed(count):
    with pytest.raises(VaezooError, match="cannot be compared with 40"):
        nearest_neighbour_ratio(Fixed(made=PICTURES), split(PICTURES[:80]), split(PICTURES[80:]), count=count)


def test_held_out_examples_that_were_all_trained_on_are_an_error():
    with pytest.raises(VaezooError, match="is a training example, too"):
        nearest_neighbour_ratio(Fixed(made=PICTURES), split(PICTURES), split(PICTURES[80:]), count=40)


def test_samples_follow_the_seed_and_leave_the_callers_chance_and_mode_alone(digits):
    vae = create_model("mlp-vae", digits).train()
    state = torch.get_rng_state()
    first, again, other = (torch.cat([*samples(vae, 600, seed)]) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and len(first) == 600
    assert not torch.equal(first[:100], first[500:])
    assert torch.equal(torch.get_rng_state(), state) and vae.training


def test_samples_that_are_not_finite_are_an_error():
    made = PICTURES.clone()
    made[3] = math.nan
    with pytest.raises(DivergedError):
        nearest_neighbour_ratio(Fixed(made=made), split(PICTURES[:80]), split(PICTURES[80:]), count=40)
