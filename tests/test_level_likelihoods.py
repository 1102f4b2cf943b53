"""Likelihoods of 256 grey levels: they add up to 1, and equal independent references, also in their tails."""

import math

import pytest
import torch
from torch import distributions as D

from vaezoo import DataSpec, create_model
from vaezoo.data.base import TensorSplit
from vaezoo.errors import VaezooError
from vaezoo.evaluation.likelihood import elbo
from vaezoo.likelihoods.levels import LEVELS, MAX_LOG_SCALE, MIN_LOG_SCALE, STEP, level_log_prob, level_mean
from vaezoo.likelihoods.make import make_likelihood

LOGISTIC, MIXTURE, CATEGORICAL = "discretized-logistic", "discretized-logistic-mixture:3", "categorical-256"
VALUES = STEP * torch.arange(LEVELS, dtype=torch.float64)
SCALES = torch.linspace(MIN_LOG_SCALE, MAX_LOG_SCALE, 9, dtype=torch.float64).exp()
LOCATIONS = torch.tensor([-3.0, -0.02, 0.0, 0.3, 0.5, 0.999, 1.0, 2.0], dtype=torch.float64)
COLOUR = (3, 2, 2)


def logistic(location, scale):
    """Returns torch's logistic distribution, built from a uniform one."""
    transforms = [D.SigmoidTransform().inv, D.AffineTransform(location, scale)]
    return D.TransformedDistribution(D.Uniform(torch.zeros_like(location), torch.ones_like(location)), transforms)


def reference(x, location, scale):
    """Returns P(x) as differences of the distribution function, whose ends count to the outer levels."""
    distribution = logistic(location, scale)
    upper = torch.where(x > 1 - STEP / 2, 1.0, distribution.cdf(x + STEP / 2))
    lower = torch.where(x < STEP / 2, 0.0, distribution.cdf(x - STEP / 2))
    return upper - lower


def params_of(text, shape, n, seed=0):
    torch.manual_seed(seed)
    likelihood = make_likelihood(text).double()
    return likelihood, torch.randn((n, *likelihood.params_shape(shape)), dtype=torch.float64)


@pytest.mark.parametrize("scale", SCALES.tolist())
def test_discretized_logistic_adds_up(scale):
    location = LOCATIONS[:, None].expand(-1, LEVELS)
    log_scale = torch.full_like(location, math.log(scale))
    log_p = level_log_prob(VALUES.expand_as(location), location, log_scale)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(len(LOCATIONS), dtype=torch.float64))
    expected = reference(VALUES.expand_as(location), location, log_scale.exp())
    torch.testing.assert_close(log_p.exp(), expected, rtol=1e-9, atol=1e-12)
    mean = level_mean(LOCATIONS, torch.full_like(LOCATIONS, math.log(scale)))
    assert ((log_p.exp() * VALUES).sum(1) - mean).abs().max() < 0.2 * STEP


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 3), (5,)], ids=str)
@pytest.mark.parametrize("text", [LOGISTIC, MIXTURE, CATEGORICAL])
def test_levels_of_each_value_add_up(text, shape):
    """The values are independent. Changing one over all levels gives probabilities that add up to the others'."""
    likelihood, params = params_of(text, shape, 1)
    x = torch.rand(shape, dtype=torch.float64)
    rows = x.flatten().repeat(LEVELS, 1)
    totals = []
    for i in range(x.numel()):
        changed = rows.clone()
        changed[:, i] = VALUES
        log_p = likelihood.log_prob(params.expand(LEVELS, *params.shape[1:]), changed.view(LEVELS, *shape))
        totals.append(log_p.logsumexp(0))
    single = likelihood.log_prob(params, x[None])
    # prod_i P_i(x_i) is the product of the n sums over one value, to the power 1/(n-1).
    torch.testing.assert_close(torch.stack(totals).sum(0), (x.numel() - 1) * single[0], rtol=1e-9, atol=1e-9)


def test_one_component_is_the_logistic():
    likelihood, params = params_of("discretized-logistic-mixture:1", (1, 3, 3), 5)
    others = params[:, 1:]
    x = torch.rand(5, 1, 3, 3, dtype=torch.float64)
    expected = make_likelihood(LOGISTIC).log_prob(others, x)
    torch.testing.assert_close(likelihood.log_prob(params, x), expected)
    torch.testing.assert_close(likelihood.mean(params), make_likelihood(LOGISTIC).mean(others))


