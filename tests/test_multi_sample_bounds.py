"""MIWAE, PIWAE and CIWAE against their definitions, with unequal numbers of samples, and against exact log p(x)."""

import itertools

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from vaezoo import VAE, DiagonalGaussian
from vaezoo.composition import MLPParts, compose, composed_objective
from vaezoo.core.options import configure
from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.models.ladder_vae import SPEC as LADDER
from vaezoo.objectives.base import StepContext
from vaezoo.objectives.iwae import IWAE, PIWAE, DReG
from vaezoo.posteriors.base import repeat

DATA = DataSpec(name="images", shape=(1, 4, 4))
X = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
K, M = 3, 5  # unequal, so that a test notices if they are exchanged
SEED = 3


def build(options=None):
    torch.manual_seed(1)
    config = configure(MLPParts(hidden=(16,), latent_dim=3), options or {})
    return compose(config, DATA), composed_objective(config, DATA)


def output(objective, vae, x=X, **step):
    torch.manual_seed(SEED)
    return objective(vae, Batch(x), StepContext.initial()._replace(**step))


def log_weights(vae, samples, x=X):
    """Returns log p(x, z) - log q(z|x) at the samples that an objective draws with the same seed, `(B, samples)`."""
    torch.manual_seed(SEED)
    posterior = repeat(vae.encode(x), samples)
    z = posterior.rsample()
    log_p = vae.likelihood.log_prob(vae.decode(z), x.repeat_interleave(samples, 0)) + vae.prior.log_prob(z)
    return (log_p - posterior.log_prob(z)).view(len(x), samples)


def bound(log_w):
    """Returns log of the mean weight over the last dimension, and the mean of that over the others."""
    return log_w.exp().mean(-1).log().mean()


def gradients(loss, parameters):
    return [g.clone() for g in torch.autograd.grad(loss, parameters, retain_graph=True)]


def split_parameters(vae):
    encoder = vae.inference_parameters()
    held = {id(p) for p in encoder}
    return encoder, [p for p in vae.parameters() if id(p) not in held]


def assert_close(a, b):
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_miwae_is_a_mean_of_bounds():
    vae, objective = build({"objective": "iwae", "objective.k": K, "objective.m": M})
    log_w = log_weights(vae, M * K)
    expected = bound(log_w.view(len(X), M, K)).item()
    exchanged = bound(log_w.view(len(X), K, M)).item()
    result = output(objective, vae)
    assert abs(expected - exchanged) > 0.005
    assert result.losses["vae"].item() == pytest.approx(-expected, rel=1e-6)
    assert result.metrics["iwae"].item() == pytest.approx(expected, rel=1e-6)
    assert result.metrics["elbo"].item() == pytest.approx(log_w.mean().item(), rel=1e-6)


@pytest.mark.parametrize("objective", [IWAE(7, 1), PIWAE(7, 1)], ids=["miwae", "piwae"])
def test_one_bound_is_iwae(objective):
    vae, _ = build()
    expected = output(IWAE(7), vae)
    assert expected.losses["vae"].item() == pytest.approx(-bound(log_weights(vae, 7)).item(), rel=1e-6)
    result = output(objective, vae)
    for loss in result.losses.values():
        assert loss.item() == pytest.approx(expected.losses["vae"].item(), rel=1e-6)
    assert result.metrics["iwae"].item() == pytest.approx(expected.metrics["iwae"].item(), rel=1e-6)


@pytest.mark.parametrize("posterior", ["diagonal", "full", "iaf"])
@pytest.mark.parametrize(
    ("objective", "group"),
    [(IWAE(1, M), "vae"), (PIWAE(1, M), "encoder"), (IWAE(K, M, mix=1.0), "vae"), (IWAE(1, 1, mix=0.3), "vae")],
    ids=["miwae", "piwae", "ciwae-all-elbo", "ciwae-one-sample"],
)
def test_one_sample_is_the_elbo(objective, group, posterior):
    vae, _ = build({"posterior": posterior})
    result = output(objective, vae)
    assert result.losses[group].item() == pytest.approx(-result.metrics["elbo"].item(), rel=1e-6)


