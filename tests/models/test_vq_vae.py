"""VQ-VAE: codes against brute force, the codebook and gradients by hand, the guard, training and export."""

import math

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo import DataSpec, TrainConfig, Trainer, UnsupportedDataError, VaezooError
from vaezoo.core.compile import compiling
from vaezoo.core.options import configure
from vaezoo.data.base import Batch, TensorSplit
from vaezoo.errors import DivergedError, PluginError
from vaezoo.evaluation.likelihood import elbo, negative_log_likelihood
from vaezoo.export.graphs import export_graphs
from vaezoo.export.parity import check_parity
from vaezoo.models.vq_vae import SPEC
from vaezoo.nn.codes import GridVAE
from vaezoo.nn.quantizers.codebooks import EMACodebook, GradientCodebook
from vaezoo.objectives.base import StepContext
from vaezoo.objectives.vq import count_codes, perplexity
from vaezoo.posteriors.codes import Codes
from vaezoo.priors.codes import UniformCodes

DATA = DataSpec(name="images", shape=(1, 8, 8))
SMALL = {"codebook_size": 16, "code_dim": 4, "channels": "8,8", "residual_blocks": 1, "residual_channels": 4}


def build(data=DATA, seed=0, **options):
    config = configure(SPEC.config, SMALL | options)
    torch.manual_seed(seed)
    return SPEC.build(config, data), SPEC.objective(config, data)


def images(n=6, seed=0):
    return Batch(torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed)))


def codebook_of(vectors):
    codebook = EMACodebook(*vectors.shape, commitment=0.25, decay=0.9, revive_below=0.0)
    codebook.set_vectors(vectors)
    return codebook


def rows(features):
    """Features `(B, d, h, w)` as `(B h w, d)`."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


# --- Quantisation ---


def excess(features, codes, vectors):
    """How much further than the nearest vector the one with the code is, as a share of the squared distances' scale."""
    points, vectors = rows(features).double(), vectors.double()
    distances = (points[:, None] - vectors).square().sum(2)
    scale = (points - vectors.mean(0)).square().sum(1)
    return (distances.gather(1, codes.view(-1, 1))[:, 0] - distances.amin(1)) / scale


@pytest.mark.parametrize(("scale", "mean"), [(1e-3, 0.0), (1.0, 0.0), (1e3, 0.0), (1.0, 100.0)])
def test_codes_are_nearest_vectors(scale, mean):
    torch.manual_seed(0)
    vectors, features = (mean + scale * torch.randn(*shape) for shape in ((50, 6), (4, 6, 5, 7)))
    codes = codebook_of(vectors).nearest(features)
    assert codes.shape == (4, 5, 7) and codes.dtype == torch.int64
    assert float(excess(features, codes, vectors).max()) == 0
    assert torch.equal(rows(codebook_of(vectors).embed(codes)), vectors[codes.flatten()])


@pytest.mark.parametrize(("offset", "code"), [(0.0, 1), (1e-6, 1), (1e-4, 2)])
def test_ties_go_to_first(offset, code):
    """Vector 2 is nearer than vector 1 by a share `offset` of the squared lengths of point and vector, 4 each."""
    point = torch.tensor([1.0, -1.0, 1.0, -1.0])
    first = point + torch.tensor([0.1, 0.1, 0, 0])
    second = point + torch.tensor([0, 0, 1.0, 1.0]) * (0.01 - 4 * offset) ** 0.5
    vectors = torch.stack([-first, first, second, -second])  # their mean is 0
    assert int(codebook_of(vectors).nearest(point.view(1, 4, 1, 1))) == code


@torch.no_grad()
def test_quantisation_ignores_autocast():
    vae, _ = build(codebook_size=200)
    vae.init_from_data(TensorSplit(images(64, seed=1).x, None))
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.eval().encode(images().x)
        output = vae(posterior, images())
    assert posterior.features.dtype == output.params.dtype == output.kl_terms.dtype == torch.float32
    assert float(excess(posterior.features, posterior.z, vae.codebook.vectors).max()) < 1e-4  # bfloat16 has 8 bits


