"""The parts of composed models: densities, gradients and noise against closed forms."""

import math

import pytest
import torch

from vaezoo.composition import MLPParts, compose, composed_objective
from vaezoo.core.options import configure
from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.objectives.base import StepContext
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.objectives.factor_vae import halves, permute_dims
from vaezoo.objectives.iwae import IWAE, DReG
from vaezoo.posteriors.base import map_tensors, repeat
from vaezoo.posteriors.full_gaussian import FullGaussianHead
from vaezoo.posteriors.iaf import IAFPart, InverseAutoregressiveFlow
from vaezoo.posteriors.made import MADE
from vaezoo.priors.mixture import LearnedMixture
from vaezoo.priors.realnvp import RealNVP
from vaezoo.registry import find_model, list_models

DATA = DataSpec(name="images", shape=(1, 4, 4), classes=(3,))
X = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def build(options):
    torch.manual_seed(1)
    config = configure(MLPParts(hidden=(16,), latent_dim=3), options)
    return compose(config, DATA), composed_objective(config, DATA)


def test_full_density():
    torch.manual_seed(0)
    head = FullGaussianHead((3,))
    posterior = head(torch.randn(5, *head.inputs))
    expected = torch.distributions.MultivariateNormal(posterior.mu, scale_tril=posterior.scale)
    z = posterior.rsample()
    assert torch.allclose(posterior.log_prob(z), expected.log_prob(z), atol=1e-4)


def test_full_covariance():
    torch.manual_seed(0)
    head = FullGaussianHead((3,))
    posterior = repeat(head(torch.randn(1, *head.inputs) / 3), 100_000)
    covariance = posterior.scale[0] @ posterior.scale[0].T
    assert torch.allclose(torch.cov(posterior.rsample().T), covariance, rtol=0.05, atol=0.02)


def test_made_is_autoregressive():
    made = MADE(4, 2, 16, 2)
    jacobian = torch.autograd.functional.jacobian(lambda z: made(z, torch.ones(1, 2))[1], torch.randn(1, 4))[0, :, 0]
    assert torch.equal(jacobian.triu(), torch.zeros(4, 4)) and jacobian.tril(-1).abs().sum() > 0


def test_iaf_determinant():
    torch.manual_seed(0)
    flow, context, z = InverseAutoregressiveFlow(4, 3, 16, 3), torch.randn(1, 3), torch.randn(1, 4)
    jacobian = torch.autograd.functional.jacobian(lambda z: flow(z, context)[0], z)[0, :, 0]
    assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(flow(z, context)[1].item(), abs=1e-5)


def test_iaf_density_integrates():
    """The density of the draws is that of their histogram, on a line."""
    torch.manual_seed(0)
    head = IAFPart(steps=2, hidden=8, context=2).head((1,))
    posterior = repeat(head(torch.randn(1, *head.inputs)), 200_000)
    z, log_q = posterior.rsample_and_log_prob()
    counts, edges = torch.histogram(z.flatten(), bins=60, density=True)
    index = torch.bucketize(z.flatten(), edges[1:-1])
    expected = torch.zeros(60).index_add_(0, index, log_q.exp().detach()) / index.bincount(minlength=60).clamp(min=1)
    common = index.bincount(minlength=60) > 3_000
    assert torch.allclose(expected[common], counts[common], rtol=0.1)


def test_realnvp_density():
    torch.manual_seed(0)
    prior, noise = RealNVP(4, 16, 3), torch.randn(1, 4)
    jacobian = torch.autograd.functional.jacobian(prior.from_noise, noise)[0, :, 0]
    expected = -0.5 * (noise.square() + math.log(2 * math.pi)).sum() - torch.linalg.slogdet(jacobian)[1]
    assert prior.log_prob(prior.from_noise(noise)).item() == pytest.approx(expected.item(), abs=1e-4)


def test_mixture_density_and_noise():
    """The density integrates to one, and samples from noise have its entropy."""
    torch.manual_seed(0)
    prior = LearnedMixture(2, 3)
    with torch.no_grad():
        prior.weight_logits.copy_(torch.tensor([0.0, 1.0, -1.0]))
        prior.mu.mul_(3)
        line = torch.linspace(-14, 14, 281)
        grid = prior.log_prob(torch.cartesian_prod(line, line))
        entropy = -(grid.exp() * grid).sum() * 0.01
        samples = prior.sample(100_000)
        assert float(grid.exp().sum() * 0.01) == pytest.approx(1, abs=1e-3)
        assert -prior.log_prob(samples).mean().item() == pytest.approx(entropy.item(), abs=0.02)