@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
def test_ciwae_combines_two_bounds(mix):
    vae, objective = build({"objective": "iwae", "objective.k": K, "objective.mix": mix})
    log_w = log_weights(vae, K)
    expected = ((1 - mix) * bound(log_w) + mix * log_w.mean()).item()
    result = output(objective, vae)
    assert result.losses["vae"].item() == pytest.approx(-expected, rel=1e-6)
    assert objective.monitor == ("ciwae" if mix else "iwae")
    assert result.metrics[objective.monitor].item() == pytest.approx(expected, rel=1e-6)
    assert result.metrics["iwae"].item() == pytest.approx(bound(log_w).item(), rel=1e-6)


def test_piwae_has_a_bound_for_each_group():
    """The encoder's gradient is that of MIWAE, and the decoder's that of IWAE with all samples."""
    vae, objective = build(
        {"objective": "iwae", "objective.k": K, "objective.m": M, "objective.gradient": "piwae", "prior": "mixture"}
    )
    encoder, decoder = split_parameters(vae)
    groups = objective.parameter_groups(vae)
    assert [id(p) for p in groups["encoder"]] == [id(p) for p in encoder]
    assert [id(p) for p in groups["decoder"]] == [id(p) for p in decoder]
    result = output(objective, vae)
    miwae, iwae = (output(other, vae).losses["vae"] for other in (IWAE(K, M), IWAE(M * K)))
    assert_close(gradients(result.losses["encoder"], encoder), gradients(miwae, encoder))
    assert_close(gradients(result.losses["decoder"], decoder), gradients(iwae, decoder))
    assert result.metrics["iwae"].item() == pytest.approx(-iwae.item(), rel=1e-6)
    assert result.metrics["miwae"].item() == pytest.approx(-miwae.item(), rel=1e-6)
    assert result.metrics["iwae"] > result.metrics["miwae"]


@pytest.mark.parametrize("objective", [IWAE, DReG])
def test_bounds_of_repeated_examples(objective):
    """m bounds of an example are those of m copies of it."""
    vae, _ = build()
    parameters = list(vae.parameters())
    torch.manual_seed(SEED)
    copies = objective(K)(vae, repeat(Batch(X), M), StepContext.initial()).losses["vae"]
    actual = output(objective(K, M), vae).losses["vae"]
    assert actual.item() == pytest.approx(copies.item(), rel=1e-6)
    assert_close(gradients(actual, parameters), gradients(copies, parameters))


@pytest.mark.parametrize(
    "objective", [IWAE(K, M), DReG(K, M), PIWAE(K, M), IWAE(K, mix=0.5)], ids=["miwae", "dreg", "piwae", "ciwae"]
)
def test_metrics_are_bounds_during_warm_up(objective):
    """The metrics are the bounds at the full KL, and never the weighted sum of log w that some programs report."""
    vae, _ = build()
    plain, warming = (output(objective, vae, kl_weight=torch.tensor(weight)).metrics for weight in (1.0, 0.2))
    for name, value in plain.items():
        assert warming[name].item() == pytest.approx(value.item(), abs=1e-6)
    k = M * K if isinstance(objective, PIWAE) else K
    log_w = log_weights(vae, objective.m * objective.k)
    assert plain["iwae"].item() == pytest.approx(bound(log_w.view(-1, k)).item(), rel=1e-5)
    surrogate = (torch.softmax(log_w.view(-1, k), 1) * log_w.view(-1, k)).sum(1).mean()
    assert plain["iwae"] < surrogate - 0.01


def test_more_bounds_have_less_noise():
    """The mean gradient of m bounds is that of one, and its variance is 1/m of it."""
    vae, _ = build()
    encoder, m = vae.inference_parameters(), 8

    def draws(objective):
        torch.manual_seed(9)
        losses = (objective(vae, Batch(X), StepContext.initial()).losses for _ in range(400))
        return torch.stack([torch.cat([g.flatten() for g in gradients(loss["vae"], encoder)]) for loss in losses])

    one, many = draws(IWAE(K, 1)), draws(IWAE(K, m))
    error = ((one.var(0) + many.var(0)) / len(one)).sqrt()
    used = error > 1e-8
    assert ((one.mean(0) - many.mean(0)).abs() / error)[used].mean() < 1.2  # 0.8 for independent Gaussians
    assert (one.var(0).sum() / many.var(0).sum()).item() == pytest.approx(m, rel=0.25)