# --- Codebook ---


def test_averages_follow_paper():
    """N and m of appendix A.1, with the counts as shares of the positions."""
    torch.manual_seed(0)
    codebook = codebook_of(torch.randn(5, 3))
    before = codebook.vectors.clone()
    n, m = torch.full((5,), 0.2), 0.2 * codebook.vectors
    for _ in range(4):
        features = torch.randn(2, 3, 2, 2)
        codes = codebook.nearest(features).clamp(max=3)  # the last vector is never used
        codebook.update(features, codes)
        for i in range(5):
            mine = rows(features)[codes.flatten() == i]
            n[i] = 0.9 * n[i] + 0.1 * len(mine) / 8
            m[i] = 0.9 * m[i] + 0.1 * mine.sum(0) / 8
    torch.testing.assert_close(codebook.usage, n)
    torch.testing.assert_close(codebook.vectors, m / n[:, None])
    assert torch.equal(codebook.vectors[4], before[4])


def test_unused_vectors_are_revived():
    codebook = EMACodebook(4, 2, commitment=0.25, decay=0.5, revive_below=0.3)
    codebook.set_vectors(100 + torch.arange(8.0).view(4, 2))
    features = torch.arange(16.0).view(1, 2, 2, 4)
    codes = torch.zeros(1, 2, 4, dtype=torch.int64)
    codebook.update(features, codes)  # usage of the others: 0.125, above 0.3 / 4
    assert torch.equal(codebook.vectors[1:], 100 + torch.arange(2.0, 8.0).view(3, 2))
    codebook.update(features, codes)
    assert torch.equal(codebook.vectors[1:], rows(features)[[2, 4, 6]])
    assert codebook.usage[1:].tolist() == [0.25] * 3 and codebook.usage[0] > 0.75


def test_evaluation_keeps_codebook():
    vae, objective = build()
    before = {name: buffer.clone() for name, buffer in vae.codebook.state_dict().items()}
    assert list(before) == ["vectors", "usage"]
    vae.eval()
    objective(vae, images(), StepContext.initial())
    assert all(torch.equal(buffer, before[name]) for name, buffer in vae.codebook.state_dict().items())
    vae.train()
    objective(vae, images(), StepContext.initial())
    assert not torch.equal(vae.codebook.vectors, before["vectors"])


@torch.no_grad()
def test_first_codebook_holds_features():
    """Each of the patches is there, and the black one, which is most of them, only once."""
    x = torch.rand(40, 1, 8, 8)
    x[:36] = 0.0
    codebooks = []
    for _ in range(2):
        vae, _ = build(codebook_size=16)
        vae.init_from_data(TensorSplit(x, None))
        codebooks.append(vae.codebook.vectors.clone())
    assert torch.equal(*codebooks)
    assert len(torch.unique(codebooks[0], dim=0)) == 16
    features = rows(vae.encode(x).features)
    assert float(torch.cdist(codebooks[0], features).amin(1).max()) < 0.01 * float(features.std())
    untrained, _ = build(codebook_size=16)
    used = [len(torch.unique(model.encode(x[36:]).z)) for model in (vae, untrained)]
    assert used[0] > used[1]