def test_conditional_prior_closed_form():
    vae, _ = build({"prior": "conditional"})
    batch = repeat(Batch(X, torch.tensor([0, 1, 2])), 20_000)
    with torch.no_grad():
        vae.prior.logvar.weight.uniform_(-0.5, 0.5)
        of_labels = torch.distributions.Normal(vae.prior.mu.weight, (0.5 * vae.prior.logvar.weight).exp())
        z = torch.randn(len(vae.prior.mu.weight), 3)
        labels = torch.arange(len(z))
        torch.testing.assert_close(vae.prior.log_prob(z, labels), of_labels.log_prob(z).sum(1))
        posterior = vae.infer(batch)
        z = posterior.rsample()
        estimate = posterior.log_prob(z) - vae.prior.log_prob(z, batch.y)
        assert vae.prior.kl(posterior, z, batch.y).mean() == pytest.approx(estimate.mean().item(), abs=0.02)


@pytest.mark.parametrize(
    ("posterior", "prior"),
    [
        *(
            (posterior, "normal")
            for posterior in ("diagonal", "full", "iaf", "planar", "radial", "student", "hamiltonian")
        ),
        ("vmf", "sphere"),
        ("poincare", "poincare"),
    ],
)
def test_one_sample_is_elbo(posterior, prior):
    vae, _ = build({"posterior": posterior, "prior": prior})
    torch.manual_seed(3)
    bound = IWAE(1)(vae, Batch(X), StepContext.initial())
    torch.manual_seed(3)
    terms = elbo_terms(vae, Batch(X), at_sample=True)
    assert bound.losses["vae"].item() == pytest.approx(-terms.metrics["elbo"].item(), abs=1e-5)
    assert bound.metrics["iwae"].item() == pytest.approx(terms.metrics["elbo"].item(), abs=1e-5)


def test_more_samples_are_tighter():
    vae, _ = build({})
    batch = repeat(Batch(X), 2_000)
    with torch.no_grad():
        one, many = (IWAE(k)(vae, batch, StepContext.initial()).metrics["iwae"].item() for k in (1, 16))
    assert many > one + 0.01


def test_warmup_keeps_metrics():
    """The reported bound is that of the full KL, whatever the warm-up."""
    vae, _ = build({})
    values = []
    for weight in (0.0, 1.0):
        torch.manual_seed(3)
        step = StepContext.initial()._replace(kl_weight=torch.tensor(weight))
        values.append(IWAE(4)(vae, Batch(X), step).metrics["iwae"].item())
    assert values[0] == values[1]


def test_free_bits_are_refused():
    vae, _ = build({})
    with pytest.raises(VaezooError, match="no KL that free bits"):
        IWAE(4)(vae, Batch(X), StepContext.initial()._replace(free_bits=0.1))


