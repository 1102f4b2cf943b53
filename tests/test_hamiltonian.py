"""The Hamiltonian posterior: its steps, its bound against exact likelihoods, and what an export says about it."""

import json
import math

import pytest
import torch
from members import member_data
from torch import nn
from torch.distributions import MultivariateNormal

import vaezoo
from vaezoo import TrainConfig
from vaezoo.composition import MLPParts, compose, composed_objective
from vaezoo.core.options import configure
from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.evaluation.likelihood import log_weights
from vaezoo.objectives.base import StepContext
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.posteriors.base import draw, repeat
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.posteriors.hamiltonian import MAX_STEP, HamiltonianPart, HamiltonianPosterior, Leapfrog, leapfrog

TEMPERINGS = ("fixed", "free", "none")
LINEAR = DataSpec(name="linear", shape=(3,), kind="real", likelihood="gaussian:0.5")
IMAGES = DataSpec(name="images", shape=(1, 4, 4), classes=(3,))


def build(options=None, data=IMAGES, **more):
    torch.manual_seed(1)
    options = {"posterior": "hamiltonian", "hidden": "16", "latent_dim": 3} | (options or {}) | more
    config = configure(MLPParts(), options)
    return compose(config, data), composed_objective(config, data)


def steps(tempering="fixed", n=3, count=4, size=0.3, beta=0.4):
    return Leapfrog(n, count, size, tempering, beta).double()


def two_normal():
    return torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def slope(z):
    """The gradient of a density that is not Gaussian and whose latents depend on each other."""
    return -z - torch.sin(2 * z.flip(1)) - 0.1 * z.sum(1, keepdim=True) ** 3


