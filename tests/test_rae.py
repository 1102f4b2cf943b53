"""The regularised autoencoder: its penalties against closed forms, and what goes together with it."""

import itertools
from typing import get_args

import pytest
import torch
from torch import nn

from vaezoo import DataSpec
from vaezoo.composition import MLPParts, compose, composed_objective
from vaezoo.core.options import configure
from vaezoo.data.base import Batch
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.models.ladder_vae import SPEC as LADDER
from vaezoo.nn.activations import Activation
from vaezoo.objectives.base import StepContext
from vaezoo.objectives.rae import RAE, jacobian_norm, random_signs
from vaezoo.posteriors.base import repeat

REAL = DataSpec(name="vectors", shape=(5,), kind="real", likelihood="gaussian")
IMAGES = DataSpec(name="images", shape=(1, 2, 2))
LATENTS = 3
RAE_PARTS = {"posterior": "delta", "prior": "zero-kl", "objective": "rae"}


def build(data, hidden="8", activation="tanh", **options):
    torch.manual_seed(0)
    named = {f"objective.{name}": value for name, value in options.items()}
    config = configure(MLPParts(latent_dim=LATENTS), {"hidden": hidden, "activation": activation, **RAE_PARTS, **named})
    return compose(config, data), composed_objective(config, data)


def example(data, n=6):
    return Batch(data.make_kind().example(n, data.shape, torch.Generator().manual_seed(1)))


def linear_decoder():
    """Returns a model whose decoder is linear, with its weight."""
    vae, _ = build(REAL, hidden="")
    (layer,) = (module for module in vae.decoder if isinstance(module, nn.Linear))
    return vae, layer.weight


def mean_over_signs(vae, z):
    """Returns the penalty for every pattern of signs of each row of z."""
    patterns = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=vae.data.dims))).view(-1, *vae.data.shape)
    rows = z.repeat_interleave(len(patterns), 0)
    return jacobian_norm(vae, rows, patterns.repeat(len(z), *[1] * len(vae.data.shape)), Batch(rows))