def test_bounds_help_the_encoder():
    """Of 16 samples, many small bounds give a gradient of the encoder with less relative noise than one large bound."""
    vae, _ = build()
    encoder = vae.inference_parameters()

    def signal_to_noise(objective):
        torch.manual_seed(9)
        losses = (objective(vae, Batch(X), StepContext.initial()).losses for _ in range(300))
        rows = torch.stack(
            [torch.cat([g.flatten() for g in gradients(next(iter(loss.values())), encoder)]) for loss in losses]
        )
        return (rows.mean(0).norm() / rows.std(0).norm()).item()

    one, several, partial = (signal_to_noise(o) for o in (IWAE(16), IWAE(2, 8), PIWAE(2, 8)))
    assert several > 1.3 * one and partial > 1.3 * one


class LinearGaussian(VAE):
    """x = W z + b + noise with orthogonal columns of W, so that p(z|x) is a diagonal Gaussian. q(z|x) is p(z|x)."""

    SIGMA = 0.5

    def __init__(self):
        super().__init__(DataSpec(name="linear", shape=(3,), kind="real", likelihood="gaussian:0.5"), (2,))
        self.decoder = nn.Linear(2, 3)
        with torch.no_grad():
            self.decoder.weight.copy_(torch.tensor([[1.0, 0.5], [-1.0, 0.5], [0.0, 2.0]]))
        self.encoder = nn.Linear(1, 1)

    def encode(self, x):
        weight, variance = self.decoder.weight, self.SIGMA**2
        precision = 1 + weight.square().sum(0) / variance
        mu = (x - self.decoder.bias) @ weight / variance / precision
        return DiagonalGaussian(mu, -precision.log().expand_as(mu))

    def decode(self, z):
        return self.decoder(z)

    def log_likelihood(self, x):
        weight = self.decoder.weight
        covariance = weight @ weight.T + self.SIGMA**2 * torch.eye(3)
        return MultivariateNormal(self.decoder.bias, covariance).log_prob(x)


@pytest.mark.parametrize("objective", [IWAE(K, M), PIWAE(K, M), IWAE(K, M, mix=0.3), DReG(K, M)], ids=str)
def test_exact_posterior_gives_log_likelihood(objective):
    """All weights are then p(x), so every bound is log p(x) and its gradient by the encoder is 0."""
    torch.manual_seed(0)
    vae, x = LinearGaussian(), torch.randn(20, 3)
    result = output(objective, vae, x)
    expected = vae.log_likelihood(x).mean().item()
    for loss in result.losses.values():
        if not isinstance(objective, DReG):  # its loss is a surrogate
            assert loss.item() == pytest.approx(-expected, rel=1e-5)
    assert result.metrics["iwae"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 0}, "option 'objective.k' is 0"),
        ({"m": 0}, "option 'objective.m' is 0"),
        ({"k": 10**18, "m": 10**18}, "objective.k=1000000000000000000 times objective.m=1000000000000000000 is too"),
        ({"mix": 1.5}, "option 'objective.mix' is 1.5"),
        ({"mix": -0.1}, "option 'objective.mix' is -0.1"),
        ({"mix": 0.5, "gradient": "dreg"}, "objective.mix=0.5 does not go together with objective.gradient=dreg"),
        ({"mix": 0.5, "gradient": "piwae"}, "objective.mix=0.5 does not go together with objective.gradient=piwae"),
    ],
    ids=str,
)
def test_bad_numbers_are_refused(options, words):
    with pytest.raises(VaezooError, match=words) as e:
        build({"objective": "iwae", **{f"objective.{name}": value for name, value in options.items()}})
    assert e.value.hint


@pytest.mark.parametrize(("k", "m", "mix"), [(0, 1, 0.0), (1, 0, 0.0), (1, 1, 2.0)])
def test_objective_refuses_bad_numbers(k, m, mix):
    with pytest.raises(VaezooError):
        IWAE(k, m, mix)


@pytest.mark.parametrize("gradient", ["plain", "piwae"])
def test_hierarchy_takes_several_bounds(gradient):
    options = {"hidden": "8", "latents": "2,3", "objective": "iwae", "objective.k": K, "objective.m": M}
    config = configure(LADDER.config, options | {"objective.gradient": gradient})
    torch.manual_seed(0)
    vae, objective = LADDER.build(config, DATA), LADDER.objective(config, DATA)
    losses = output(objective, vae).losses
    assert all(loss.isfinite() for loss in losses.values()) and len(losses) == 1 + (gradient == "piwae")
    grouped = list(itertools.chain(*objective.parameter_groups(vae).values()))
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(vae.parameters()))
