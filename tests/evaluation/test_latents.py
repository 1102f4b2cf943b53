"""Codes, and images along lines and planes of codes, of a model whose decoder is the identity."""

import itertools

import pytest
import torch
from torch import nn

from vaezoo import Batch, DataSpec, DiagonalGaussian, GaussianVAE
from vaezoo.errors import VaezooError
from vaezoo.evaluation import latents
from vaezoo.evaluation.batches import BATCH_SIZE
from vaezoo.priors.poincare import WrappedNormalPrior
from vaezoo.priors.sphere import UniformSphere


class Echo(GaussianVAE):
    """Images of one row. The logits of the pixels are the latents."""

    def __init__(self, dims=3):
        super().__init__(DataSpec(name="echo", shape=(1, 1, dims)), dims, nn.Identity(), nn.Unflatten(1, (1, 1, dims)))
        self.unused = nn.Parameter(torch.zeros(()))

    def encode(self, x):
        return DiagonalGaussian(x.flatten(1), torch.zeros_like(x.flatten(1)))


def logits(images):
    return torch.logit(images)[..., 0, 0, :]


def test_batching_keeps_results():
    x = torch.rand(2 * BATCH_SIZE + 5, 1, 1, 3)
    codes = latents.encode(Echo(), Batch(x))
    assert torch.equal(codes, x.flatten(1))
    images = latents.decode(Echo(), codes.view(5, -1, 3))
    assert images.shape == (5, len(x) // 5, 1, 1, 3)
    assert torch.allclose(logits(images).flatten(0, 1), codes, atol=1e-5)


def test_traversal_changes_one_dimension():
    example = Batch(torch.tensor([[[[0.1, 0.2, 0.3]]]]))
    rows = logits(latents.traversal(Echo(), example, [2, 0], torch.tensor([-3.0, 0.0, 3.0, 1.0])))
    assert rows.shape == (2, 4, 3)
    expected = torch.tensor([[[0.1, 0.2, v] for v in (-3, 0, 3, 1)], [[v, 0.2, 0.3] for v in (-3, 0, 3, 1)]])
    assert torch.allclose(rows, expected, atol=1e-5)


@pytest.mark.parametrize("dim", [-1, 3])
def test_unknown_dimension_is_refused(dim):
    with pytest.raises(VaezooError, match=f"no latent dimension {dim}") as e:
        latents.traversal(Echo(), Batch(torch.rand(1, 1, 1, 3)), [0, dim], torch.zeros(2))
    assert "from 0 to 2" in e.value.hint


@pytest.mark.parametrize("prior", [UniformSphere(2), WrappedNormalPrior(2, 1.0)])
def test_no_lines_in_other_spaces(prior):
    vae = Echo(2)
    vae.prior = prior
    batch = Batch(torch.rand(1, 1, 1, 2))
    for call in (
        lambda: latents.traversal(vae, batch, [0], torch.zeros(2)),
        lambda: latents.manifold(vae, 3),
        lambda: latents.interpolation(vae, batch, batch, 3),
        lambda: latents.edit(vae, batch, torch.zeros(2), torch.zeros(2)),
    ):
        with pytest.raises(VaezooError, match=f"lie in the space '{prior.space}'"):
            call()


def test_manifold_cells_are_quantiles():
    images, values = latents.manifold(Echo(2), 7)
    shares = torch.distributions.Normal(0, 1).cdf(values)
    assert torch.allclose(shares, torch.linspace(0.05, 0.95, 7), atol=1e-6)
    cells = logits(images)
    for row in range(7):
        for column in range(7):
            assert torch.allclose(cells[row, column], torch.stack([values[column], values[6 - row]]), atol=1e-5)


def test_manifold_needs_two_dimensions():
    with pytest.raises(VaezooError, match=r"shape \(3,\)"):
        latents.manifold(Echo(3), 3)


def test_interpolation_is_linear():
    first, second = torch.rand(4, 1, 1, 3), torch.rand(4, 1, 1, 3)
    lines = logits(latents.interpolation(Echo(), Batch(first), Batch(second), 5))
    assert lines.shape == (4, 5, 3)
    for i, t in enumerate((0, 0.25, 0.5, 0.75, 1)):
        assert torch.allclose(lines[:, i], ((1 - t) * first + t * second).flatten(1), atol=1e-5)


def test_attribute_direction():
    codes = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 1.0], [7.0, 3.0]])
    labels = torch.tensor([4, 9, 7, 7])
    assert torch.equal(latents.attribute_direction(codes, labels, 7), torch.tensor([5.0, 2.0]))


@pytest.mark.parametrize(("label", "labels"), [(3, [7, 7]), (7, [7, 7])])
def test_direction_needs_two_labels(label, labels):
    with pytest.raises(VaezooError, match=f"label {label} cannot be compared"):
        latents.attribute_direction(torch.rand(2, 2), torch.tensor(labels), label)


def test_edit_adds_direction():
    x, direction = torch.rand(2, 1, 1, 3), torch.tensor([1.0, 0.0, -1.0])
    edited = logits(latents.edit(Echo(), Batch(x), direction, torch.tensor([-2.0, 0.0, 0.5])))
    for i, amount in enumerate((-2, 0, 0.5)):
        assert torch.allclose(edited[:, i], x.flatten(1) + amount * direction, atol=1e-5)


def test_principal_plane_has_largest_variance():
    torch.manual_seed(0)
    wide = torch.randn(500, 2) * torch.tensor([5.0, 2.0])
    codes = torch.stack([0.01 * torch.randn(500), -wide[:, 1], wide[:, 0]], 1) + 10
    centred = wide - wide.mean(0)
    for order in itertools.permutations(range(3)):
        plane, shares = latents.principal_plane(codes[:, order])
        assert torch.allclose(plane[:, 0], centred[:, 0], atol=0.2)
        assert torch.allclose(plane[:, 1], -centred[:, 1], atol=0.2)  # the largest weight is positive
        assert shares[0] == pytest.approx(25 / 29, abs=0.03) and sum(shares) == pytest.approx(1, abs=1e-4)


def test_principal_plane_of_constant_codes():
    plane, shares = latents.principal_plane(torch.ones(4, 3))
    assert plane.abs().max() < 1e-6 and shares == (0, 0)


def test_training_mode_is_restored():
    vae = Echo().train()
    latents.decode(vae, latents.encode(vae, Batch(torch.rand(2, 1, 1, 3))))
    assert vae.training