def test_mixture_of_grey_values_by_hand():
    likelihood, params = params_of(MIXTURE, (1, 2, 2), 5)
    params[:, 3:] = torch.sigmoid(params[:, 3:])  # wide enough for differences in float64
    logits, location, raw = params.view(5, 3, 3, 2, 2).unbind(1)
    x = STEP * torch.randint(0, LEVELS, (5, 1, 2, 2)).double()
    middle, half = (MIN_LOG_SCALE + MAX_LOG_SCALE) / 2, (MAX_LOG_SCALE - MIN_LOG_SCALE) / 2
    scale = (middle + half * torch.tanh(raw / half)).exp()
    p = (torch.softmax(logits, 1) * reference(x.expand(-1, 3, -1, -1), location, scale)).sum(1)
    torch.testing.assert_close(likelihood.log_prob(params, x), p.log().sum((1, 2)))


def colour_reference(params, x):
    """Returns P(x) of the pixels of a colour image under a mixture of three components, `(B, H, W)`, in [-1, 1].

    These are the formulas of Salimans et al. 2017 for pixels from -1 to 1, with their names.
    """
    middle, half = (MIN_LOG_SCALE + MAX_LOG_SCALE) / 2, (MAX_LOG_SCALE - MIN_LOG_SCALE) / 2
    logits, m, raw, c = params[:, :3], *(p.unflatten(1, (3, 3)) for p in params[:, 3:].split([9, 9, 9], 1))
    red, green, blue = (2 * x - 1).unbind(1)
    scale, c, m = 2 * (middle + half * torch.tanh(raw / half)).exp(), torch.tanh(c), 2 * m - 1
    means = (
        m[:, :, 0],
        m[:, :, 1] + c[:, :, 0] * red[:, None],
        m[:, :, 2] + c[:, :, 1] * red[:, None] + c[:, :, 2] * green[:, None],
    )
    p = torch.softmax(logits, 1)
    for i, value in enumerate((red, green, blue)):
        distribution = logistic(means[i], scale[:, :, i])
        value = value[:, None].expand_as(means[i])
        upper = torch.where(value > 0.999, 1.0, distribution.cdf(value + STEP))
        p = p * (upper - torch.where(value < -0.999, 0.0, distribution.cdf(value - STEP)))
    return p.sum(1)


def test_colour_mixture_is_that_of_pixelcnn():
    likelihood, params = params_of(MIXTURE, COLOUR, 40)
    assert likelihood.params_shape(COLOUR) == (30, 2, 2)
    params[:, 3:21] = 0.5 + torch.sigmoid(params[:, 3:21])  # wide enough for differences in float64
    x = STEP * torch.randint(0, LEVELS, (40, *COLOUR)).double()
    x[:5], x[5:10] = 0, 1
    torch.testing.assert_close(likelihood.log_prob(params, x), colour_reference(params, x).log().sum((1, 2)))


def test_colour_mixture_adds_up():
    """Over all greens and blues, the probabilities add up to that of red, which adds up to 1."""
    likelihood, params = params_of(MIXTURE, (3, 1, 1), 1)
    params[:, 21:] *= 3  # strong coefficients
    green, blue = torch.meshgrid(VALUES, VALUES, indexing="ij")
    logits, location, raw = params[:, :3], params[:, 3:12:3], params[:, 12:21:3]
    of_red = make_likelihood(MIXTURE)
    for red in (0.0, 0.2, 1.0):
        red_level = round(red / STEP) * STEP
        x = torch.stack([torch.full_like(green, red_level), green, blue], -1).view(-1, 3, 1, 1)
        total = likelihood.log_prob(params.expand(len(x), -1, -1, -1), x).exp().sum()
        expected = of_red.log_prob(torch.cat([logits, location, raw], 1), torch.full((1, 1, 1, 1), red_level).double())
        assert total.item() == pytest.approx(expected.exp().item(), rel=1e-9)


def test_categories_equal_pytorch():
    likelihood, params = params_of(CATEGORICAL, (2, 3), 5)
    assert likelihood.params_shape((2, 3)) == (512, 3)
    index = torch.randint(0, LEVELS, (5, 2, 3))
    expected = D.Categorical(logits=params.view(5, LEVELS, 2, 3).movedim(1, -1))
    torch.testing.assert_close(likelihood.log_prob(params, index * STEP), expected.log_prob(index).sum((1, 2)))
    torch.testing.assert_close(likelihood.mean(params), (expected.probs * VALUES).sum(-1))