def test_linear_decoder_has_a_closed_form():
    """|dD/dz|^2 is |W|^2, and its gradient 2 W."""
    vae, weight = linear_decoder()
    with torch.no_grad():
        weight.normal_()
    estimate = mean_over_signs(vae, torch.randn(4, LATENTS))
    assert estimate.item() == pytest.approx(weight.square().sum().item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(estimate, weight)
    torch.testing.assert_close(gradient, 2 * weight.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("data", [REAL, IMAGES], ids=["identity", "sigmoid"])
def test_mean_over_signs_is_the_jacobian(data, activation):
    """Value and gradient are those of the whole Jacobian of the mean of p(x|z)."""
    vae, _ = build(data, activation=activation)
    z = torch.randn(4, LATENTS)
    actual = mean_over_signs(vae, z)
    rows = [
        torch.autograd.functional.jacobian(lambda z: vae.likelihood.mean(vae.decode(z)), row[None], create_graph=True)
        for row in z
    ]
    expected = torch.stack([row.square().sum() for row in rows]).mean()
    assert actual.item() == pytest.approx(expected.item(), rel=1e-5)
    parameters = list(vae.decoder.parameters())
    pairs = (torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (actual, expected))
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(*(torch.zeros(1) if g is None else g for g in (a, b)), rtol=1e-3, atol=1e-6)


def test_signs_are_fair():
    torch.manual_seed(0)
    signs = random_signs(20_000, (2,), torch.device("cpu"))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert signs.mean().abs() < 0.02 and (signs[:, 0] * signs[:, 1]).mean().abs() < 0.03


@pytest.mark.parametrize("penalty", ["l2", "gp", "none"])
def test_loss_is_the_papers(penalty):
    vae, objective = build(REAL, beta=0.3, penalty=penalty, weight=0.7)
    batch = example(REAL)
    torch.manual_seed(5)
    output = objective(vae, batch, StepContext.initial())
    z = vae.encode(batch.x).z
    error = 0.5 * (batch.x - vae.decode(z)).square().sum(1).mean()
    constant = 0.5 * 5 * torch.log(torch.tensor(2 * torch.pi))  # of the Gaussian
    torch.manual_seed(5)
    penalties = {
        "l2": sum(p.square().sum() for p in vae.decoder.parameters()),
        "gp": jacobian_norm(vae, z, random_signs(6, (5,), z.device), batch),
        "none": torch.zeros(()),
    }
    expected = error + constant + 0.3 * 0.5 * z.square().sum(1).mean() + 0.7 * penalties[penalty]
    assert output.losses["vae"].item() == pytest.approx(expected.item(), rel=1e-5)
    metrics = {name: value.item() for name, value in output.metrics.items()}
    assert metrics["weighted_elbo"] == pytest.approx(-expected.item(), rel=1e-5)
    assert metrics["latent_norm"] == pytest.approx(0.5 * z.square().sum(1).mean().item(), rel=1e-5)
    assert metrics["reconstruction"] == pytest.approx((error + constant).item(), rel=1e-5) and metrics["kl"] == 0
    assert ("decoder_penalty" in metrics) == (penalty != "none")


def test_l2_reaches_the_decoder_alone():
    vae, _ = build(REAL)
    (with_penalty, without) = (
        torch.autograd.grad(
            RAE(1.0, penalty, 1.0)(vae, example(REAL), StepContext.initial()).losses["vae"], list(vae.parameters())
        )
        for penalty in ("l2", "none")
    )
    in_decoder = {id(p) for p in vae.decoder.parameters()}
    for p, a, b in zip(vae.parameters(), with_penalty, without, strict=True):
        expected = 2 * p.detach() if id(p) in in_decoder else torch.zeros_like(p)
        torch.testing.assert_close(a - b, expected, rtol=1e-3, atol=1e-4)


def test_gp_reaches_the_encoder():
    """The penalty depends on z, so it moves the encoder as well."""
    vae, _ = build(REAL)
    encoder = vae.inference_parameters()
    z = vae.encode(example(REAL).x).z
    gradients = torch.autograd.grad(jacobian_norm(vae, z, torch.ones(6, 5), example(REAL)), encoder)
    assert sum(g.abs().sum() for g in gradients) > 0


@pytest.mark.parametrize("penalty", ["l2", "none"])
def test_copies_of_a_batch_change_nothing(penalty):
    vae, objective = build(IMAGES, penalty=penalty)
    batch = example(IMAGES)
    one, two = (objective(vae, b, StepContext.initial()).losses["vae"].item() for b in (batch, repeat(batch, 3)))
    assert two == pytest.approx(one, rel=1e-6)


def test_gp_works_without_gradients():
    vae, objective = build(IMAGES, penalty="gp")
    vae.eval()
    with torch.no_grad():
        output = objective(vae, example(IMAGES), StepContext.initial())
    assert output.metrics["decoder_penalty"] > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"posterior": "diagonal", "prior": "normal"}, "objective=rae needs posterior=delta, not posterior=diagonal"),
        ({"posterior": "iaf", "prior": "normal"}, "objective=rae needs posterior=delta, not posterior=iaf"),
        ({"prior": "normal"}, "prior=normal needs a density of q"),
        ({"objective.beta": -1}, "objective.beta is -1"),
        ({"objective.weight": -1}, "objective.weight -1"),
    ],
    ids=str,
)
def test_bad_combinations_are_refused(options, words):
    with pytest.raises(VaezooError, match=words) as e:
        compose(configure(MLPParts(), RAE_PARTS | options), IMAGES)
    assert e.value.hint


def test_ladder_refuses_it():
    with pytest.raises(VaezooError, match="objective=rae needs posterior=delta"):
        LADDER.build(configure(LADDER.config, {"objective": "rae"}), IMAGES)


def test_gp_needs_a_smooth_mean():
    table = DataSpec(name="t", shape=(2,), kind="table", likelihood="table", columns=("a:real", "b:3"))
    with pytest.raises(UnsupportedDataError, match=r"objective.penalty=gp is not defined for data of kind table"):
        build(table, penalty="gp")
    vae, objective = build(table)
    assert objective(vae, example(table), StepContext.initial()).losses["vae"].isfinite()


def test_free_bits_are_refused():
    vae, objective = build(IMAGES)
    with pytest.raises(VaezooError, match="objective=rae has no KL that free bits"):
        objective(vae, example(IMAGES), StepContext.initial()._replace(free_bits=0.1))
