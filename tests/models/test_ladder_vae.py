"""The ladder VAE: densities against torch.distributions, the closed-form KL, its parts, training and export."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import distributions as D

import vaezoo
from vaezoo import DataSpec, TrainConfig, Trainer, VaezooError
from vaezoo.core.compile import compiling
from vaezoo.core.options import configure
from vaezoo.data.base import Batch, TensorSplit
from vaezoo.errors import PluginError
from vaezoo.evaluation.likelihood import elbo, negative_log_likelihood
from vaezoo.export.graphs import export_graphs
from vaezoo.export.parity import check_parity
from vaezoo.models.ladder_vae import SPEC
from vaezoo.nn.hierarchy import HierarchicalVAE
from vaezoo.objectives.base import StepContext
from vaezoo.posteriors.base import repeat
from vaezoo.vae import example_batch

IMAGES = DataSpec(name="images", shape=(1, 4, 5), classes=(3,))
COLUMNS = ("a:real", "b:3", "c:real")
KINDS = [
    IMAGES,
    DataSpec(name="vectors", shape=(7,), kind="real", likelihood="gaussian:learned"),
    DataSpec(name="series", shape=(2, 6), kind="real", likelihood="gaussian"),
    DataSpec(name="text", shape=(6,), kind="tokens", vocabulary=5, likelihood="categorical"),
    DataSpec(name="table", shape=(3,), kind="table", columns=COLUMNS, likelihood="table"),
]
INFERENCE = ["ladder", "networks"]


def build(data=IMAGES, **options):
    """Builds a model with three levels whose networks have an effect, and its objective."""
    options = {"latents": "2,3,4", "hidden": "8"} | {name.replace("__", "."): v for name, v in options.items()}
    config = configure(SPEC.config, options)
    torch.manual_seed(0)
    vae, objective = SPEC.build(config, data), SPEC.objective(config, data)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.mul_(1.5)
    return vae, objective


def batch_of(data, n=6):
    return example_batch(data, n, torch.Generator().manual_seed(0))


def normal(logits):
    """The diagonal Gaussian of a network's output: means, and log-variances with a soft bound of 10."""
    mu, raw = logits.chunk(2, 1)
    return mu, 10 * torch.tanh(raw / 10)


def levels_by_hand(vae, x, z, inference):
    """For each level z, q and p, written down from the paper."""
    parts = z.split([2, 3, 4], 1)
    h, evidence = vae.data.features(x).flatten(1), []
    for network, output in zip(vae.encoder.networks, vae.encoder.outputs, strict=True):
        h = network(h)
        evidence.insert(0, output(h))
    mu, logvar = normal(evidence[0])
    levels = [(parts[0], D.Normal(mu, (0.5 * logvar).exp()), D.Normal(torch.zeros(2), 1.0))]
    for i, (above, part) in enumerate(pairwise(parts)):
        n, log_p = normal(vae.prior.networks[i](above))
        if inference == "ladder":
            m, log_e = normal(evidence[i + 1])
            a, b = 1 / log_e.exp(), 1 / log_p.exp()
            q = D.Normal((a * m + b * n) / (a + b), (1 / (a + b)).sqrt())
        else:
            m, log_q = normal(vae.head.networks[i](torch.cat([evidence[i + 1], above], 1)))
            q = D.Normal(m, (0.5 * log_q).exp())
        levels.append((part, q, D.Normal(n, (0.5 * log_p).exp())))
    return levels


@pytest.mark.parametrize("inference", INFERENCE)
@torch.no_grad()
def test_densities_follow_paper(inference):
    vae, _ = build(inference=inference)
    x = torch.rand(6, 1, 4, 5)
    posterior = vae.encode(x)
    z = posterior.rsample()
    levels = levels_by_hand(vae, x, z, inference)
    torch.testing.assert_close(posterior.log_prob(z), sum(q.log_prob(part).sum(1) for part, q, _ in levels))
    torch.testing.assert_close(vae.prior.log_prob(z), sum(p.log_prob(part).sum(1) for part, _, p in levels))
    kl = torch.cat([D.kl_divergence(q, p) for _, q, p in levels], 1)
    torch.testing.assert_close(vae.prior.kl_terms(posterior, z), kl, rtol=1e-4, atol=1e-5)
    assert kl.shape == (6, 9)
    mode = posterior.mode()
    torch.testing.assert_close(mode, torch.cat([q.mean for _, q, _ in levels_by_hand(vae, x, mode, inference)], 1))