def test_dreg_gradient_by_hand():
    """Equation 8 of the paper for the encoder, and the normalised weights for the decoder."""
    k = 4
    vae, _ = build({})
    encoder = vae.inference_parameters()
    held = {id(p) for p in encoder}
    decoder = [p for p in vae.parameters() if id(p) not in held]
    torch.manual_seed(5)
    loss = DReG(k)(vae, Batch(X), StepContext.initial()).losses["vae"]
    actual = torch.autograd.grad(loss, [*encoder, *decoder])
    torch.manual_seed(5)
    posterior, x = repeat(vae.infer(Batch(X)), k), X.repeat_interleave(k, 0)
    z = posterior.rsample()
    leaf, fixed = z.detach().requires_grad_(), map_tensors(posterior, torch.Tensor.detach)
    log_w = vae.likelihood.log_prob(vae.decode(leaf), x) + vae.prior.log_prob(leaf) - fixed.log_prob(leaf)
    weights = torch.softmax(log_w.view(-1, k), 1).flatten().detach()
    (dz,) = torch.autograd.grad(log_w.sum(), leaf, retain_graph=True)
    surrogate = -(weights.square()[:, None] * dz * z).sum() / len(X)
    expected = [
        *torch.autograd.grad(surrogate, encoder),
        *torch.autograd.grad(-(weights * log_w).sum() / len(X), decoder),
    ]
    for a, b in zip(actual, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def test_dreg_is_unbiased():
    """The mean gradient of the encoder is that of IWAE, with less variance."""
    vae, _ = build({})
    encoder = vae.inference_parameters()

    def gradients(objective):
        torch.manual_seed(9)
        rows = []
        for _ in range(600):
            loss = objective(vae, Batch(X), StepContext.initial()).losses["vae"]
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, encoder)]))
        return torch.stack(rows)

    plain, dreg = gradients(IWAE(4)), gradients(DReG(4))
    error = ((plain.var(0) + dreg.var(0)) / len(plain)).sqrt()
    used = error > 1e-8
    deviation = ((plain.mean(0) - dreg.mean(0)).abs() / error)[used].mean().item()
    assert 0.5 < deviation < 1.2  # 0.8 for independent Gaussians
    assert dreg.var(0).sum() < plain.var(0).sum() / 2


def test_permuted_dims():
    """Each dimension keeps its values, and the dimensions become independent."""
    torch.manual_seed(0)
    z = torch.randn(5_000, 1) @ torch.ones(1, 3) + 0.1 * torch.randn(5_000, 3)
    permuted = permute_dims(z)
    assert torch.equal(permuted.sort(0).values, z.sort(0).values)
    assert torch.corrcoef(permuted.T)[0, 1].abs() < 0.05 < torch.corrcoef(z.T)[0, 1]


def test_factor_discriminator_estimates():
    """For correlated Gaussian latents the discriminator's log-odds are near the known total correlation."""
    torch.manual_seed(0)
    _, objective = build({"objective": "factor", "objective.hidden": 32})
    rho = 0.8
    root = torch.linalg.cholesky(torch.tensor([[1, rho, 0], [rho, 1, 0], [0, 0, 1.0]]))
    optimizer = torch.optim.Adam(objective.discriminator.parameters(), lr=3e-3)
    for _ in range(400):
        z, other = (torch.randn(512, 3) @ root.T for _ in range(2))
        real, fake = objective.discriminator(z), objective.discriminator(permute_dims(other))
        loss = torch.nn.functional.cross_entropy(torch.cat([real, fake]), torch.arange(2).repeat_interleave(512))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = objective.discriminator(torch.randn(20_000, 3) @ root.T)
    expected = -0.5 * math.log(1 - rho**2)
    assert (logits[:, 0] - logits[:, 1]).mean().item() == pytest.approx(expected, abs=0.12)


# No KL to weight, a weight of another name, a beta of one part of the KL, or a KL of labels, too.
WITHOUT_BETA = {"autoencoder", "autoencoder-kl", "iwae", "miwae", "piwae", "ciwae", "rae", "vq-vae", "wae", "swae"}
WITHOUT_BETA |= {"aae", "beta-tc-vae", "m2-vae", "tiny-autoencoder"}
WITHOUT_BETA |= {"vq-vae-2", "fsq-vae", "lfq-vae", "residual-vq-vae", "vq-autoencoder", "autoencoder-dc"}


