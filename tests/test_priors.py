"""Priors against torch.distributions, autograd and numerical integrals."""

import pytest
import torch
from torch import distributions as D

import vaezoo
from vaezoo import DataSpec, TrainConfig, VaezooError
from vaezoo.composition import MLPParts, compose, composed_objective
from vaezoo.core.options import configure
from vaezoo.data.base import Batch, TensorSplit
from vaezoo.errors import PluginError
from vaezoo.objectives.base import StepContext
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.priors.base import Prior
from vaezoo.priors.exemplar import ExemplarPrior
from vaezoo.priors.maf import MaskedAutoregressiveFlow
from vaezoo.priors.standard_normal import StandardNormal

torch.manual_seed(0)
MU, LOGVAR = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
POSTERIOR = DiagonalGaussian(MU, LOGVAR)
PRIOR = StandardNormal((3,)).double()


class EstimatedPrior(Prior):
    """The standard normal without its closed form of the KL."""

    def sample(self, n):
        return PRIOR.sample(n)

    def log_prob(self, z):
        return PRIOR.log_prob(z)


def test_log_prob_is_normal_density():
    z = torch.randn(5, 3, dtype=torch.float64)
    expected = D.Independent(D.Normal(torch.zeros(3, dtype=torch.float64), 1.0), 1).log_prob(z)
    torch.testing.assert_close(PRIOR.log_prob(z), expected)


def test_kl_has_closed_form():
    expected = D.kl_divergence(D.Normal(MU, (0.5 * LOGVAR).exp()), D.Normal(torch.zeros_like(MU), 1.0))
    z = POSTERIOR.rsample()
    torch.testing.assert_close(PRIOR.kl_terms(POSTERIOR, z), expected)
    torch.testing.assert_close(PRIOR.kl(POSTERIOR, z), expected.sum(1))


def test_kl_estimate_is_unbiased():
    wide = DiagonalGaussian(MU[:1].expand(200_000, 3), LOGVAR[:1].expand(200_000, 3))
    estimate = EstimatedPrior().kl(wide, wide.rsample()).mean()
    exact = PRIOR.kl(POSTERIOR, MU)[0]
    assert abs(float(estimate - exact)) < 0.02


def test_prior_samples_and_saves_nothing():
    prior = StandardNormal((2, 3))
    assert prior.sample(4).shape == (4, 2, 3)
    assert prior.state_dict() == {}


def flow(n, steps=3):
    """A flow whose networks have an effect."""
    torch.manual_seed(0)
    prior = MaskedAutoregressiveFlow(n, 16, steps).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.mul_(2)
    return prior


def test_maf_density_is_change_of_variables():
    """log p(z) = log N(noise; 0, 1) - log |det dz / d noise|, with autograd's Jacobian."""
    prior, noise = flow(4), torch.randn(5, 4, dtype=torch.float64)
    jacobians = [torch.func.jacrev(lambda n: prior.from_noise(n[None])[0])(row) for row in noise]
    expected = D.Normal(0.0, 1.0).log_prob(noise).sum(1) - torch.stack([j.slogdet().logabsdet for j in jacobians])
    torch.testing.assert_close(prior.log_prob(prior.from_noise(noise)), expected)
    assert all(j.triu(1).abs().sum() > 0 and j.tril(-1).abs().sum() > 0 for j in jacobians)  # the order is reversed


def test_maf_draws_latent_by_latent():
    """A draw has the shift and scale that the whole network gives for the finished z."""
    step, noise = flow(5).steps[0], torch.randn(3, 5, dtype=torch.float64)
    z = step(noise)
    shift, raw = step.network(z)
    torch.testing.assert_close(z, shift + noise * torch.exp(2 * torch.tanh(raw / 2)))
    back, log_det = step.inverse(z)
    torch.testing.assert_close(back, noise)
    torch.testing.assert_close(log_det, -(2 * torch.tanh(raw / 2)).sum(1))


@pytest.mark.slow
@torch.no_grad()
def test_maf_integrates_to_one():
    prior = flow(2)
    low, high = prior.sample(1000).double().aminmax()
    line = torch.linspace(2 * float(low) - 5, 2 * float(high) + 5, 1500, dtype=torch.float64)
    total = prior.log_prob(torch.cartesian_prod(line, line)).exp().sum() * (line[1] - line[0]) ** 2
    assert float(total) == pytest.approx(1, abs=1e-3)


def test_maf_refuses_many_latents():
    data = DataSpec(name="images", shape=(1, 4, 4))
    with pytest.raises(VaezooError) as e:
        compose(configure(MLPParts(), {"prior": "maf", "latent_dim": 65}), data)
    assert "at most 64, but the model has 65" in e.value.message and "prior=realnvp" in e.value.hint