@pytest.mark.parametrize("inference", INFERENCE)
@torch.no_grad()
def test_samples_follow_density(inference):
    """Each level of a draw is standard normal once it is standardised given the level above."""
    vae, _ = build(inference=inference)
    x = torch.rand(1, 1, 4, 5)
    z = repeat(vae.encode(x), 20_000).rsample()
    levels = levels_by_hand(vae, x.expand(20_000, -1, -1, -1), z, inference)
    noise = torch.cat([(part - q.mean) / q.stddev for part, q, _ in levels], 1)
    torch.testing.assert_close(noise.mean(0), torch.zeros(9), atol=0.03, rtol=0)
    torch.testing.assert_close(noise.T.cov(), torch.eye(9), atol=0.05, rtol=0)


@pytest.mark.parametrize("options", [{}, {"inference": "networks"}, {"prior": "mixture", "prior__components": 3}])
@torch.no_grad()
def test_kl_equals_mean_of_estimate(options):
    vae, _ = build(**options)
    batch = repeat(Batch(torch.rand(1, 1, 4, 5), None), 20_000)
    posterior = vae.infer(batch)
    z = posterior.rsample()
    kl = vae.prior.kl(posterior, z)
    difference = kl - (posterior.log_prob(z) - vae.prior.log_prob(z))
    error = float(difference.std()) / len(difference) ** 0.5
    assert abs(float(difference.mean())) < 4 * error < 0.1 * float(kl.mean())
    at_sample = vae(posterior, batch, at_sample=True)
    torch.testing.assert_close(
        at_sample.kl_terms.sum(1), posterior.log_prob(at_sample.z) - vae.prior.log_prob(at_sample.z)
    )


