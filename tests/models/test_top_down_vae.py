"""The convolutional top-down VAE: densities, the order of its layers, KL by layer, sizes, training and export."""

import copy

import pytest
import torch
from torch import distributions as D

from vaezoo import DataSpec, UnsupportedDataError, VaezooError
from vaezoo.core.options import configure
from vaezoo.data.base import Batch
from vaezoo.errors import PluginError
from vaezoo.export.graphs import export_graphs
from vaezoo.export.parity import check_parity
from vaezoo.models.top_down_vae import SPEC
from vaezoo.nn.top_down import resolutions
from vaezoo.objectives.base import StepContext
from vaezoo.posteriors.base import repeat

IMAGES = DataSpec(name="images", shape=(1, 8, 8))
SMALL = {"channels": 8, "latent_channels": 1, "layers": 2}
LAYERS, LATENTS = 6, 42  # two at 1x1, 2x2 and 4x4


def build(data=IMAGES, effect=3.0, **options):
    """Builds a model whose networks have an effect, and its objective."""
    config = configure(SPEC.config, SMALL | {name.replace("__", "."): v for name, v in options.items()})
    torch.manual_seed(0)
    vae, objective = SPEC.build(config, data), SPEC.objective(config, data)
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            parameter.add_(0.05 * effect * torch.randn(parameter.shape) if effect else 0.0)
            if name.startswith("head") and effect:
                parameter.mul_(1.5)
    return vae, objective


def gaussian(d):
    return D.Independent(D.Normal(d.mu, torch.exp(0.5 * d.logvar)), 3)


@torch.no_grad()
def test_densities_are_sums_over_layers():
    vae, _ = build()
    x = torch.rand(5, 1, 8, 8)
    posterior = vae.encode(x)
    z = posterior.rsample()
    draws = posterior.layers_at(z)
    assert len(draws) == LAYERS and z.shape == (5, LATENTS) == (5, *vae.latent_shape)
    torch.testing.assert_close(posterior.log_prob(z), sum(gaussian(d.q).log_prob(d.z) for d in draws))
    torch.testing.assert_close(vae.prior.log_prob(z), sum(gaussian(d.p).log_prob(d.z) for d in draws))
    kl = torch.stack([D.kl_divergence(gaussian(d.q), gaussian(d.p)) for d in draws], 1)
    torch.testing.assert_close(vae.prior.kl_terms(posterior, z), kl, rtol=1e-4, atol=1e-5)
    assert float(kl.min()) > 1e-3  # no layer is trivial here