def exemplar_model(**options):
    """A model on images of 2x3 pixels with 3 latents, and its objective."""
    torch.manual_seed(0)
    config = configure(MLPParts(), {"prior": "exemplar", "latent_dim": 3, "prior.exemplars": 4, **options})
    data = DataSpec(name="images", shape=(1, 2, 3), classes=(2,))
    return compose(config, data), composed_objective(config, data)


def test_exemplars_in_training_are_the_rest_of_the_batch():
    vae, _ = exemplar_model()
    vae.prior.logvar.data.fill_(-0.7)
    q = vae.encode(torch.rand(5, 1, 2, 3))
    z = q.rsample()
    rows = []
    for i in range(5):
        others = D.Independent(D.Normal(torch.cat([q.mu[:i], q.mu[i + 1 :]]), torch.exp(torch.tensor(-0.35))), 1)
        rows.append(q.log_prob(z)[i] - D.MixtureSameFamily(D.Categorical(torch.ones(4)), others).log_prob(z[i]))
    torch.testing.assert_close(vae.prior.kl_terms(q, z), torch.stack(rows)[:, None])


@torch.no_grad()
def test_exemplars_in_evaluation_are_kept_examples():
    vae, _ = exemplar_model()
    vae.eval()
    vae.prior.logvar.fill_(0.4)
    x = torch.randint(0, 256, (9, 1, 2, 3), dtype=torch.uint8)
    vae.prior.init_from_data(TensorSplit(x, None))
    torch.testing.assert_close(vae.prior.exemplars, x[[0, 2, 4, 6]] / 255.0)
    component = D.Independent(D.Normal(vae.encode(vae.prior.exemplars).mu, torch.exp(torch.tensor(0.2))), 1)
    expected = D.MixtureSameFamily(D.Categorical(torch.ones(4)), component)
    z = torch.randn(6, 3)
    torch.testing.assert_close(vae.prior.log_prob(z), expected.log_prob(z))
    q = vae.encode(torch.rand(6, 1, 2, 3))
    torch.testing.assert_close(vae.prior.kl_terms(q, z)[:, 0], q.log_prob(z) - expected.log_prob(z))
    draws, truth = vae.prior.sample(40_000), expected.sample((40_000,))
    torch.testing.assert_close(draws.mean(0), truth.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(draws.T.cov(), truth.T.cov(), atol=0.05, rtol=0)


def test_few_examples_are_kept_several_times():
    vae, _ = exemplar_model()
    x = torch.rand(3, 1, 2, 3)
    vae.prior.init_from_data(TensorSplit(x, None))
    assert torch.equal(vae.prior.exemplars, x[[0, 1, 2, 0]])


def test_exemplars_are_state_of_the_run(digits, tmp_path):
    options = {"hidden": "16", "latent_dim": 2, "prior.exemplars": 30}
    config = TrainConfig(steps=2, batch_size=20, compile="off")
    first = vaezoo.train("exemplar-vae", digits, options=options, config=config, out=tmp_path / "first")
    kept = digits.train.subsample(30).batch(slice(None)).x
    for run in (first, vaezoo.load(tmp_path / "first")):
        assert torch.equal(run.vae.prior.exemplars, kept)
    other = vaezoo.Dataset(spec=digits.spec, train=digits.valid, valid=digits.train, test=digits.test)
    second = vaezoo.train(
        "exemplar-vae", other, options=options, config=config, out=tmp_path / "second", init_from=first
    )
    assert torch.equal(second.vae.prior.exemplars, digits.valid.subsample(30).batch(slice(None)).x)


def test_exemplar_needs_other_examples():
    vae, objective = exemplar_model()
    with pytest.raises(VaezooError, match="two examples in a batch"):
        objective(vae, Batch(torch.rand(1, 1, 2, 3)), StepContext.initial())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "iwae"}, r"prior=exemplar trains with a p\(z\) for each batch, which objective=iwae"),
        ({"posterior": "full"}, "prior=exemplar needs posterior=diagonal, not posterior=full"),
        ({"condition": "labels"}, "prior=exemplar has no labels"),
    ],
)
def test_exemplar_refuses_other_parts(options, message):
    with pytest.raises(VaezooError, match=message) as e:
        exemplar_model(**options)
    assert e.value.hint and not isinstance(e.value, PluginError)


def test_exemplar_prior_does_not_register_encoder():
    vae, _ = exemplar_model()
    assert isinstance(vae.prior, ExemplarPrior)
    assert set(vae.prior.state_dict()) == {"exemplars", "logvar"}
