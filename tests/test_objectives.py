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
    output = objective(vae, BATCH, step)
    return output.losses["vae"].item(), {name: value.item() for name, value in output.metrics.items()}


def at(global_step, kl_weight=1.0, free_bits=0.0):
    return StepContext(torch.tensor(float(global_step)), torch.tensor(kl_weight), free_bits)


def test_loss_is_negative_elbo(vae):
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


def test_kl_weights_leave_metrics_unchanged(vae):
    _, plain = losses(vae, ELBO(), at(0))
    loss, metrics = losses(vae, ELBO(beta=4), at(0, kl_weight=0.5))
    assert metrics.pop("weighted_elbo") == pytest.approx(-(plain["reconstruction"] + 4 * plain["kl"]), rel=1e-5)
    assert metrics == plain
    assert loss == pytest.approx(plain["reconstruction"] + 4 * 0.5 * plain["kl"], rel=1e-5)


@pytest.mark.parametrize(("global_step", "capacity"), [(0, 0.0), (50, 5.0), (100, 10.0), (1000, 10.0)])
def test_capacity_grows_linearly(vae, global_step, capacity):
    loss, metrics = losses(vae, ELBO(beta=7, capacity=10.0, capacity_steps=100), at(global_step))
    assert loss == pytest.approx(metrics["reconstruction"] + 7 * abs(metrics["kl"] - capacity), rel=1e-5)


def test_capacity_applies_to_the_batch(vae):
    """At a capacity that is the mean KL no penalty is left, though each example has another KL."""
    kl = elbo_terms(vae, BATCH).kl_terms.sum(1)
    assert kl.std() > 0.05 * kl.mean()
    loss, metrics = losses(vae, ELBO(beta=100, capacity=kl.mean().item(), capacity_steps=1), at(5))
    assert loss == pytest.approx(metrics["reconstruction"], rel=1e-4)


def test_free_bits_bound_batch_mean():
    terms = torch.tensor([[0.0, 1.0, 3.0], [0.2, 2.0, 3.0]])
    assert float(kl_with_free_bits(terms, 0.0)) == pytest.approx(4.6)
    assert float(kl_with_free_bits(terms, 0.5)) == pytest.approx(0.5 + 1.5 + 3.0)


def test_free_bits_reach_loss(vae):
    loss, metrics = losses(vae, ELBO(), at(0, free_bits=100.0))
    assert loss == pytest.approx(metrics["reconstruction"] + 300, rel=1e-5)


def test_elbo_terms_have_documented_shapes(vae):
    terms = elbo_terms(vae, BATCH)
    assert terms.z.shape == (16, 3) and terms.reconstruction.shape == (16,) and terms.kl_terms.shape == (16, 3)


def test_samples_lie_side_by_side(vae):
    torch.manual_seed(3)
    terms = elbo_terms(vae, BATCH, 5)
    assert terms.z.shape == (80, 3) and terms.reconstruction.shape == (80,) and terms.kl_terms.shape == (80, 3)
    mu = vae.encode(BATCH.x).mu
    torch.testing.assert_close(terms.posterior.mu.view(16, 5, 3), mu.unsqueeze(1).expand(16, 5, 3))
    x = BATCH.x.repeat_interleave(5, 0)
    torch.testing.assert_close(terms.reconstruction, -vae.likelihood.log_prob(vae.decode(terms.z), x))


def test_at_sample_gives_importance_weights(vae):
    torch.manual_seed(3)
    terms = elbo_terms(vae, BATCH, 2, at_sample=True)
    expected = terms.posterior.log_prob(terms.z) - vae.prior.log_prob(terms.z)
    torch.testing.assert_close(terms.kl_terms.sum(1), expected)
    torch.manual_seed(3)
    assert torch.equal(elbo_terms(vae, BATCH, 2).z, terms.z)


def test_auxiliary_loss_is_added_once(vae):
    class Committed(type(vae)):
        def forward(self, posterior, batch, *, at_sample=False):
            output = super().forward(posterior, batch, at_sample=at_sample)
            return output._replace(auxiliary_loss=torch.full((len(batch.x),), 7.0))

    plain, metrics = losses(vae, ELBO(beta=3.0), at(0, kl_weight=0.5))
    vae.__class__ = Committed
    loss, other = losses(vae, ELBO(beta=3.0), at(0, kl_weight=0.5))
    assert loss == pytest.approx(plain + 7) and other == metrics | {"auxiliary": 7.0}


@pytest.mark.parametrize("options", [{"beta": -1.0}, {"capacity": -1.0}, {"capacity_steps": 0}])
def test_invalid_values_are_refused(options):
    with pytest.raises(VaezooError):
        ELBO(**options)