@pytest.mark.parametrize("name", [r.name for r in list_models() if r.built_in and r.name not in WITHOUT_BETA])
def test_beta_weights_the_kl_of_each_model(name):
    data, x = DATA, X
    if name == "sentence-vae":
        data = DataSpec(name="t", shape=(4,), kind="tokens", likelihood="categorical", vocabulary=5)
        x = torch.ones(3, 4, dtype=torch.int64)
    elif name in ("conv1d-vae", "time-vae"):
        data, x = DataSpec(name="s", shape=(2, 16), kind="real", likelihood="gaussian"), torch.randn(3, 2, 16)
    elif name == "waveform-vae":
        data, x = DataSpec(name="w", shape=(1, 1024), kind="real", likelihood="gaussian"), torch.randn(3, 1, 1024)
    elif name == "tvae":
        data = DataSpec(name="t", shape=(2,), kind="table", likelihood="table:modes", columns=("a:real", "b:3"))
        x = torch.tensor([[0.1, 0], [0.5, 1], [-1.0, 2]])
    elif name == "scvi":
        data, x = DataSpec(name="c", shape=(4,), kind="count", likelihood="nb"), torch.tensor([[1.0, 0, 9, 2]] * 3)
    elif name not in ("mlp-vae", "cvae", "iaf-vae", "vamp-vae", "ladder-vae", "s-vae", "poincare-vae"):
        data, x = DataSpec(name="images", shape=(1, 8, 8)), torch.rand(3, 1, 8, 8)

    def loss(beta):
        torch.manual_seed(0)
        _, vae, objective = find_model(name).build({"beta": beta}, data)
        torch.manual_seed(0)
        output = objective.eval()(vae.eval(), Batch(x, torch.tensor([0, 1, 2])), StepContext.initial())
        return next(iter(output.losses.values())).item(), output.metrics["kl"].item()

    (one, kl), (three, _) = loss(1), loss(3.0)
    assert kl and three - one == pytest.approx(2 * kl, rel=1e-2)


def test_short_names_of_options():
    config = configure(MLPParts(), {"beta": 4, "objective": "elbo", "prior": "vamp", "components": 7})
    assert config == configure(MLPParts(), {"objective.beta": 4, "prior": "vamp", "prior.components": 7})
    assert configure(MLPParts(), {"objective": "factor", "hidden": 8}).hidden == (8,)  # that of the network
    with pytest.raises(VaezooError, match="no option named 'k'"):
        configure(MLPParts(), {"k": 5})
    with pytest.raises(VaezooError, match="no option named 'components'"):
        configure(MLPParts(), {"components": 5})
    assert configure(MLPParts(), {"objective": "iwae", "k": 5}).objective.k == 5


class Product(torch.nn.Module):
    """Tells dependent latents from permuted ones by the product of two of them."""

    def forward(self, z):
        return torch.stack([torch.tanh(z[:, 0] * z[:, 1]), torch.zeros(len(z))], 1)


def test_factor_adds_the_total_correlation():
    """The loss grows with the log-odds that z is not permuted, and the discriminator's falls with them."""
    vae, objective = build({"objective": "factor", "objective.gamma": 3.0, "objective.beta": 2.0})
    x = torch.rand(400, 1, 4, 4)
    layer = [m for m in vae.encoder if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():  # all latents are one function of x, with hardly any noise
        layer.weight[:3], layer.bias[:3] = 20 * layer.weight[:1], 0
        layer.weight[3:], layer.bias[3:] = 0, -100
        layer.bias[:3] = -vae.encode(x).mu.mean(0)
    objective.discriminator = Product()
    output = objective(vae, Batch(x), StepContext.initial())
    metrics = {name: value.item() for name, value in output.metrics.items()}
    mu = vae.encode(x[:200]).mu
    expected = torch.tanh(mu[:, 0].square()).mean().item()
    assert metrics["total_correlation"] == pytest.approx(expected, rel=0.05) and expected > 0.2
    loss = metrics["reconstruction"] + 2 * metrics["kl"] + 3 * metrics["total_correlation"]
    assert output.losses["vae"].item() == pytest.approx(loss, rel=1e-4)
    assert output.losses["discriminator"] < 0.95 * math.log(2)


def test_factor_groups():
    """The VAE's loss has no gradient of the discriminator's group by mistake, and the halves are disjoint."""
    vae, objective = build({"objective": "factor", "objective.hidden": 8})
    groups = objective.parameter_groups(vae)
    assert not {id(p) for p in groups["vae"]} & {id(p) for p in groups["discriminator"]}
    first, second = halves(Batch(torch.arange(7.0), torch.arange(7)))
    assert first.x.tolist() == [0, 1, 2] and second.x.tolist() == [3, 4, 5, 6]
    output = objective(vae, Batch(X), StepContext.initial())
    assert all(g is None for g in torch.autograd.grad(output.losses["discriminator"], groups["vae"], allow_unused=True))


def test_an_option_comes_once():
    with pytest.raises(VaezooError, match=r"option 'objective.beta' is given twice"):
        find_model("mlp-vae").build({"beta": 1, "objective.beta": 2}, DATA)
