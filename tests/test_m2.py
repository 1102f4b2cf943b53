"""The model M2: its bounds against closed forms and enumeration, its labels, and what it does without labels."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import MultivariateNormal

import vaezoo
from vaezoo import Batch, DataSpec, TensorSplit, TrainConfig, create_model, export_onnx, train
from vaezoo.composition import ConvParts, MLPParts, compose, composed, composed_objective
from vaezoo.core.options import configure
from vaezoo.data.sampler import UNLABELLED
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.evaluation.likelihood import elbo, negative_log_likelihood
from vaezoo.objectives.base import StepContext
from vaezoo.objectives.m2 import M2
from vaezoo.posteriors.labelled import LabelledGaussian
from vaezoo.priors.labelled import LabelledNormal
from vaezoo.registry import get_model
from vaezoo.testing.densities import check_kl, check_posterior, check_prior
from vaezoo.training.trainer import Trainer
from vaezoo_cli.main import main

CLASSES, LATENTS, SIGMA2 = 3, 2, 0.25
IMAGES = DataSpec(name="images", shape=(1, 4, 4), classes=(CLASSES,))
LINEAR = DataSpec(name="linear", shape=(3,), kind="real", likelihood="gaussian:0.5", classes=(CLASSES,))
X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 2, 1, 0])
SMALL = {"condition": "inferred", "objective": "m2", "hidden": (8,), "latent_dim": LATENTS}


def build(data=IMAGES, **options):
    torch.manual_seed(1)
    config = configure(MLPParts(), SMALL | options)
    return compose(config, data), composed_objective(config, data)


def output(objective, vae, x=X, y=Y, seed=3, **step):
    torch.manual_seed(seed)
    return objective(vae, Batch(x, y), StepContext.initial()._replace(**step))


def enumerated(vae, x, seed=3, kl_weight=1.0):
    """Returns L(x, y) of equation 6 for each label, `(B, labels)`, label by label, and log q(y|x)."""
    torch.manual_seed(seed)
    posterior = vae.encode(x)
    noise = torch.randn(len(x), LATENTS)  # the same for all labels
    columns = []
    for label in range(CLASSES):
        mu, sigma = posterior.mu[:, label], (0.5 * posterior.logvar[:, label]).exp()
        z = torch.cat([mu + sigma * noise, F.one_hot(torch.full((len(x),), label), CLASSES).float()], 1)
        p = torch.sigmoid(vae.decode(z))
        cross_entropy = -(x * p.log() + (1 - x) * (1 - p).log()).flatten(1).sum(1)
        kl = 0.5 * (mu**2 + sigma**2 - 1 - 2 * sigma.log()).sum(1)
        columns.append(cross_entropy + kl_weight * kl + math.log(CLASSES))
    return torch.stack(columns, 1), torch.log_softmax(posterior.logits, 1)


def test_bound_with_label():
    vae, _ = build()
    labelled, _ = enumerated(vae, X)
    expected = labelled[torch.arange(6), Y].mean()
    assert output(M2(None, 0.0, CLASSES), vae).losses["vae"].item() == pytest.approx(expected.item(), rel=1e-5)
    with_classifier = output(M2(None, 7.0, CLASSES), vae).losses["vae"].item()
    cross_entropy = F.cross_entropy(vae.encode(X).logits, Y).item()
    assert with_classifier == pytest.approx(expected.item() + 7 * cross_entropy, rel=1e-5)


def test_bound_without_label_is_a_sum_over_all():
    vae, _ = build()
    labelled, log_q = enumerated(vae, X)
    expected = (log_q.exp() * (labelled + log_q)).sum(1).mean().item()
    for y in (None, torch.full_like(Y, UNLABELLED)):
        result = output(M2(None, 0.1, CLASSES), vae, y=y)
        assert result.losses["vae"].item() == pytest.approx(expected, rel=1e-5)
        assert result.metrics["elbo"].item() == pytest.approx(-expected, rel=1e-5)


def test_kl_warm_up_scales_all_of_the_kl():
    vae, _ = build()
    labelled, log_q = enumerated(vae, X, kl_weight=0.3)
    label_kl = (log_q.exp() * log_q).sum(1) + math.log(CLASSES)
    expected = ((log_q.exp() * (labelled - math.log(CLASSES))).sum(1) + 0.3 * label_kl).mean().item()
    result = output(M2(None, 0.1, CLASSES), vae, y=None, kl_weight=torch.tensor(0.3))
    assert result.losses["vae"].item() == pytest.approx(expected, rel=1e-5)
    assert result.metrics["elbo"] == output(M2(None, 0.1, CLASSES), vae, y=None).metrics["elbo"]


def test_gradient_of_the_classifier_is_exact():
    """d U / d logit_k = q_k (f_k - sum q f) with f = L + log q: no label is drawn."""
    vae, _ = build()
    labelled, log_q = enumerated(vae, X)
    f, q = (labelled + log_q).detach(), log_q.exp().detach()
    expected = q * (f - (q * f).sum(1, keepdim=True)) / len(X)
    logits = []
    vae.classifier.register_forward_hook(lambda module, inputs, out: logits.append(out))
    loss = output(M2(None, 0.1, CLASSES), vae, y=None).losses["vae"]
    torch.testing.assert_close(torch.autograd.grad(loss, logits[0])[0], expected, rtol=1e-3, atol=1e-5)


def test_terms_count_as_all_the_examples():
    """Two of six rows have a label, as 30 of 300 examples do."""
    vae, _ = build()
    y = torch.tensor([-1, 1, -1, -1, 0, -1])
    labelled, log_q = enumerated(vae, X)
    known = y >= 0
    u = (log_q.exp() * (labelled + log_q)).sum(1)[~known].mean()
    rows = torch.arange(6)[known]
    expected = 0.1 * labelled[rows, y[known]].mean() + 0.9 * u - 2 * log_q[rows, y[known]].mean()
    result = output(M2(30, 2.0, CLASSES), vae, y=y, train_size=300)
    assert result.losses["vae"].item() == pytest.approx(expected.item(), rel=1e-5)
    accuracy = (log_q.argmax(1) == y)[known].float().mean().item()
    assert result.metrics["accuracy"].item() == pytest.approx(accuracy)


def test_loss_does_not_depend_on_batch_size_or_duplicates(monkeypatch):
    """Without noise, equal rows have equal terms. Halves with as many labels have the mean of the whole."""
    original = LabelledGaussian.rsample_each

    def mean_of_each(q):
        return original(q._replace(logvar=torch.full_like(q.logvar, -80.0)))

    monkeypatch.setattr(LabelledGaussian, "rsample_each", mean_of_each)
    vae, _ = build()
    y, objective = torch.tensor([1, -1, -1, 0, -1, -1]), M2(30, 2.0, CLASSES)

    def loss(x, y):
        return output(objective, vae, x, y, train_size=300).losses["vae"].item()

    whole = loss(X, y)
    assert loss(torch.cat([X, X]), torch.cat([y, y])) == pytest.approx(whole, rel=1e-5)
    assert (loss(X[:3], y[:3]) + loss(X[3:], y[3:])) / 2 == pytest.approx(whole, rel=1e-5)


@torch.no_grad()
def exact_model():
    """Returns a linear Gaussian mixture with its exact q(y|x) and q(z|x, y), and log p(x, y) as a function."""
    vae, objective = build(LINEAR, hidden=())
    encoder, classifier, decoder = (
        next(m for m in net if isinstance(m, torch.nn.Linear)) for net in (vae.encoder, vae.classifier, vae.decoder)
    )
    w = torch.tensor([[1.0, 0.0], [0.0, 0.8], [0.0, 0.0]])  # orthogonal columns: the posterior is diagonal
    means = torch.tensor([[1.0, -0.5, 0.0], [0.0, 1.0, 1.0], [-1.0, 0.0, -1.0]])
    bias = torch.tensor([0.2, 0.0, -0.1])
    decoder.weight.copy_(torch.cat([w, means.T], 1))
    decoder.bias.copy_(bias)
    # z | x, y has the precision I + W^T W / sigma^2 and the mean V W^T (x - bias - mean_y) / sigma^2.
    variance = 1 / (1 + (w.T @ w).diagonal() / SIGMA2)
    to_mu = variance[:, None] * w.T / SIGMA2
    encoder.weight.zero_()
    encoder.weight[:LATENTS] = torch.cat([to_mu, -to_mu @ means.T], 1)
    encoder.bias[:LATENTS] = -to_mu @ bias
    encoder.bias[LATENTS:] = 10 * torch.atanh(variance.log() / 10)  # the inverse of the bound of logvar
    # log N(x; bias + mean_y, C) is linear in x but for a term that all labels share.
    covariance = w @ w.T + SIGMA2 * torch.eye(3)
    precision = torch.linalg.inv(covariance)
    centres = means + bias
    classifier.weight.copy_(centres @ precision)
    classifier.bias.copy_(-0.5 * ((centres @ precision) * centres).sum(1))

    def log_joint(x):
        components = MultivariateNormal(centres.double(), covariance.double())
        return components.log_prob(x.double()[:, None]) - math.log(CLASSES)

    return vae.eval(), objective.eval(), log_joint


@torch.no_grad()
def average_bounds(vae, x, y, draws=2000):
    """Returns the bound of each example, `(B,)`, the mean over draws of z."""
    torch.manual_seed(0)
    bounds = []
    for i, row in enumerate(x):
        batch = Batch(row.expand(draws, -1), None if y is None else y[i].expand(draws))
        bounds.append(-M2(None, 0.0, CLASSES)(vae, batch, StepContext.initial()).losses["vae"])
    return torch.stack(bounds).double()


@torch.no_grad()
def test_bounds_are_tight_for_the_exact_posterior():
    """-U(x) = log p(x) and -L(x, y) = log p(x, y). Any other q(y|x) or q(z|x, y) is below."""
    vae, _, log_joint = exact_model()
    x = torch.randn(4, 3)
    y = torch.tensor([0, 1, 2, 1])
    exact, with_label = torch.logsumexp(log_joint(x), 1), log_joint(x)[torch.arange(4), y]
    torch.testing.assert_close(average_bounds(vae, x, None), exact, rtol=0, atol=0.1)
    torch.testing.assert_close(average_bounds(vae, x, y), with_label, rtol=0, atol=0.1)
    split = TensorSplit(x, None)
    assert elbo(vae, split, num_samples=2000).elbo.value == pytest.approx(exact.mean().item(), abs=0.05)
    for module in (vae.classifier, vae.encoder):
        layer = next(m for m in module if isinstance(m, torch.nn.Linear))
        before = layer.weight.clone()
        layer.weight.add_(2 * torch.randn(layer.weight.shape))
        assert average_bounds(vae, x, None).mean() < exact.mean() - 0.1
        assert (average_bounds(vae, x, y) < with_label + 0.1).all()
        layer.weight.copy_(before)


@torch.no_grad()
@pytest.mark.parametrize("confidence", [1.0, 200.0])
def test_nll_is_that_of_any_label(confidence):
    """The NLL is -log sum_y p(y) p(x|y), also if q(y|x) is sure of a wrong label. Labels of the data are not used."""
    vae, _, log_joint = exact_model()
    layer = next(m for m in vae.classifier if isinstance(m, torch.nn.Linear))
    if confidence > 1:
        layer.weight.copy_(-confidence * layer.weight)
        layer.bias.copy_(-confidence * layer.bias)
    torch.manual_seed(0)
    x = vae.likelihood.sample(vae.decode(vae.prior.sample(12, torch.arange(12) % CLASSES)))
    exact = -torch.logsumexp(log_joint(x), 1).mean().item()
    for y in (None, torch.arange(12) % CLASSES):
        nll = negative_log_likelihood(vae, TensorSplit(x, y), num_samples=3000).value
        assert nll == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("label", check_posterior),
        ("prior", check_prior),
        ("kl", check_kl),
    ],
)
def test_conformance_suite_sees_faults_of_the_label(fault, check, monkeypatch):
    """Without log q(y|x), without log p(y), and with a KL of the label that has the wrong sign."""
    spec = composed(configure(MLPParts(), SMALL), "a test", "none")
    check(spec)
    log_q, log_p, kl = LabelledGaussian.log_prob, LabelledNormal.log_prob, LabelledNormal.kl_terms
    if fault == "label":
        uniform = math.log(4)  # the suite's data have four classes, and an untrained q(y|x) is nearly uniform
        monkeypatch.setattr(LabelledGaussian, "log_prob", lambda q, z: log_q(q, z) + uniform)
    elif fault == "prior":
        monkeypatch.setattr(LabelledNormal, "log_prob", lambda p, z: log_p(p, z) + math.log(4))
    else:
        weights = torch.tensor([-1.0] + [1.0] * LATENTS)
        monkeypatch.setattr(LabelledNormal, "kl_terms", lambda p, q, z: kl(p, q, z) * weights)
    with pytest.raises(AssertionError):
        check(spec)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"condition": "inferred"}, "condition=inferred needs objective=m2, not objective=elbo"),
        ({"objective": "m2"}, "objective=m2 needs condition=inferred, not condition=none"),
        ({"objective": "m2", "condition": "labels"}, "objective=m2 needs condition=inferred, not condition=labels"),
        ({**SMALL, "prior": "mixture"}, "condition=inferred needs prior=normal, not prior=mixture"),
        ({**SMALL, "posterior": "full"}, "objective=m2 needs posterior=diagonal, not posterior=full"),
        ({**SMALL, "objective.labelled": 0}, "objective.labelled is 0"),
        ({**SMALL, "objective.alpha": -1}, "objective.alpha is -1"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(VaezooError, match=words) as e:
        compose(configure(MLPParts(), options), IMAGES)
    assert e.value.hint


def test_data_need_one_label(digits):
    for classes, words in (((), "has no labels"), ((3, 2), "condition=inferred needs data with one label")):
        with pytest.raises(UnsupportedDataError, match=words):
            create_model("m2-vae", dataclasses.replace(IMAGES, classes=classes))
    with pytest.raises(VaezooError, match="sentence-vae"):
        create_model("sentence-vae", vaezoo.load_data("names"), {"condition": "inferred", "objective": "m2"})
    with pytest.raises(VaezooError, match="objective=m2 needs a diagonal"):
        create_model("ladder-vae", digits, {"objective": "m2"})


def test_free_bits_are_refused():
    vae, objective = build()
    with pytest.raises(VaezooError, match="objective=m2 has no KL that free bits apply to"):
        output(objective, vae, free_bits=0.1)


def test_training_sees_the_chosen_labels_only(digits, monkeypatch):
    """No batch holds another label, and each micro-batch has as many."""
    seen = []
    forward = M2.forward

    def record(objective, vae, batch, step):
        if objective.training:
            seen.append(batch.y.clone())
        return forward(objective, vae, batch, step)

    monkeypatch.setattr(M2, "forward", record)
    vae, objective = create_model("m2-vae", digits, {"hidden": 8}), M2(20, 1.0, 10)
    config = TrainConfig(steps=9, batch_size=40, grad_accum_steps=2, compile="off")
    trainer = Trainer(vae, objective, digits, config)
    trainer.fit()
    y = trainer.train_split.y
    assert torch.bincount(y[y >= 0]).tolist() == [2] * 10 and (y < 0).sum() == len(digits.train) - 20
    assert len(seen) == 18 and all((part[::4] >= 0).all() for part in seen)
    assert sum(int((part >= 0).sum()) for part in seen) < 18 * 5 + 40  # others are drawn by chance
    assert torch.equal(trainer.valid_split.y, digits.valid.y)
    with pytest.raises(VaezooError, match=r"batch size 20 cannot be divided into 2 parts of groups of 4 examples"):
        Trainer(vae, objective, digits, TrainConfig(steps=9, batch_size=20, grad_accum_steps=2))


def test_selection_is_that_of_the_seed_alone(digits, tmp_path):
    """The selection of a resumed run and of another process is a function of the seed; see tests/test_members.py."""
    selections = []
    for seed in (0, 0, 1):
        sampler = M2(30, 1.0, 10).sampler(digits.train, seed)
        torch.rand(7)
        selections.append(sampler.labelled.tolist())
    assert selections[0] == selections[1] != selections[2]


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    options = {"hidden": 32, "latent_dim": 4, "objective.alpha": 10}
    config = TrainConfig(steps=60, batch_size=40, lr=0.005)
    return train("m2-vae", digits, options=options, config=config, out=tmp_path_factory.mktemp("m2") / "run")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return export_onnx(run, tmp_path_factory.mktemp("m2") / "onnx")


def test_result_has_the_accuracy(run, digits):
    fields = vaezoo.encode(run, digits.test.batch(slice(None)).x.squeeze(1).numpy())
    accuracy = (fields["class_probabilities"].argmax(1) == digits.test.y.numpy()).mean()
    assert accuracy > 0.3
    assert run.result["metrics"]["accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_no_labels_are_needed(run, exported, digits):
    """Posteriors, reconstructions, scores and metrics of arrays without labels, of the run and of the export."""
    x = digits.test.batch(slice(0, 30)).x.squeeze(1).numpy()
    model = vaezoo.runtime.load(exported.path)
    ours, theirs = vaezoo.encode(run, x), vaezoo.encode(model, x)
    assert list(ours) == ["mode", "class_probabilities", "mu", "logvar"]
    for name, values in ours.items():
        np.testing.assert_allclose(theirs[name], values, atol=1e-4, rtol=1e-3)
    assert np.array_equal(ours["mode"][:, :4], ours["mu"])
    assert np.array_equal(ours["mode"][:, 4:].argmax(1), ours["class_probabilities"].argmax(1))
    np.testing.assert_allclose(vaezoo.reconstruct(model, x), vaezoo.reconstruct(run, x), atol=1e-4)
    labelled = vaezoo.reconstruct(run, vaezoo.load_examples(run, x, y=np.zeros(30, int)))
    assert np.array_equal(labelled, vaezoo.reconstruct(run, x))  # labels of the examples are not used
    result = vaezoo.evaluate(run, x, metrics=["elbo", "nll"], nll_samples=200)
    values = {metric.name: metric.value for metric in result.metrics}
    assert values["NLL-200"] < values["-ELBO"]
    one, two = (vaezoo.score(run, part).neg_elbo for part in (x, x[10:]))
    np.testing.assert_allclose(one[10:], two, rtol=1e-4)


def test_samples_have_the_label_that_is_asked_for(run, exported, tmp_path):
    """The same noise with another label. Without one, all labels come in turn."""
    torch.manual_seed(0)
    z = run.vae.prior.sample(12, torch.full((12,), 3))
    assert torch.equal(z[:, 4:], F.one_hot(torch.full((12,), 3), 10).float())
    assert np.array_equal(run.sample(20), run.sample(20, y=np.arange(20) % 10))
    threes, fives = run.sample(20, label=3), run.sample(20, label=5)
    assert np.abs(threes - fives).max() > 0.01 and np.array_equal(threes[[3]], run.sample(20)[[3]])
    model = vaezoo.runtime.load(exported.path)
    assert exported.manifest["prior"] == "graph"
    assert [t["name"] for t in exported.manifest["graphs"]["prior"]["inputs"]] == ["noise", "y"]
    assert np.array_equal(model.sample(20, seed=1), model.sample(20, seed=1, y=np.arange(20) % 10))
    for source in (run.path, exported.path):
        for label in (3, 5):
            command("sample", source, "--label", label, "-n", 9, "--out", tmp_path / f"{source.name}{label}.npy")
        a, b = (np.load(tmp_path / f"{source.name}{label}.npy") for label in (3, 5))
        assert np.abs(a - b).max() > 0.01
        with pytest.raises(VaezooError, match="the decoder of this model takes no labels"):
            vaezoo.decode(run if source is run.path else model, z.numpy(), y=np.zeros(12, int))  # z holds the label
    with pytest.raises(VaezooError, match="unknown label 10"):
        run.sample(2, y=np.array([0, 10]))
    with pytest.raises(VaezooError, match="unknown label 10"):
        model.sample(2, y=np.array([0, 10]))


def command(*arguments, code=0):
    with pytest.raises(SystemExit) as e:
        main([str(a) for a in arguments])
    assert e.value.code == code


def test_lines_of_latents_are_refused(run, digits, tmp_path, capsys):
    """A line between two latents has no label on it."""
    command("plot", run.path, "--kind", "traversals", "--out", tmp_path / "a.png", code=2)
    assert "the latents of this model lie in the space 'reals and a label'" in capsys.readouterr().err
    with pytest.raises(VaezooError, match="the space 'reals and a label'"):
        vaezoo.fit_prior(run, "kde", data=digits, out=tmp_path / "fitted")


def test_convolutions_see_the_label():
    data = DataSpec(name="images", shape=(1, 8, 8), classes=(CLASSES,))
    config = configure(ConvParts(channels=(4, 4), latent_dim=2), {"condition": "inferred", "objective": "m2"})
    vae = compose(config, data)
    q = vae.encode(torch.rand(5, 1, 8, 8))
    assert q.mu.shape == (5, CLASSES, 2) and q.logits.shape == (5, CLASSES)
    assert not torch.equal(q.mu[:, 0], q.mu[:, 1])


def test_spec_is_listed():
    assert get_model("m2-vae").config.condition == "inferred"