def jacobian_of_joint(move, n=3):
    """Returns the determinant of a map of z and momentum, by autograd."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2 * n, generator=generator, dtype=torch.float64)

    def both(joint):
        z, momentum = move(joint[None, :n], joint[None, n:])
        return torch.cat([z, momentum], 1)[0]

    return torch.linalg.det(torch.autograd.functional.jacobian(both, start))


@pytest.mark.parametrize("tempering", TEMPERINGS)
@pytest.mark.parametrize("count", [0, 1, 4])
def test_volume_is_kept(tempering, count):
    """Noise becomes momentum with the determinant 1: the factors of the tempering multiply to 1."""
    move = steps(tempering, count=count)
    determinant = jacobian_of_joint(lambda z, noise: move(z, noise, gradient_of_energy))
    assert float(determinant) == pytest.approx(1, abs=1e-10)


def gradient_of_energy(z):
    """A gradient: its Jacobian is symmetric, as that of log p(x, z) is."""
    with torch.enable_grad():
        point = z if z.requires_grad else z.detach().requires_grad_()
        log_p = -0.5 * point.square().sum() - torch.cos(2 * point).prod() - 0.05 * point.sum() ** 4
        return torch.autograd.grad(log_p, point, create_graph=True)[0]


def test_one_step_keeps_volume_and_is_reversible():
    size = torch.tensor([0.1, 0.3, 0.5], dtype=torch.float64)

    def move(z, momentum):
        return leapfrog(z, momentum, slope(z), size, slope)[:2]

    assert float(jacobian_of_joint(move)) == pytest.approx(1, abs=1e-12)
    z, momentum = two_normal()
    there, faster = move(z, momentum)
    back, reversed_momentum = move(there, -faster)
    assert (there - z).abs().mean() > 0.1
    torch.testing.assert_close(back, z)
    torch.testing.assert_close(reversed_momentum, -momentum)


def test_gaussian_latents_move_on_circles():
    """For the standard normal the exact motion is a rotation: z(t) = z cos t + momentum sin t."""
    move = steps("none", count=200, size=0.005)
    z, momentum = two_normal()
    with torch.no_grad():
        moved, faster = move(z, momentum, lambda z: -z)
    torch.testing.assert_close(moved, z * math.cos(1) + momentum * math.sin(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(faster, momentum * math.cos(1) - z * math.sin(1), atol=1e-5, rtol=0)


def test_temperatures():
    """The quadratic schedule of the paper, and factors of a free one that multiply to sqrt(beta_0)."""
    beta, count = 0.4, 4
    fixed = torch.stack(steps("fixed", count=count, beta=beta).scales()).tolist()
    first = 1 / math.sqrt(beta)
    assert fixed == pytest.approx([(1 - first) * (k / count) ** 2 + first for k in range(count + 1)])
    free = steps("free", count=count, beta=beta)
    assert torch.stack(free.scales()).tolist() == pytest.approx([first ** (1 - k / count) for k in range(count + 1)])
    with torch.no_grad():
        free.raw_factors.copy_(torch.logit(torch.tensor([0.5, 0.8, 0.9, 0.99])))
    scales = torch.stack(free.scales())
    assert (scales[1:] / scales[:-1]).tolist() == pytest.approx([0.5, 0.8, 0.9, 0.99])
    assert scales[-1] == 1 and [float(s) for s in steps("none").scales()] == [1] * 5


@pytest.mark.parametrize("tempering", ["fixed", "free"])
def test_tempering_has_an_effect(tempering):
    hot, cold = (steps(tempering, beta=beta)(*two_normal(), slope) for beta in (0.2, 0.9))
    assert all((a - b).abs().mean() > 0.1 for a, b in zip(hot, cold, strict=True))


def test_step_sizes_are_bounded():
    move = Leapfrog(2, 1, 0.1, "none", 0.5)
    with torch.no_grad():
        assert (MAX_STEP * torch.sigmoid(move.raw_size)).tolist() == pytest.approx([0.1, 0.1])
        move.raw_size.fill_(50.0)
        z = move(torch.zeros(1, 2), torch.ones(1, 2), lambda z: torch.zeros_like(z))[0]
    assert z.tolist() == [[MAX_STEP, MAX_STEP]]


def test_no_steps_are_the_diagonal_posterior():
    x = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    outputs = []
    for options in ({"posterior": "diagonal"}, {"posterior.steps": 0}):
        vae, _ = build(options)
        torch.manual_seed(3)
        outputs.append(elbo_terms(vae, Batch(x), at_sample=True))
    assert torch.equal(outputs[0].z, outputs[1].z) and not vae.left_out
    torch.testing.assert_close(outputs[0].kl_terms, outputs[1].kl_terms)
    assert outputs[0].metrics["elbo"].item() == pytest.approx(outputs[1].metrics["elbo"].item(), abs=1e-5)


@pytest.mark.parametrize("tempering", TEMPERINGS)
def test_bound_by_hand(tempering):
    """log p(x, z_K) + log N(rho_K) - log q(z_0) - log N(rho_0; 0, 1 / beta_0) + log |det|, written out."""
    vae, _ = build({"posterior.tempering": tempering, "posterior.steps": 3})
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    terms = elbo_terms(vae, Batch(x))
    torch.manual_seed(5)
    q = vae.encode(x)
    assert isinstance(q, DiagonalGaussian)
    z = start = q.rsample()
    noise = torch.randn(z.shape)

    def log_joint(z):
        return vae.likelihood.log_prob(vae.decode(z), x) + vae.prior.log_prob(z)

    size, scales = MAX_STEP * torch.sigmoid(vae.head.leapfrog.raw_size), vae.head.leapfrog.scales()
    rho = first = scales[0] * noise
    for k in range(3):
        z_leaf = z.detach().requires_grad_()
        rho = rho + 0.5 * size * torch.autograd.grad(log_joint(z_leaf).sum(), z_leaf)[0]
        z = z + size * rho
        z_leaf = z.detach().requires_grad_()
        rho = rho + 0.5 * size * torch.autograd.grad(log_joint(z_leaf).sum(), z_leaf)[0]
        rho = rho * scales[k + 1] / scales[k]
    torch.testing.assert_close(terms.z, z)
    rest = torch.distributions.Normal(0, 1).log_prob(rho) - torch.distributions.Normal(0, scales[0]).log_prob(first)
    log_det = 3 * torch.log(scales[-1] / scales[0])  # of the tempering: each factor scales 3 latents
    elbo = log_joint(z) + rest.sum(1) - q.log_prob(start) + log_det
    torch.testing.assert_close(-(terms.reconstruction + terms.kl_terms.sum(1)), elbo, rtol=1e-5, atol=1e-4)


def test_gradients_flow_through_the_steps():
    """Finite differences of the loss by the step size, a weight of the decoder and one of the encoder."""
    vae, objective = build({"activation": "tanh"})
    vae.double()
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()

    def loss():
        torch.manual_seed(5)
        return objective(vae, Batch(x), StepContext.initial()).losses["vae"]

    parameters = [
        vae.head.leapfrog.raw_size,
        vae.head.leapfrog.raw_beta,
        next(m for m in vae.decoder if isinstance(m, nn.Linear)).weight,
        next(m for m in vae.encoder.modules() if isinstance(m, nn.Linear)).bias,
    ]
    gradients = torch.autograd.grad(loss(), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        with torch.no_grad():
            first = parameter.view(-1)[:1]
            first += 1e-4
            above = loss()
            first -= 2e-4
            below = loss()
            first += 1e-4
        assert float((above - below) / 2e-4) == pytest.approx(float(gradient.view(-1)[0]), rel=1e-5, abs=1e-7)
        assert abs(float(gradient.view(-1)[0])) > 1e-6


def test_training_evaluation_and_likelihood_share_the_draws():
    """The same noise becomes the same z, with the same density, whether or not gradients are wanted."""
    vae, _ = build()
    batch = Batch(torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)))
    torch.manual_seed(5)
    training = elbo_terms(vae, batch)
    assert isinstance(training.posterior, HamiltonianPosterior) and training.z.requires_grad
    with torch.no_grad():
        torch.manual_seed(5)
        evaluation = elbo_terms(vae, batch)
        torch.manual_seed(5)
        weights = log_weights(vae, batch, vae.infer(batch), 1)
    torch.testing.assert_close(evaluation.z, training.z)
    bound = -(training.reconstruction + training.kl_terms.sum(1))
    torch.testing.assert_close(-(evaluation.reconstruction + evaluation.kl_terms.sum(1)), bound, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(weights[:, 0], bound, rtol=1e-5, atol=1e-4)


def test_an_example_moves_alone():
    vae, _ = build()
    vae.eval()
    x, y = torch.rand(3, 1, 4, 4), torch.tensor([0, 1, 2])
    posterior = vae.infer(Batch(x, y))
    assert isinstance(posterior, HamiltonianPosterior)
    with torch.no_grad():
        moved = [posterior.leapfrog(posterior.mu, torch.ones(3, 3), posterior._gradient)[0]]
        for i in range(3):
            row = vae.infer(Batch(x[i : i + 1], y[i : i + 1]))
            moved.append(row.leapfrog(row.mu, torch.ones(1, 3), row._gradient)[0])
    torch.testing.assert_close(moved[0], torch.cat(moved[1:]))


def test_labels_reach_the_gradient():
    vae, _ = build({"condition": "labels", "prior": "conditional"})
    with torch.no_grad():
        vae.prior.mu.weight.normal_()
        x = torch.rand(1, 1, 4, 4)
        slopes = []
        for label in range(3):
            posterior = vae.infer(Batch(x, torch.tensor([label])))
            slopes.append(repeat(posterior, 2)._gradient(torch.zeros(2, 3)))
    assert all(torch.equal(s[0], s[1]) for s in slopes)
    assert not torch.allclose(slopes[0], slopes[1]) and not torch.allclose(slopes[1], slopes[2])


@pytest.mark.parametrize("tempering", TEMPERINGS)
def test_bound_is_below_and_nearer_to_the_exact_likelihood(tempering):
    """In a linear model log p(x) is known. p(z|x) is correlated, so that the diagonal posterior has a gap."""
    torch.manual_seed(0)
    w, b = torch.tensor([[1.0, 0.8], [0.9, 1.0], [0.2, 0.3]]), torch.tensor([0.1, -0.2, 0.3])
    x = torch.randn(2000, 2) @ w.T + b + 0.5 * torch.randn(2000, 3)
    exact = MultivariateNormal(b, w @ w.T + 0.25 * torch.eye(3)).log_prob(x).mean().item()
    bounds = {}
    for name, options in (
        ("diagonal", {"posterior": "diagonal"}),
        (tempering, {"posterior.tempering": tempering, "posterior.steps": 1, "posterior.step_size": 0.3}),
    ):
        torch.manual_seed(0)
        config = configure(MLPParts(hidden=(), latent_dim=2), {"posterior": "hamiltonian"} | options)
        vae, objective = compose(config, LINEAR), composed_objective(config, LINEAR)
        layer = next(m for m in vae.decoder if isinstance(m, nn.Linear))
        with torch.no_grad():
            layer.weight.copy_(w)
            layer.bias.copy_(b)
        optimizer = torch.optim.Adam(vae.inference_parameters(), lr=0.02)
        for _ in range(400):
            loss = objective(vae, Batch(x[torch.randint(2000, (200,))]), StepContext.initial()).losses["vae"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        vae.eval()
        with torch.no_grad():
            bounds[name] = elbo_terms(vae, Batch(x), 20, at_sample=True).metrics["elbo"].item()
    gap, gap_of_diagonal = exact - bounds[tempering], exact - bounds["diagonal"]
    assert gap_of_diagonal > 0.6
    assert 0 < gap < gap_of_diagonal - 0.08, (gap, gap_of_diagonal)


def test_density_comes_with_the_draw():
    vae, _ = build()
    posterior = vae.infer(Batch(torch.rand(2, 1, 4, 4)))
    z, log_q = draw(posterior, density=True)
    assert z.shape == (2, 3) and log_q.shape == (2,)
    with pytest.raises(VaezooError, match="known only of z that they reached"):
        posterior.log_prob(z)
    assert torch.equal(posterior.mode(), posterior.mu) and list(posterior.outputs()) == ["mu", "logvar"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"steps": -1}, r"posterior\.steps' is -1"),
        ({"step_size": 0.5}, r"posterior\.step_size' is 0\.5"),
        ({"step_size": 0.0}, r"posterior\.step_size' is 0"),
        ({"inverse_temperature": 1.0}, r"posterior\.inverse_temperature' is 1"),
        ({"inverse_temperature": float("nan")}, r"posterior\.inverse_temperature' is nan"),
    ],
)
def test_bad_options(options, error):
    with pytest.raises(VaezooError, match=error) as e:
        HamiltonianPart(**options)
    assert e.value.hint


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"prior": "vamp"}, "prior=vamp needs posterior=diagonal, not posterior=hamiltonian"),
        ({"prior": "exemplar"}, "prior=exemplar needs posterior=diagonal"),
        ({"prior": "sphere"}, "posterior=hamiltonian lies in the space 'real', but prior=sphere"),
        ({"prior": "zero-kl"}, "prior=zero-kl leaves out the KL, but posterior=hamiltonian"),
        ({"objective": "dip"}, "objective=dip needs posterior=diagonal, not posterior=hamiltonian"),
        ({"objective": "iwae", "objective.gradient": "dreg"}, "objective=iwae needs a density"),
    ],
)
def test_refused_pairings(options, error):
    with pytest.raises(VaezooError, match=error) as e:
        build(options)
    assert e.value.hint


def test_texts_are_refused():
    data = member_data("names").spec
    with pytest.raises(VaezooError, match="posterior=hamiltonian takes gradients of the decoder") as e:
        vaezoo.create_model("sentence-vae", data, {"posterior": "hamiltonian"})
    assert e.value.hint


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    options = {"hidden": "16", "latent_dim": 3, "posterior.steps": 2}
    config = TrainConfig(steps=5, batch_size=20, eval_every=1_000, device="cpu")
    out = tmp_path_factory.mktemp("hamiltonian") / "run"
    return vaezoo.train("hamiltonian-vae", member_data("digits"), options=options, config=config, out=out)


def test_no_other_prior(trained, tmp_path):
    """The steps follow the prior, so another one would change the codes to which it was fitted."""
    with pytest.raises(VaezooError, match="the posterior of hamiltonian-vae belongs to its prior"):
        vaezoo.fit_prior(trained, data=member_data("digits"), out=tmp_path / "run")


@pytest.mark.slow
def test_export_says_what_it_leaves_out(trained, tmp_path):
    path = vaezoo.export_onnx(trained, tmp_path / "whole").path
    manifest, card = json.loads((path / "manifest.json").read_text()), (path / "README.md").read_text()
    assert "2 leapfrog steps" in manifest["left_out"] and manifest["left_out"] in card
    x = trained.examples.x[:7]
    model = vaezoo.runtime.load(path)
    with torch.no_grad():
        q = trained.vae.encode(x)
    fields = model.encode(x.numpy())
    assert isinstance(q, DiagonalGaussian) and set(fields) == {"mu", "logvar"}
    torch.testing.assert_close(torch.from_numpy(fields["logvar"]), q.logvar, atol=1e-5, rtol=1e-4)
    with pytest.raises(UnsupportedDataError, match="it leaves out a part of the posterior"):
        vaezoo.evaluate(model, member_data("digits"))
    decoder = vaezoo.export_onnx(trained, tmp_path / "decoder", parts=["decoder"]).path
    assert "left_out" not in json.loads((decoder / "manifest.json").read_text())
