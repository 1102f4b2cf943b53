"""The ELBO and its variants against closed forms."""

import pytest
import torch

from vaezoo import ELBO, Batch, DataSpec, StepContext, create_model
from vaezoo.errors import VaezooError
from vaezoo.objectives.elbo import elbo_terms, kl_with_free_bits


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return create_model("mlp-vae", DataSpec(name="v", shape=(6,)), {"latent_dim": 3, "hidden": 8})


BATCH = Batch(torch.rand(16, 6), None)


def losses(vae, objective, step):
    torch.manual_seed(1)
    out = objective(vae, BATCH, step)
    return out.losses["vae"].item(), {name: value.item() for name, value in out.metrics.items()}


def at(number, kl_weight=1.0, free_bits=0.0):
    return StepContext(torch.tensor(float(number)), torch.tensor(kl_weight), free_bits)


def test_the_loss_is_the_negative_elbo_summed_over_dimensions_averaged_over_the_batch(vae):
    loss, metrics = losses(vae, ELBO(), at(0))
    torch.manual_seed(1)
    posterior = vae.encode(BATCH.x)
    z = posterior.rsample()
    p = torch.sigmoid(vae.decode(z))
    cross_entropy = -(BATCH.x * p.log() + (1 - BATCH.x) * (1 - p).log()).sum() / 16
    kl = 0.5 * (posterior.mu**2 + posterior.logvar.exp() - 1 - posterior.logvar).sum() / 16
    assert metrics["reconstruction"] == pytest.approx(cross_entropy.item(), rel=1e-5)
    assert metrics["kl"] == pytest.approx(kl.item(), rel=1e-5)
    assert loss == pytest.approx((cross_entropy + kl).item(), rel=1e-5)
    assert metrics["elbo"] == pytest.approx(-loss, rel=1e-6)


def test_beta_and_warm_up_weigh_the_kl_but_not_the_reported_bound(vae):
    _, plain = losses(vae, ELBO(), at(0))
    loss, metrics = losses(vae, ELBO(beta=4), at(0, kl_weight=0.5))
    assert metrics == plain
    assert loss == pytest.approx(plain["reconstruction"] + 4 * 0.5 * plain["kl"], rel=1e-5)


@pytest.mark.parametrize(("number", "reached"), [(0, 0.0), (50, 5.0), (100, 10.0), (1000, 10.0)])
def test_capacity_grows_linearly_and_pulls_the_kl_from_both_sides(vae, number, reached):
    loss, metrics = losses(vae, ELBO(beta=7, capacity=10.0, capacity_steps=100), at(number))
    assert loss == pytest.approx(metrics["reconstruction"] + 7 * abs(metrics["kl"] - reached), rel=1e-5)


def test_free_bits_are_a_floor_for_each_dimension_of_the_batch_mean():
    terms = torch.tensor([[0.0, 1.0, 3.0], [0.2, 2.0, 3.0]])
    assert float(kl_with_free_bits(terms, 0.0)) == pytest.approx(4.6)
    assert float(kl_with_free_bits(terms, 0.5)) == pytest.approx(0.5 + 1.5 + 3.0)


def test_free_bits_reach_the_loss(vae):
    loss, metrics = losses(vae, ELBO(), at(0, free_bits=100.0))
    assert loss == pytest.approx(metrics["reconstruction"] + 300, rel=1e-5)


def test_a_pass_draws_z_once_and_keeps_the_parts_of_each_example(vae):
    result = elbo_terms(vae, BATCH.x)
    assert result.z.shape == (16, 3) and result.reconstruction.shape == (16,) and result.kl_terms.shape == (16, 3)


@pytest.mark.parametrize("bad", [{"beta": -1.0}, {"capacity": -1.0}, {"capacity_steps": 0}])
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(VaezooError):
        ELBO(**bad)