@pytest.mark.parametrize("prior", ["normal", "realnvp"])
def test_noise_follows_density(prior):
    """log p(z) = log N(noise; 0, 1) - log |det dz / d noise|, exactly."""
    vae, _ = build(prior=prior)
    noise = torch.randn(5, *vae.prior.noise_shape)
    z = vae.prior.from_noise(noise)
    jacobians = [torch.func.jacrev(lambda n: vae.prior.from_noise(n[None])[0])(row) for row in noise]
    expected = D.Normal(0.0, 1.0).log_prob(noise).sum(1) - torch.stack([j.slogdet().logabsdet for j in jacobians])
    torch.testing.assert_close(vae.prior.log_prob(z), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_decoder_sees_lowest_or_all():
    z = torch.randn(1, 9)
    other = z + torch.tensor([[1.0] * 5 + [0.0] * 4])
    lowest, whole = (build(decoder_levels=levels)[0] for levels in ("lowest", "all"))
    assert torch.equal(lowest.decode(z), lowest.decode(other))
    assert not torch.equal(whole.decode(z), whole.decode(other))


@torch.no_grad()
def test_vamp_prior_mixes_top_levels():
    vae, _ = build(prior="vamp", prior__components=4)
    z = torch.randn(6, 9)
    mu, logvar = normal(vae.encode(torch.sigmoid(vae.prior.top.pseudo_inputs)).evidence[:, :4])
    component = D.Independent(D.Normal(mu, (0.5 * logvar).exp()), 1)
    mixture = D.MixtureSameFamily(D.Categorical(torch.ones(4)), component)
    torch.testing.assert_close(vae.prior.top.log_prob(z[:, :2]), mixture.log_prob(z[:, :2]))
    assert not any("whole" in name for name in vae.state_dict())
    copied = copy.deepcopy(vae)
    for parameter in copied.encoder.parameters():
        parameter.zero_()
    assert not torch.equal(copied.prior.log_prob(z), vae.prior.log_prob(z))  # it encodes with the copy's weights


@torch.no_grad()
def test_label_prior_is_given_labels():
    vae, objective = build(prior="conditional")
    with torch.random.fork_rng():
        vae.prior.top.mu.weight.copy_(torch.tensor([[0.0], [50.0], [100.0]]).expand(3, 2))
    z = vae.prior.sample(3, torch.arange(3))
    torch.testing.assert_close(z[:, :2].mean(1), torch.tensor([0.0, 50.0, 100.0]), atol=20, rtol=0)
    assert vae.sample(4).shape == (4, 1, 4, 5)
    assert objective(vae, batch_of(IMAGES), StepContext.initial()).losses["vae"].isfinite()


@pytest.mark.parametrize("data", KINDS, ids=lambda data: data.name)
@pytest.mark.parametrize("inference", INFERENCE)
def test_data_of_every_kind(data, inference):
    vae, objective = build(data, inference=inference)
    batch = batch_of(data)
    loss = objective(vae, batch, StepContext.initial()).losses["vae"]
    gradients = torch.autograd.grad(loss, list(vae.parameters()))
    assert loss.isfinite() and all(bool(g.abs().sum() > 0) for g in gradients)
    assert vae.decode(vae.prior.sample(3)).shape == (3, *data.params_shape)
    assert vae.reconstruct(*batch).shape == batch.x.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latents": "8"}, "option 'latents' has 1 values"),
        ({"latents": "8,0"}, "option 'latents' is 0"),
        ({"hidden": ""}, "option 'hidden' has 0 values"),
        ({"objective": "iwae", "objective__gradient": "dreg"}, "objective=iwae needs a posterior"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(VaezooError) as e:
        build(**options)
    assert message in e.value.message and e.value.hint and not isinstance(e.value, PluginError)


def test_likelihood_estimate_is_tighter(digits):
    vae, _ = build(digits.spec)
    split = TensorSplit(digits.valid.x[:20], None)
    bound, nll = elbo(vae, split).elbo, negative_log_likelihood(vae, split, num_samples=200)
    assert len(elbo(vae, split, num_samples=1).kl_terms) == 9
    assert nll.value < -bound.value


def trainer_of(digits, **settings):
    options = {name: settings.pop(name) for name in ("prior", "prior__components", "inference") if name in settings}
    vae, objective = build(digits.spec, **options)
    return Trainer(vae, objective, digits, TrainConfig(batch_size=50, steps=40, lr=2e-3, **settings))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_lowers_loss(precision, digits):
    trainer = trainer_of(digits, precision=precision, compile="off")
    reports = []
    trainer.on_report = reports.append
    trainer.eval_every = 20
    trainer.fit()
    first, last = [report.metrics["elbo"] for report in reports if report.split == "valid"]
    assert last > first
    z = trainer.vae(trainer.vae.infer(batch_of(digits.spec)), batch_of(digits.spec))
    assert {t.dtype for t in (z.z, z.params, z.kl_terms)} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"inference": "networks", "prior": "vamp", "prior__components": 3}], ids=["ladder", "networks"]
)
def test_step_is_one_graph(options, digits):
    """A step that is traced as one graph changes all weights as the eager one does."""
    weights = []
    for traced in (False, True):
        step = trainer_of(digits, compile="off", **options).train_step
        update = torch.compile(step.update, backend="eager", fullgraph=True) if traced else step.update
        with compiling():
            for i in range(3):
                torch.manual_seed(i)
                update(digits.train.batch(slice(0, 20)), step.prepare(i))
        assert not step.found_inf
        weights.append(torch.cat([p.detach().flatten() for p in step.vae.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)


@pytest.mark.matrix
def test_compiled_training_agrees(digits):
    metrics = []
    for how in ("off", "on"):
        trainer = trainer_of(digits, compile=how)
        reports = []
        trainer.on_report = reports.append
        trainer.fit()
        metrics.append(reports[-1].metrics)
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("data", "inference"), [(KINDS[0], "ladder"), (KINDS[3], "networks")], ids=INFERENCE)
def test_graphs_equal_model(data, inference):
    vae, _ = build(data, inference=inference)
    rows, _ = check_parity(vae.eval(), export_graphs(vae))
    assert {row.graph for row in rows} == {"encoder", "decoder", "prior", "round trip"}


@pytest.mark.slow
def test_export_runs_without_torch(digits, tmp_path):
    options = {"latents": "2,3", "hidden": "8"}
    config = TrainConfig(steps=2, batch_size=50, compile="off")
    run = vaezoo.train("ladder-vae", digits, options=options, config=config, out=tmp_path / "run")
    assert isinstance(run.vae, HierarchicalVAE)
    vaezoo.export_onnx(run, tmp_path / "export")
    model = vaezoo.runtime.load(tmp_path / "export")
    x = digits.test.batch(slice(0, 3)).x
    encoded = model.encode(x.numpy())
    assert list(encoded) == ["mode", "logvar"]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(model.reconstruct(x.numpy())), run.vae.eval().reconstruct(x))
    assert model.sample(5).shape == (5, 1, 28, 28)