@pytest.mark.slow
@pytest.mark.parametrize("text", [LOGISTIC, MIXTURE, CATEGORICAL])
@pytest.mark.parametrize("shape", [(1, 2, 2), COLOUR, (4,)], ids=str)
def test_samples_have_the_mean(text, shape):
    likelihood, params = params_of(text, shape, 1)
    rows = 20_000
    samples = likelihood.sample(params.expand(rows, *params.shape[1:]))
    assert samples.shape == (rows, *shape)
    levels = samples / STEP
    torch.testing.assert_close(levels, levels.round(), atol=1e-6, rtol=0)
    assert levels.min() >= 0 and levels.max() <= LEVELS - 1
    # The mean of the later channels of a colour is exact only where nothing is clipped.
    slack = 0.03 if text == MIXTURE and shape == COLOUR else 1e-3
    error = 5 * samples.std(0) / math.sqrt(rows)
    assert ((samples.mean(0) - likelihood.mean(params)[0]).abs() < error + slack).all()


def test_colour_mean_is_exact_inside():
    """Where no component reaches the ends, the mean is linear, so the means of the channels before give it."""
    likelihood, params = params_of(MIXTURE, (3, 1, 1), 1)
    params[:, 3:12] = 0.5 + 0.05 * torch.tanh(params[:, 3:12])
    params[:, 12:21] = 0.3 * torch.tanh(params[:, 12:21]) - 1
    samples = likelihood.sample(params.expand(100_000, -1, -1, -1))
    assert samples.min() > 0 and samples.max() < 1
    assert (samples.mean(0) - likelihood.mean(params)[0]).abs().max() < 5 * samples.std(0).max() / math.sqrt(100_000)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("text", [LOGISTIC, MIXTURE, CATEGORICAL])
def test_values_and_gradients_stay_finite(text, size):
    likelihood, _ = params_of(text, COLOUR, 1)
    params = (size * torch.randn(8, *likelihood.params_shape(COLOUR))).requires_grad_()
    x = STEP * torch.randint(0, LEVELS, (8, *COLOUR)).float()
    x[0], x[1] = 0, 1
    value = likelihood.log_prob(params, x)
    (gradient,) = torch.autograd.grad(value.sum() + likelihood.mean(params).sum(), params)
    assert value.isfinite().all() and gradient.isfinite().all() and (value <= 0).all()


def test_tails_keep_their_logarithm():
    """Far from the location, float32 has the logarithm that float64 has, where differences would be 0."""
    x, location, log_scale = torch.tensor([0.5]), torch.tensor([-2.0]), torch.tensor([-5.0])
    actual = level_log_prob(x, location, log_scale)
    scale = math.exp(-5.0)
    expected = -2.5 / scale + STEP / 2 / scale + math.log(1 - math.exp(-STEP / scale))  # exp(-u) for 1 - S(u)
    assert actual.item() == pytest.approx(expected, rel=1e-5)
    assert reference(x, location, log_scale.exp()).log().isinf().all()


@pytest.mark.parametrize("text", [LOGISTIC, MIXTURE, CATEGORICAL])
def test_values_are_rounded_to_levels(text):
    likelihood, params = params_of(text, (6,), 1)
    x = torch.tensor([[0.0, 0.1, 0.5, 0.9, 0.997, 1.0]], dtype=torch.float64)
    rounded = (x * 255).round() / 255
    torch.testing.assert_close(likelihood.log_prob(params, x), likelihood.log_prob(params, rounded))


def test_location_of_the_mean():
    likelihood, mean = make_likelihood(LOGISTIC), torch.tensor([0.2, 0.5, 0.8])
    params = likelihood.params_of_mean(mean)
    assert params.shape == likelihood.params_shape((3,))
    torch.testing.assert_close(likelihood.mean(params[None])[0], mean, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["mlp-vae", "conv-vae"])
def test_uniform_levels_cost_eight_bits(name):
    """With equal logits and a KL of 0, each value costs log2(256) bits."""
    data = DataSpec(name="images", shape=(3, 8, 8), likelihood=CATEGORICAL)
    vae = create_model(name, data)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
    x = torch.randint(0, LEVELS, (10, 3, 8, 8), dtype=torch.uint8)
    assert elbo(vae, TensorSplit(x, None), num_samples=1).bits_per_dim == pytest.approx(8, rel=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "discretized-logistic:2",
        "discretized-logistic-mixture:x",
        "discretized-logistic-mixture:0",
        "discretized-logistic-mixture:-1",
        "discretized-logistic-mixture:1000",
        "categorical-256:3",
    ],
)
def test_wrong_arguments_are_refused(text):
    with pytest.raises(VaezooError) as e:
        make_likelihood(text)
    assert e.value.hint


@pytest.mark.parametrize("text", [LOGISTIC, MIXTURE, CATEGORICAL])
def test_levels_need_unit_data(text):
    with pytest.raises(VaezooError, match="is not for data of kind real"):
        make_likelihood(text, "real")
