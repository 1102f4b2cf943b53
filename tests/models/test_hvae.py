"""The two-level hierarchy: densities against torch.distributions, its networks, its prior, and bad options."""

import pytest
import torch
from torch import distributions as D

from vaezoo import DataSpec, VaezooError
from vaezoo.core.options import configure
from vaezoo.errors import PluginError
from vaezoo.export.graphs import export_graphs
from vaezoo.export.parity import check_parity
from vaezoo.models.hvae import SPEC
from vaezoo.objectives.base import StepContext
from vaezoo.vae import example_batch

IMAGES = DataSpec(name="images", shape=(1, 4, 5), classes=(3,))
KINDS = [
    IMAGES,
    DataSpec(name="vectors", shape=(7,), kind="real", likelihood="gaussian:learned"),
    DataSpec(name="text", shape=(6,), kind="tokens", vocabulary=5, likelihood="categorical"),
]


def build(data=IMAGES, **options):
    """Builds a model whose networks have an effect, and its objective."""
    options = {"latents": "2,3", "hidden": "8,6"} | {name.replace("__", "."): v for name, v in options.items()}
    config = configure(SPEC.config, options)
    torch.manual_seed(0)
    vae, objective = SPEC.build(config, data), SPEC.objective(config, data)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.mul_(1.5)
    return vae, objective


def normal(raw):
    """The diagonal Gaussian of a network's output: means, and log-variances with a soft bound of 10."""
    mu, logvar = raw.chunk(2, 1)
    return D.Independent(D.Normal(mu, torch.exp(5 * torch.tanh(logvar / 10))), 1)


def gated(layer, x):
    return torch.nn.functional.glu(layer(x))


def by_hand(vae, x, z):
    """q(z_2|x), q(z_1|x, z_2), p(z_1|z_2) and the parameters of p(x|z_1, z_2), layer by layer."""
    upper, lower = z.split([2, 3], 1)
    x = x.flatten(1)
    one, _, two, _, out = vae.encoder.upper
    q_upper = normal(out(gated(two, gated(one, x))))
    joint = torch.cat([gated(vae.encoder.lower[0], x), gated(vae.head.above[0], upper)], 1)
    q_lower = normal(vae.head.joint[2](gated(vae.head.joint[0], joint)))
    one, _, two, _, out = vae.prior.networks[0]
    p_lower = normal(out(gated(two, gated(one, upper))))
    first, joint, _, out, unflatten = vae.decoder
    h = torch.cat([gated(layer[0], level) for layer, level in zip(first.layers, (upper, lower), strict=True)], 1)
    return q_upper, q_lower, p_lower, unflatten(out(gated(joint, h)))


@torch.no_grad()
def test_densities_follow_paper():
    vae, _ = build()
    x = torch.rand(6, 1, 4, 5)
    posterior = vae.encode(x)
    z = posterior.rsample()
    upper, lower = z.split([2, 3], 1)
    q_upper, q_lower, p_lower, params = by_hand(vae, x, z)
    p_upper = D.Independent(D.Normal(torch.zeros(2), 1.0), 1)
    torch.testing.assert_close(posterior.log_prob(z), q_upper.log_prob(upper) + q_lower.log_prob(lower))
    torch.testing.assert_close(vae.prior.log_prob(z), p_upper.log_prob(upper) + p_lower.log_prob(lower))
    kl = D.kl_divergence(q_upper, p_upper) + D.kl_divergence(q_lower, p_lower)
    torch.testing.assert_close(vae.prior.kl(posterior, z), kl, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vae.decode(z), params)


@torch.no_grad()
@pytest.mark.parametrize("level", [slice(0, 2), slice(2, 5)])
def test_decoder_sees_both_levels(level):
    vae, _ = build()
    z = torch.randn(1, 5)
    other = z.clone()
    other[:, level] += 1
    assert not torch.equal(vae.decode(z), vae.decode(other))


@torch.no_grad()
def test_vamp_prior_mixes_upper_posteriors():
    vae, _ = build(prior="vamp", prior__components=4)
    z = torch.randn(6, 5)
    components = by_hand(vae, torch.sigmoid(vae.prior.top.pseudo_inputs), torch.zeros(4, 5))[0]
    mixture = D.MixtureSameFamily(D.Categorical(torch.ones(4)), components)
    expected = mixture.log_prob(z[:, :2]) + by_hand(vae, torch.rand(6, 1, 4, 5), z)[2].log_prob(z[:, 2:])
    torch.testing.assert_close(vae.prior.log_prob(z), expected)


@pytest.mark.parametrize("data", KINDS, ids=lambda data: data.name)
def test_every_weight_is_trained(data):
    vae, objective = build(data)
    batch = example_batch(data, 6, torch.Generator().manual_seed(0))
    loss = objective(vae, batch, StepContext.initial()).losses["vae"]
    gradients = torch.autograd.grad(loss, list(vae.parameters()))
    assert loss.isfinite() and all(bool(g.abs().sum() > 0) for g in gradients)
    assert vae.reconstruct(*batch).shape == batch.x.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latents": "8"}, "option 'latents' has 1 values, but hvae has two levels"),
        ({"latents": "8,8,8"}, "option 'latents' has 3 values"),
        ({"latents": "8,0"}, "option 'latents' is 0"),
        ({"hidden": ""}, "option 'hidden' has 0 values"),
        ({"objective": "iwae", "objective__gradient": "dreg"}, "not that of hvae"),
        ({"objective": "iwae", "prior": "exemplar"}, "prior=exemplar trains with"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(VaezooError) as e:
        build(**options)
    assert message in e.value.message and e.value.hint and not isinstance(e.value, PluginError)


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["normal", "vamp"])
def test_graphs_equal_model(prior):
    vae, _ = build(prior=prior)
    rows, _ = check_parity(vae.eval(), export_graphs(vae))
    assert {row.graph for row in rows} == {"encoder", "decoder", "prior", "round trip"}