# --- Losses and gradients ---


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_commitment_by_hand(codebook):
    vae, objective = build(codebook=codebook, commitment=0.3)
    posterior = vae.eval().encode(images().x)
    output = vae(posterior, images())
    square = (rows(posterior.features) - vae.codebook.vectors[posterior.z.flatten()]).square().view(6, -1).sum(1)
    weight = 1.3 if codebook == "gradient" else 0.3
    torch.testing.assert_close(output.auxiliary_loss, weight * square)
    out = objective(vae, images(), StepContext.initial())
    bound = out.metrics["reconstruction"] + out.metrics["kl"]
    torch.testing.assert_close(out.losses["vae"], bound + weight * square.mean())
    torch.testing.assert_close(out.metrics["kl"], torch.tensor(4 * math.log(16)))


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_gradient_goes_straight_through(codebook):
    vae, _ = build(codebook=codebook)
    vae.eval()
    x, direction = images(), torch.randn(6, 1, 8, 8)
    features = vae.encode(x.x).features.detach().requires_grad_()
    z = vae.codebook.nearest(features)
    output = vae(Codes(z, features), x)
    loss = (direction * output.params).sum() + output.auxiliary_loss.sum()
    wanted = [features] if codebook == "ema" else [features, vae.codebook.vectors]
    gradients = torch.autograd.grad(loss, wanted)
    embedded = vae.codebook.embed(z).detach().requires_grad_()
    (decoder,) = torch.autograd.grad((direction * vae.decoder(embedded)).sum(), embedded)
    torch.testing.assert_close(gradients[0], decoder + 2 * 0.25 * (features - embedded))
    torch.testing.assert_close(output.params, vae.decode(z))
    if codebook == "gradient":
        pull = 2 * rows(embedded - features)
        expected = torch.stack([pull[z.flatten() == i].sum(0) for i in range(16)])
        torch.testing.assert_close(gradients[1], expected)


def test_perplexity_counts_codes():
    assert float(perplexity(count_codes(torch.full((3, 2, 2), 5), 8))) == pytest.approx(1)
    assert float(perplexity(count_codes(torch.arange(8).view(2, 2, 2), 8))) == pytest.approx(8)
    assert float(perplexity(count_codes(torch.tensor([[0, 0, 1]]), 8))) == pytest.approx(3 / 2 ** (2 / 3))


# --- Prior and posterior ---


def test_prior_is_uniform():
    prior = UniformCodes(6, (2, 3))
    quantiles = torch.distributions.Normal(0, 1).icdf((torch.arange(6_000, dtype=torch.float64) + 0.5) / 6_000)
    codes = prior.from_noise(quantiles.float())
    assert codes.dtype == torch.int64 and codes.bincount().tolist() == [1_000] * 6
    assert prior.from_noise(torch.tensor([-40.0, 40.0])).tolist() == [0, 5]
    torch.manual_seed(0)
    z = prior.sample(10_000)
    counts = z.flatten().bincount(minlength=6)
    assert z.shape == (10_000, 2, 3) and float(((counts - 10_000) / 10_000**0.5).abs().max()) < 4
    torch.testing.assert_close(prior.log_prob(z[:2]), torch.full((2,), -6 * math.log(6)))
    kl = prior.kl_terms(Codes(z[:2], torch.zeros(2, 4, 2, 3)), z[:2])
    torch.testing.assert_close(kl, torch.full((2, 6), math.log(6)))


def test_likelihood_is_refused():
    vae, _ = build()
    split = TensorSplit(images().x, None)
    for ask in (lambda: negative_log_likelihood(vae, split), lambda: vae.infer(images()).log_prob(torch.zeros(6))):
        with pytest.raises(VaezooError, match="a quantizer has no density") as e:
            ask()
        assert e.value.hint
    estimate = elbo(vae, split)
    assert estimate.kl.value == pytest.approx(4 * math.log(16))


