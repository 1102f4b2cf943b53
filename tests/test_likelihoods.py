"""Likelihoods against torch.distributions, integrals and their own samples."""

import math
import sys

import pytest
import torch
from torch import distributions as D

from vaezoo import DataSpec, create_model
from vaezoo.data.kinds import make_kind
from vaezoo.errors import VaezooError
from vaezoo.evaluation.onnx_vae import needs_only_mean
from vaezoo.likelihoods.categorical import draw_ids
from vaezoo.likelihoods.gaussian import Gaussian
from vaezoo.likelihoods.make import BUILT_IN, make_likelihood
from vaezoo.likelihoods.table import LOGVAR_BOUND, model_columns

torch.manual_seed(0)
LOGITS = torch.linspace(-12, 12, 97, dtype=torch.float64).reshape(-1, 1)
X = torch.rand(97, 1, dtype=torch.float64)


def test_bernoulli_is_binary_cross_entropy():
    expected = D.Bernoulli(logits=LOGITS, validate_args=False).log_prob(X).sum(1)
    torch.testing.assert_close(make_likelihood("bernoulli").log_prob(LOGITS, X), expected)


def test_continuous_bernoulli_equals_pytorch():
    likelihood = make_likelihood("continuous-bernoulli")
    expected = D.ContinuousBernoulli(logits=LOGITS, lims=(0.4999, 0.5001))
    torch.testing.assert_close(likelihood.log_prob(LOGITS, X), expected.log_prob(X).sum(1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(likelihood.mean(LOGITS), expected.mean, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("logit", [-80.0, -3.0, -1e-4, 0.0, 1e-4, 0.4, 0.6, 3.0, 80.0])
@pytest.mark.parametrize("name", ["continuous-bernoulli"])
def test_density_integrates_to_one(name, logit):
    n = 200_001
    x = torch.linspace(0, 1, n, dtype=torch.float64).reshape(-1, 1)
    params = torch.full_like(x, logit)
    density = make_likelihood(name).log_prob(params, x).exp()
    assert float(torch.trapezoid(density, x[:, 0])) == pytest.approx(1, abs=1e-5)
    assert float(torch.trapezoid(density * x[:, 0], x[:, 0])) == pytest.approx(
        float(make_likelihood(name).mean(params)[0]), abs=1e-5
    )


@pytest.mark.parametrize("logit", [-1000.0, -0.5, 0.0, 1e-12, 1.0, 1000.0])
def test_continuous_bernoulli_stays_finite(logit):
    params = torch.tensor([[logit]], requires_grad=True)
    likelihood = make_likelihood("continuous-bernoulli")
    value = likelihood.log_prob(params, torch.tensor([[0.3]])) + likelihood.mean(params).sum()
    value.sum().backward()
    assert value.isfinite().all() and params.grad.isfinite().all()


@pytest.mark.parametrize("name", ["bernoulli", "continuous-bernoulli", "gaussian:0.2"])
@pytest.mark.parametrize("logit", [-4.0, 0.0, 2.0])
def test_samples_average_to_mean(name, logit):
    torch.manual_seed(1)
    likelihood, params = make_likelihood(name), torch.full((1, 200_000), logit)
    assert float(likelihood.sample(params).mean()) == pytest.approx(float(likelihood.mean(params)[0, 0]), abs=5e-3)


def test_gaussian_is_normal_density():
    expected = D.Normal(torch.sigmoid(LOGITS), 0.3).log_prob(X).sum(1)
    torch.testing.assert_close(make_likelihood("gaussian:0.3").double().log_prob(LOGITS, X), expected)


def test_default_gaussian_is_squared_error():
    zero = make_likelihood("gaussian").log_prob(torch.zeros(1, 4), torch.full((1, 4), 0.5))
    one = make_likelihood("gaussian").log_prob(torch.zeros(1, 4), torch.full((1, 4), 1.0))
    assert float(zero - one) == pytest.approx(0.5 * 4 * 0.25)


def test_optimal_sigma_maximises_likelihood():
    params, x = torch.randn(64, 10), torch.rand(64, 10)
    best = Gaussian("optimal").log_prob(params, x).mean()
    error = float((x - torch.sigmoid(params)).square().mean().sqrt())
    assert float(best) == pytest.approx(float(Gaussian(error).log_prob(params, x).mean()), rel=1e-5)
    for other in (0.9 * error, 1.1 * error):
        assert float(best) > float(Gaussian(other).log_prob(params, x).mean())


def test_optimal_sigma_is_saved():
    likelihood = Gaussian("optimal")
    params, x = torch.zeros(64, 10), torch.full((64, 10), 0.6)
    for _ in range(2000):
        likelihood.log_prob(params, x)
    restored = Gaussian("optimal")
    restored.load_state_dict(likelihood.state_dict())
    restored.eval()
    assert float(restored.log_sigma.exp()) == pytest.approx(0.1, rel=1e-3)
    single = restored.log_prob(params[:1], x[:1])
    torch.testing.assert_close(single, restored.log_prob(params, x)[:1])


def test_learned_sigma_fits_error():
    likelihood = Gaussian("learned")
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    params, x = torch.zeros(64, 10), 0.5 + 0.05 * torch.randn(64, 10)
    for _ in range(400):
        optimizer.zero_grad()
        (-likelihood.log_prob(params, x).mean()).backward()
        optimizer.step()
    assert math.exp(likelihood.log_sigma.item()) == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize(
    "text",
    [
        "bernouli",
        "gaussian:x",
        "gaussian:-1",
        "gaussian:0",
        "gaussian:nan",
        "bernoulli:2",
        "laplace:x",
        "laplace:-1",
        "laplace:optimal",
        "gaussian-identity:-1",
        "laplace-identity:x",
    ],
)
def test_unknown_likelihoods_are_refused(text):
    with pytest.raises(VaezooError) as e:
        make_likelihood(text)
    assert text.partition(":")[2] in e.value.message and e.value.hint


def test_real_gaussian_has_identity_mean():
    likelihood = make_likelihood("gaussian:0.3", "real").double()
    x = 5 * torch.randn(97, 1, dtype=torch.float64)
    torch.testing.assert_close(likelihood.log_prob(LOGITS, x), D.Normal(LOGITS, 0.3).log_prob(x).sum(1))
    assert torch.equal(likelihood.mean(LOGITS), LOGITS) and torch.equal(likelihood.params_of_mean(LOGITS), LOGITS)
    samples = make_likelihood("gaussian:0.3", "real").sample(torch.full((1, 200_000), -7.0))
    assert float(samples.mean()) == pytest.approx(-7, abs=5e-3) and float(samples.std()) == pytest.approx(0.3, rel=0.02)


def test_real_optimal_sigma():
    params, x = torch.randn(64, 10), 3 * torch.randn(64, 10)
    error = float((x - params).square().mean().sqrt())
    best = make_likelihood("gaussian:optimal", "real").log_prob(params, x)
    torch.testing.assert_close(best, make_likelihood(f"gaussian:{error}", "real").log_prob(params, x))


@pytest.mark.parametrize(
    "name",
    [
        "bernoulli",
        "gaussian",
        "gaussian:optimal",
        "gaussian:heteroscedastic",
        "laplace",
        "gaussian-identity",
        "laplace-identity",
        "log-cosh",
        "ms-ssim",
    ],
)
def test_params_of_mean_invert_the_mean(name):
    likelihood, mean = make_likelihood(name), torch.tensor([0.01, 0.3, 0.99])
    torch.testing.assert_close(likelihood.mean(likelihood.params_of_mean(mean)[None])[0], mean)
    assert likelihood.params_of_mean(torch.tensor([0.0, 1.0])).isfinite().all()


@pytest.mark.parametrize(("name", "family"), [("gaussian-identity", D.Normal), ("laplace-identity", D.Laplace)])
def test_identity_takes_images(name, family):
    """Parameters are the centre of the density, which may leave [0, 1] and keeps its gradient. The mean is clipped."""
    likelihood = make_likelihood(f"{name}:0.3").double()
    params = LOGITS.clone().requires_grad_()
    value = likelihood.log_prob(params, X)
    torch.testing.assert_close(value, family(LOGITS, 0.3).log_prob(X).sum(1))
    assert torch.autograd.grad(value.sum(), params)[0].abs().min() > 0
    assert torch.equal(likelihood.mean(LOGITS), LOGITS.clamp(0, 1)) and likelihood.identity
    assert float(likelihood.sample(torch.full((1, 200_000), -7.0)).mean()) == pytest.approx(-7, abs=5e-3)
    assert not needs_only_mean(name) and not needs_only_mean(f"{name}:0.3")
    real = make_likelihood(f"{name}:0.3", "real").double()
    assert torch.equal(real.mean(LOGITS), LOGITS) and torch.equal(real.log_prob(LOGITS, X), value.detach())
    default = make_likelihood(name).log_prob(torch.tensor([[2.0]]), torch.tensor([[0.0]]))
    assert float(default) == pytest.approx(float(family(2.0, 1.0).log_prob(torch.tensor(0.0))))
    assert make_likelihood(f"{name}:learned").state_dict()


def test_other_likelihoods_give_no_params():
    for likelihood in (make_likelihood("continuous-bernoulli"), make_likelihood("categorical", "tokens", 4)):
        assert likelihood.params_of_mean(torch.zeros(3)) is None


@pytest.mark.parametrize("kind", ["unit", "real"])
def test_laplace_is_the_laplace_density(kind):
    likelihood, x = make_likelihood("laplace:0.3", kind).double(), X if kind == "unit" else 5 * X
    mean = torch.sigmoid(LOGITS) if kind == "unit" else LOGITS
    torch.testing.assert_close(likelihood.log_prob(LOGITS, x), D.Laplace(mean, 0.3).log_prob(x).sum(1))
    torch.testing.assert_close(likelihood.mean(LOGITS), mean)
    samples = make_likelihood("laplace:0.3", kind).sample(torch.full((1, 200_000), 0.5))
    centre = torch.sigmoid(torch.tensor(0.5)) if kind == "unit" else torch.tensor(0.5)
    assert float(samples.mean()) == pytest.approx(float(centre), abs=5e-3)
    assert float((samples - centre).abs().mean()) == pytest.approx(0.3, rel=0.02)  # E|x - mean| = b
    assert float((samples - centre).square().mean()) == pytest.approx(2 * 0.3**2, rel=0.03)


def test_default_laplace_is_absolute_error():
    zero, one = (make_likelihood("laplace").log_prob(torch.zeros(1, 4), torch.full((1, 4), x)) for x in (0.5, 1.0))
    assert float(zero - one) == pytest.approx(4 * 0.5)


def test_learned_laplace_fits_error():
    likelihood = make_likelihood("laplace:learned")
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    params, x = torch.zeros(64, 10), D.Laplace(0.5, 0.05).sample((64, 10))
    for _ in range(400):
        optimizer.zero_grad()
        (-likelihood.log_prob(params, x).mean()).backward()
        optimizer.step()
    assert math.exp(likelihood.log_scale.item()) == pytest.approx((x - 0.5).abs().mean().item(), rel=0.02)


@pytest.mark.parametrize("kind", ["unit", "real"])
@pytest.mark.parametrize("shape", [(3,), (2, 2, 3)])
def test_heteroscedastic_gaussian_has_a_sigma_for_each_value(kind, shape):
    torch.manual_seed(0)
    likelihood = make_likelihood("gaussian:heteroscedastic", kind)
    params = torch.randn(6, *likelihood.params_shape(shape), dtype=torch.float64)
    assert params.shape == (6, 2 * shape[0], *shape[1:])
    raw_mean, raw_sigma = params[:, : shape[0]], params[:, shape[0] :]
    mean = torch.sigmoid(raw_mean) if kind == "unit" else raw_mean
    sigma = 1e-3 + raw_sigma.exp()
    x = torch.rand(6, *shape, dtype=torch.float64)
    expected = D.Normal(mean, sigma).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(likelihood.log_prob(params, x), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(likelihood.mean(params), mean)
    rows = params[:1].expand(50_000, *params.shape[1:])
    samples = likelihood.sample(rows)
    torch.testing.assert_close(samples.std(0), sigma[0], rtol=0.03, atol=0)


def test_sigma_of_a_value_has_a_lower_bound():
    """Where the data are constant, the density does not grow without bound, and sigma keeps a gradient."""
    likelihood = make_likelihood("gaussian:heteroscedastic", "real")
    params = torch.tensor([[0.0, -8.0], [0.0, -1e4], [0.0, 1e4]], requires_grad=True)
    value = likelihood.log_prob(params, torch.zeros(3, 1))
    (gradient,) = torch.autograd.grad(value.sum(), params)
    assert value.isfinite().all() and gradient.isfinite().all()
    assert value[1].item() == pytest.approx(-math.log(1e-3) - 0.5 * math.log(2 * math.pi), rel=1e-4)
    assert gradient[0, 1] < -0.1  # a smaller raw value raises the density still


IDS = torch.tensor([[3, 1, 0, 0, 0], [2, 2, 2, 1, 4], [0, 0, 0, 0, 0]])


def test_categorical_equals_pytorch():
    likelihood, logits = make_likelihood("categorical", "tokens", 5), torch.randn(3, 5, 5, dtype=torch.float64)
    assert likelihood.params_shape((5,)) == (5, 5)
    terms = D.Categorical(logits=logits).log_prob(IDS)
    expected = (terms * (IDS != 0)).sum(1)
    torch.testing.assert_close(likelihood.log_prob(logits, IDS), expected)
    assert expected[2] == 0 and likelihood.log_prob(logits, IDS)[2] == 0


def test_padding_counts_nothing():
    likelihood, logits = make_likelihood("categorical", "tokens", 5), torch.randn(3, 5, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(likelihood.log_prob(logits, IDS).sum(), logits)
    assert torch.equal(gradient.abs().sum(2) > 0, IDS != 0)
    other = torch.where((IDS == 0).unsqueeze(2), torch.randn(3, 5, 5), logits)
    torch.testing.assert_close(likelihood.log_prob(other, IDS), likelihood.log_prob(logits, IDS))


def test_categorical_mean_and_samples():
    torch.manual_seed(2)
    likelihood, logits = make_likelihood("categorical", "tokens", 4), torch.tensor([[0.1, 2.0, -1.0, 0.5]])
    assert likelihood.mean(logits.view(1, 1, 4)).tolist() == [[1]]
    assert list(likelihood.outputs(logits)) == ["logits"] and likelihood.outputs(logits)["logits"] is logits
    ids = likelihood.sample(logits.expand(2, 50_000, 4))
    assert ids.shape == (2, 50_000) and ids.dtype == torch.int64
    shares = ids.flatten().bincount(minlength=4) / 100_000
    torch.testing.assert_close(shares, torch.softmax(logits[0], 0), atol=6e-3, rtol=0)


def test_ids_are_drawn_from_any_rows():
    logits = torch.full((2, 3, 4, 5), -1e4)
    logits[..., 2] = 0
    assert torch.equal(draw_ids(logits), torch.full((2, 3, 4), 2))


COLUMNS = ("age:real", "sex:2", "income:real", "job:7")
PARAMS = torch.randn(40, 2 + 2 + 2 + 7, dtype=torch.float64)
ROWS = make_kind("table", 0, COLUMNS).example(40, (4,), torch.Generator().manual_seed(0)).double()


def table_distributions(params):
    age, sex, income, job = params.split([2, 2, 2, 7], 1)

    def normal(p):
        logvar = LOGVAR_BOUND * torch.tanh(p[:, 1] / LOGVAR_BOUND)
        return D.Normal(p[:, 0], (0.5 * logvar).exp())

    return normal(age), D.Categorical(logits=sex), normal(income), D.Categorical(logits=job)


def test_table_is_a_sum_of_columns():
    likelihood = make_likelihood("table", "table", 0, COLUMNS)
    assert likelihood.params_shape((4,)) == (13,)
    pairs = zip(table_distributions(PARAMS), ROWS.unbind(1), strict=True)
    expected = sum(distribution.log_prob(column) for distribution, column in pairs)
    torch.testing.assert_close(likelihood.log_prob(PARAMS, ROWS), expected)


def test_table_outputs_are_probabilities():
    likelihood = make_likelihood("table", "table", 0, COLUMNS)
    (name, columns), (deviations_name, deviations) = likelihood.outputs(PARAMS).items()
    age, sex, income, job = columns.split([1, 2, 1, 7], 1)
    distributions = table_distributions(PARAMS)
    assert (name, deviations_name) == ("columns", "deviations")
    expected = torch.stack([distributions[0].stddev, distributions[2].stddev], 1)
    torch.testing.assert_close(deviations, expected)
    torch.testing.assert_close(age[:, 0], distributions[0].mean)
    torch.testing.assert_close(income[:, 0], distributions[2].mean)
    torch.testing.assert_close(sex, distributions[1].probs)
    torch.testing.assert_close(job, distributions[3].probs)
    for probabilities in (sex, job):
        assert probabilities.min() >= 0
        torch.testing.assert_close(probabilities.sum(1), torch.ones(40, dtype=torch.float64))


def test_table_mean_and_samples():
    torch.manual_seed(3)
    likelihood, params = make_likelihood("table", "table", 0, COLUMNS), PARAMS[:1].expand(100_000, -1)
    age, sex, income, job = table_distributions(PARAMS[:1])
    mean, samples = likelihood.mean(params)[0], likelihood.sample(params)
    assert mean.tolist() == [age.mean.item(), sex.probs.argmax().item(), income.mean.item(), job.probs.argmax().item()]
    assert samples.shape == (100_000, 4) and samples.dtype == torch.float64
    for index, normal in ((0, age), (2, income)):
        assert samples[:, index].mean().item() == pytest.approx(normal.mean.item(), abs=5 * normal.stddev.item() / 300)
        assert samples[:, index].std().item() == pytest.approx(normal.stddev.item(), rel=0.02)
    for index, categories in ((1, sex), (3, job)):
        shares = samples[:, index].long().bincount(minlength=categories.probs.shape[1]) / 100_000
        torch.testing.assert_close(shares.double(), categories.probs[0], atol=6e-3, rtol=0)


def test_real_columns_stay_finite():
    likelihood = make_likelihood("table", "table", 0, ("a:real",))
    params = torch.tensor([[0.0, -1e6], [0.0, 1e6]], requires_grad=True)
    value = likelihood.log_prob(params, torch.ones(2, 1))
    (gradient,) = torch.autograd.grad(value.sum(), params)
    assert value.isfinite().all() and gradient.isfinite().all()


def test_column_sizes():
    columns = model_columns(("a:real", "b:2?", "c:d:10000", "e:real?"))
    assert [column.size for column in columns] == [0, 2, 10_000, 0]
    assert [column.may_miss for column in columns] == [False, True, False, True]


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("bernoulli", "real", "not for data of kind real"),
        ("continuous-bernoulli", "tokens", "not for data of kind tokens"),
        ("categorical", "unit", "not for data of kind unit"),
        ("table", "real", "not for data of kind real"),
        ("gaussian", "table", "not for data of kind table"),
        ("gaussian:0.1", "tokens", "not for data of kind tokens"),
    ],
)
def test_likelihood_must_fit_the_kind(text, kind, words):
    with pytest.raises(VaezooError, match=words) as e:
        make_likelihood(text, kind, 5, ("a:real",))
    assert e.value.hint


PACKAGE = """
from vaezoo import DataKind, Likelihood, VaezooError

class Scaled(Likelihood):
    kinds = ("real",)

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def log_prob(self, params, x):
        return -self.scale * (x - params).abs().flatten(1).sum(1)

    def mean(self, params):
        return params

    def sample(self, params):
        return params

def make(argument, data):
    if argument == "x":
        raise VaezooError("'x' is not a scale", "give a number")
    return Scaled(float(argument or 1))

def broken(argument, data):
    raise KeyError("scale")

def foreign(argument, data):
    return object()

text = "no function"
"""
ENTRY_POINTS = """[vaezoo.likelihoods]
scaled = ours:make
scaled-broken = ours:broken
scaled-foreign = ours:foreign
scaled-text = ours:text
gaussian = ours:make
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with likelihoods of its own."""
    info = tmp_path / "ours-1.0.dist-info"
    info.mkdir()
    (tmp_path / "ours.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ours", raising=False)


@pytest.mark.usefixtures("package")
def test_package_adds_a_likelihood():
    assert make_likelihood("scaled", "real").scale == 1 and make_likelihood("scaled:0.5", "real").scale == 0.5
    assert make_likelihood("ours/scaled:0.25", "real").scale == 0.25
    data = DataSpec(name="series", shape=(2, 4), kind="real", likelihood="scaled:3")
    assert create_model("mlp-vae", data).likelihood.scale == 3
    assert type(make_likelihood("gaussian", "real")) is Gaussian  # the name of a built-in one is ours


@pytest.mark.usefixtures("package")
def test_errors_name_package_likelihoods():
    for text, words in (
        ("scaled:x", "'x' is not a scale"),
        ("scaled", "likelihood 'scaled' is not for data of kind unit"),
        ("scaled-broken", "likelihood 'scaled-broken' of ours 1.0 cannot be built: KeyError"),
        ("scaled-foreign", "likelihood 'scaled-foreign' of ours 1.0 is of type object, not a vaezoo.Likelihood"),
        ("scaled-text", "likelihood 'scaled-text' of ours 1.0 is not a function"),
        ("sclaed", "no likelihood named 'sclaed'"),
    ):
        with pytest.raises(VaezooError) as e:
            make_likelihood(text)
        assert words in e.value.message and e.value.hint
    assert e.value.hint == "did you mean 'scaled'?"
    with pytest.raises(VaezooError) as e:
        make_likelihood("nothing-like-it")
    ours = ", ".join(BUILT_IN)
    assert e.value.hint == f"use one of {ours}, scaled, scaled-broken, scaled-foreign, scaled-text"


@pytest.mark.usefixtures("package")
def test_disallowed_packages_are_left_out(monkeypatch):
    assert make_likelihood("scaled", "real").scale == 1
    monkeypatch.setenv("VAEZOO_PLUGINS", "")
    with pytest.raises(VaezooError, match="no likelihood named 'scaled'"):
        make_likelihood("scaled", "real")


@pytest.mark.parametrize(
    ("likelihood", "known"),
    [
        ("bernoulli", True),
        ("gaussian", True),
        ("gaussian:0.1", True),
        ("gaussian:learned", False),
        ("gaussian:optimal", False),
        ("gaussian:nan", False),
        ("gaussian:-1", False),
        ("gaussian:heteroscedastic", False),
        ("laplace", True),
        ("laplace:0.1", True),
        ("laplace:learned", False),
        ("discretized-logistic", False),
        ("log-cosh", False),
        ("ms-ssim", False),
        ("continuous-bernoulli", False),
        ("bernoulli:0.1", False),
        ("categorical", False),
        ("scaled:0.1", False),
    ],
)
def test_exports_evaluate_known_likelihoods(likelihood, known):
    assert needs_only_mean(likelihood) == known


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        (
            "unit",
            "use the likelihood bernoulli or continuous-bernoulli or gaussian or laplace or gaussian-identity or "
            "laplace-identity or discretized-logistic or discretized-logistic-mixture or categorical-256",
        ),
        ("real", "use the likelihood gaussian or laplace or gaussian-identity or laplace-identity"),
        ("count", "use the likelihood poisson or nb or zinb"),
    ],
)
def test_wrong_kind_names_likelihoods(kind, hint):
    with pytest.raises(VaezooError, match=f"is not for data of kind {kind}") as e:
        make_likelihood("categorical", kind)
    assert e.value.hint == hint