@torch.no_grad()
def test_one_pass_gives_what_three_give():
    vae, _ = build()
    batch = Batch(torch.rand(5, 1, 8, 8))
    posterior = vae.infer(batch)
    output = vae(posterior, batch)
    torch.testing.assert_close(output.params, vae.decode(output.z))
    torch.testing.assert_close(output.kl_terms, vae.prior.kl_terms(posterior, output.z))
    at_sample = vae(posterior, batch, at_sample=True)
    expected = posterior.log_prob(at_sample.z) - vae.prior.log_prob(at_sample.z)
    torch.testing.assert_close(at_sample.kl_terms.sum(1), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_kl_equals_mean_of_estimate():
    vae, _ = build()
    posterior = repeat(vae.encode(torch.rand(1, 1, 8, 8)), 5_000)
    z = posterior.rsample()
    difference = vae.prior.kl(posterior, z) - (posterior.log_prob(z) - vae.prior.log_prob(z))
    error = float(difference.std()) / len(difference) ** 0.5
    assert abs(float(difference.mean())) < 4 * error < 0.1 * float(vae.prior.kl(posterior, z).mean())


def test_prior_density_is_change_of_variables():
    """log p(z) = log N(noise; 0, 1) - log |det dz / d noise|, and each layer depends on the layers above."""
    vae, _ = build(layers=1)
    vae = vae.double()
    noise = torch.randn(2, 21, dtype=torch.float64)
    jacobians = [torch.func.jacrev(lambda n: vae.prior.from_noise(n[None])[0])(row) for row in noise]
    expected = D.Normal(0.0, 1.0).log_prob(noise).sum(1) - torch.stack([j.slogdet().logabsdet for j in jacobians])
    torch.testing.assert_close(vae.prior.log_prob(vae.prior.from_noise(noise)), expected)
    (jacobian, _) = jacobians
    assert jacobian[1:5, :1].abs().min() > 0 and jacobian[5:, :5].abs().min() > 0
    assert jacobian[:1, 1:].abs().max() == jacobian[1:5, 5:].abs().max() == 0


@torch.no_grad()
def test_prior_starts_as_standard_normal():
    vae, _ = build(effect=0)
    z = torch.randn(4, LATENTS)
    torch.testing.assert_close(vae.prior.from_noise(z), z)
    torch.testing.assert_close(vae.prior.log_prob(z), D.Normal(0.0, 1.0).log_prob(z).sum(1))


@pytest.mark.parametrize("free_bits", [0.0, 0.7])
def test_free_bits_apply_to_layers(free_bits):
    vae, objective = build(effect=0)
    x = torch.rand(6, 1, 8, 8)
    torch.manual_seed(1)
    loss = objective(vae, Batch(x), StepContext.initial()._replace(free_bits=free_bits)).losses["vae"]
    torch.manual_seed(1)
    output = vae(vae.infer(Batch(x)), Batch(x))
    kl = output.kl_terms.mean(0).clamp(min=free_bits).sum()
    assert output.kl_terms.shape == (6, LAYERS) and output.kl_terms.mean(0).min() < 0.7
    torch.testing.assert_close(loss, kl - vae.likelihood.log_prob(output.params, x).mean())


def test_every_weight_is_trained():
    vae, objective = build()
    loss = objective(vae, Batch(torch.rand(6, 1, 8, 8)), StepContext.initial()).losses["vae"]
    gradients = torch.autograd.grad(loss, list(vae.parameters()))
    assert loss.isfinite()
    assert all(bool((g.reshape(len(g), -1).abs().sum(1) > 0).all()) for g in gradients)  # each output of each layer
    inference = {id(p) for p in vae.inference_parameters()}
    assert len(inference) == len([*vae.encoder.parameters(), *vae.head.parameters()])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((8, 8), [(4, 4), (2, 2), (1, 1)]),
        ((28, 28), [(14, 14), (7, 7), (3, 3), (1, 1)]),
        ((9, 64), [(4, 32), (2, 16), (1, 1)]),
        ((64, 64), [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]),
    ],
)
@torch.no_grad()
def test_resolutions_halve(size, expected):
    assert resolutions(*size) == [size, *expected]
    data = DataSpec(name="images", shape=(3, *size), kind="real", likelihood="gaussian")
    vae, _ = build(data, layers=1)
    assert vae.reconstruct(torch.randn(2, 3, *size)).shape == vae.sample(2).shape == (2, 3, *size)


@pytest.mark.parametrize("data", [(1, 7, 8), (1, 8, 65), (64,), (1, 64)])
def test_other_data_are_refused(data):
    with pytest.raises(UnsupportedDataError) as e:
        build(DataSpec(name="data", shape=data))
    assert e.value.hint and not isinstance(e.value, PluginError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 3}, "option 'channels' is 3"),
        ({"layers": 0}, "option 'layers' is 0"),
        ({"latent_channels": 0}, "option 'latent_channels' is 0"),
        ({"objective": "iwae", "objective__gradient": "dreg"}, "not that of top-down-vae"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(VaezooError) as e:
        build(**options)
    assert message in e.value.message and e.value.hint


@torch.no_grad()
def test_copies_have_their_own_decoder():
    vae, _ = build()
    copied = copy.deepcopy(vae)
    for parameter in copied.decoder.parameters():
        parameter.zero_()
    z = torch.randn(2, LATENTS)
    assert not torch.equal(copied.prior.log_prob(z), vae.prior.log_prob(z))
    assert not [name for name in vae.state_dict() if name.startswith("prior")]


@torch.no_grad()
def test_terms_are_float32_under_bf16():
    vae, _ = build()
    batch = Batch(torch.rand(4, 1, 8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        output = vae(vae.infer(batch), batch)
    assert {output.z.dtype, output.params.dtype, output.kl_terms.dtype} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("shape", [pytest.param((1, 8, 8), marks=pytest.mark.matrix), (3, 13, 18)])
def test_graphs_equal_model(shape):
    vae, _ = build(DataSpec(name="images", shape=shape), effect=1.0)
    rows, _ = check_parity(vae.eval(), export_graphs(vae))
    assert {row.graph for row in rows} == {"encoder", "decoder", "prior", "round trip"}