# --- The whole model ---


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 17, 31), (1, 28, 28), (1, 256, 9)])
def test_images_keep_their_shape(shape):
    vae, _ = build(DataSpec(name="x", shape=shape))
    x = torch.rand(2, *shape)
    z = vae.encode(x).mode()
    assert z.shape == (2, *vae.latent_shape) and vae.latent_shape == (shape[1] // 4, shape[2] // 4)
    for training in (True, False):
        assert vae.train(training).reconstruct(x).shape == vae.sample(2).shape == x.shape


def test_other_data_are_refused():
    for data in (
        DataSpec(name="x", shape=(12,)),
        DataSpec(name="x", shape=(1, 7, 7)),
        DataSpec(name="x", shape=(6,), kind="tokens", vocabulary=5, likelihood="categorical"),
    ):
        with pytest.raises(UnsupportedDataError):
            build(data)


@pytest.mark.parametrize(
    "options",
    [
        {"codebook_size": 0},
        {"channels": ""},
        {"channels": "8,8,8,8"},
        {"residual_blocks": -1},
        {"decay": 1.0},
        {"revive_below": 1.5},
        {"commitment": -1.0},
        {"codebook": "both"},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(VaezooError) as e:
        build(**options)
    assert e.value.hint and not isinstance(e.value, PluginError)


def trainer_of(digits, options=None, **settings):
    vae, objective = build(digits.spec, **(options or {}))
    vae.init_from_data(digits.train)
    return Trainer(vae, objective, digits, TrainConfig(**{"batch_size": 50, "steps": 40, "lr": 2e-3, **settings}))


@pytest.mark.parametrize(("codebook", "precision"), [("ema", "fp32"), ("ema", "bf16"), ("gradient", "fp32")])
def test_training_lowers_loss(codebook, precision, digits):
    trainer = trainer_of(digits, {"codebook": codebook}, precision=precision, compile="off", eval_every=20)
    reports = []
    trainer.on_report = reports.append
    trainer.fit()
    first, last = [report.metrics for report in reports if report.split == "valid"]
    assert last["elbo"] > first["elbo"] and 1 <= last["perplexity"] <= 16
    assert {buffer.dtype for buffer in trainer.vae.buffers()} == {torch.float32}


def test_bad_batch_restores_codebook(digits):
    step = trainer_of(digits, compile="off").train_step
    batch = digits.train.batch(slice(0, 20))
    step.run(*batch, step.prepare(0))
    before = {name: tensor.clone() for name, tensor in step.vae.state_dict().items()}
    step.run(batch.x.clone().index_fill_(0, torch.tensor([3]), math.nan), None, step.prepare(1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in step.vae.state_dict().items())
    with pytest.raises(DivergedError, match="step 2"):
        step.raise_if_diverged()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"decay": 0.5, "revive_below": 0.9}, {"codebook": "gradient"}], ids=str)
def test_step_is_one_graph(options, digits):
    """A step that is traced as one graph changes weights and codebook as the eager one does."""
    states = []
    for traced in (False, True):
        step = trainer_of(digits, options, compile="off").train_step
        update = torch.compile(step.update, backend="eager", fullgraph=True) if traced else step.update
        with compiling():
            for i in range(3):
                update(digits.train.batch(slice(20 * i, 20 * i + 20)), step.prepare(i))
        assert not step.found_inf
        states.append(step.vae.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.matrix
def test_compiled_training_agrees(digits):
    metrics = []
    for how in ("off", "on"):
        trainer = trainer_of(digits, compile=how, lr=1e-4, steps=10)
        reports = []
        trainer.on_report = reports.append
        trainer.fit()
        metrics.append(reports[-1].metrics)
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-3)


@pytest.mark.slow
def test_graphs_equal_model(digits):
    """On real digits, whose black background makes equal features."""
    vae, _ = build(digits.spec)
    vae.init_from_data(digits.train)
    graphs = export_graphs(vae.eval())
    parities, _ = check_parity(vae, graphs, examples=digits.test.batch(slice(0, 64)))
    assert {parity.graph for parity in parities} == {"encoder", "decoder", "prior", "round trip"}
    (z,) = graphs["encoder"].signature["outputs"]
    assert z["name"] == "z" and z["dtype"] == "int64" and z["shape"] == ["batch", 7, 7]


@pytest.mark.slow
def test_export_runs_without_torch(digits, tmp_path):
    config = TrainConfig(steps=2, batch_size=50, compile="off")
    run = vaezoo.train("vq-vae", digits, options=SMALL, config=config, out=tmp_path / "run")
    assert isinstance(run.vae, GridVAE) and not isinstance(run.vae.codebook, GradientCodebook)
    vaezoo.export_onnx(run, tmp_path / "export")
    model = vaezoo.runtime.load(tmp_path / "export")
    x = digits.test.batch(slice(0, 3)).x
    z = model.encode(x.numpy())["z"]
    with torch.no_grad():
        assert np.array_equal(z, run.vae.eval().encode(x).z.numpy())
        torch.testing.assert_close(torch.from_numpy(model.decode(z)), run.vae.reconstruct(x))
    assert model.sample(5).shape == (5, 1, 28, 28)
