"""The objective of latent diffusion: its terms against their formulas, its two adversaries, and LPIPS."""

import hashlib
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lpips_weights import lpips_of_torchmetrics, save
from torch import nn

import vaezoo
from vaezoo import Batch, DataSpec, StepContext, TrainConfig
from vaezoo.core.foreign_weights import read_weights
from vaezoo.core.options import configure
from vaezoo.core.perceptual import Layer, LpipsFiles, PerceptualDistance, load_classifier, load_lpips
from vaezoo.errors import InputError, UnsupportedDataError, VaezooError
from vaezoo.models.autoencoder_kl import SPEC
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.objectives.latent_diffusion import LatentDiffusionPart, adaptive_weight, last_weight
from vaezoo.objectives.patch_discriminator import PatchDiscriminator, hinge

SMALL = {"channels": "4,4", "norm_groups": 2, "objective": "latent-diffusion", "objective.channels": 4}
SMALL |= {"objective.layers": 1, "objective.start": 5}
X = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def build(likelihood="laplace:0.5", **options):
    data = DataSpec(name="x", shape=(3, 16, 16), likelihood=likelihood)
    config = configure(SPEC.config, {**SMALL, **{f"objective.{name}": value for name, value in options.items()}})
    torch.manual_seed(0)
    return SPEC.build(config, data), SPEC.objective(config, data)


def at(step):
    return StepContext.initial()._replace(global_step=torch.tensor(float(step)))


def run(vae, objective, step):
    torch.manual_seed(1)
    return objective(vae, Batch(X), at(step))


def gradients(output, vae, group="vae"):
    return torch.autograd.grad(output.losses[group], list(vae.parameters()), retain_graph=True)


@pytest.mark.parametrize(("likelihood", "b"), [("laplace:0.5", 0.5), ("laplace:0.2", 0.2), ("laplace:learned", 1.0)])
def test_loss_is_that_of_the_published_code(likelihood, b):
    """Pixels from -1 to 1, a scale e^s = 2b, the perceptual loss added to each pixel, sums divided by the batch."""
    vae, objective = build(likelihood, weight=0, beta=0.01, perceptual_weight=0.7)
    loss = run(vae, objective, 0).losses["vae"]
    torch.manual_seed(1)
    terms = elbo_terms(vae, Batch(X))
    x, mean, s = 2 * X - 1, 2 * torch.sigmoid(terms.params) - 1, math.log(2 * b)
    distance = load_classifier()(X, torch.sigmoid(terms.params)).view(-1, 1, 1, 1)
    nll = ((x - mean).abs() + 0.7 * distance) / math.exp(s) + s
    mu, logvar = vae.encode(X)
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum() / 3
    torch.testing.assert_close(loss, nll.sum() / 3 + 0.01 * kl, rtol=1e-5, atol=1e-3)


def test_other_likelihoods_keep_the_weight():
    vae, objective = build("bernoulli", weight=0)
    output = run(vae, objective, 0)
    torch.manual_seed(1)
    terms = elbo_terms(vae, Batch(X))
    expected = 768 * load_classifier()(X, torch.sigmoid(terms.params)).mean()
    torch.testing.assert_close(output.metrics["perceptual"], expected.detach())
    assert output.metrics["weighted_elbo"] == pytest.approx(-float(output.losses["vae"].detach()), rel=1e-6)
    assert objective.monitor == "weighted_elbo" and build()[1].monitor is None


def test_adaptive_weight_by_hand():
    """Gradients (3, 4) and (0, 2) have the norms 5 and 2."""
    w = torch.zeros(2, requires_grad=True)
    reconstruction, adversarial = w @ torch.tensor([3.0, 4.0]), w @ torch.tensor([0.0, 2.0])
    weight = adaptive_weight(reconstruction, adversarial, w)
    assert float(weight) == pytest.approx(5 / 2.0001) and not weight.requires_grad
    assert float(adaptive_weight(reconstruction, 1e-9 * adversarial, w)) == 1e4
    with torch.no_grad():
        assert float(adaptive_weight(reconstruction, adversarial, w)) == 0


def test_adversarial_loss_has_the_adaptive_weight():
    """The gradient in the last layer is that of all terms, each computed alone."""
    vae, objective = build(weight=0.3, perceptual="none", beta=0)
    last = last_weight(vae)
    assert last is vae.decoder.conv_out.weight
    output = run(vae, objective, 5)
    (total,) = torch.autograd.grad(output.losses["vae"], last)
    torch.manual_seed(1)
    terms = elbo_terms(vae, Batch(X))
    (first,) = torch.autograd.grad(terms.reconstruction.mean(), last, retain_graph=True)
    fake = objective.discriminator(2 * torch.sigmoid(terms.params) - 1)
    (second,) = torch.autograd.grad(-fake.mean(), last)
    weight = 0.3 * min(float(first.norm() / (second.norm() + 1e-4)), 1e4)
    torch.testing.assert_close(output.metrics["adversarial_weight"], torch.tensor(weight), rtol=1e-4, atol=0)
    torch.testing.assert_close(total, first + weight * second, rtol=1e-4, atol=1e-4)


def test_hinge_losses():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 2.0])
    assert float(hinge(real, fake)) == pytest.approx(0.5 * ((0 + 0.5 + 2) / 3 + (0 + 1 + 3) / 3))
    vae, objective = build()
    output = run(vae, objective, 5)
    torch.manual_seed(1)
    mean = vae.likelihood.mean(elbo_terms(vae, Batch(X)).params)
    real, fake = (objective.discriminator(2 * images - 1) for images in (X, mean))
    expected = 0.5 * ((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean())
    torch.testing.assert_close(output.losses["discriminator"], expected)
    torch.testing.assert_close(output.metrics["adversarial"], -fake.mean().detach())


def test_nothing_is_adversarial_before_the_start():
    vae, objective = build()
    plain = run(vae, build(weight=0)[1], 4)
    before, after = run(vae, objective, 4), run(vae, objective, 5)
    pairs = list(zip(gradients(plain, vae), gradients(before, vae), gradients(after, vae), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs) and not all(torch.equal(b, c) for _, b, c in pairs)
    parameters = list(objective.discriminator.parameters())
    sizes = [
        sum(float(g.abs().sum()) for g in torch.autograd.grad(output.losses["discriminator"], parameters))
        for output in (before, after)
    ]
    assert sizes[0] == 0 < sizes[1]


def test_discriminator_starts_to_move_at_the_start(digits, tmp_path):
    options = {"channels": "8,8", "norm_groups": 4, "objective": "latent-diffusion", "objective.channels": 8}
    weights = []
    for steps in (2, 3, 5):
        config = TrainConfig(steps=steps, batch_size=20)
        path = tmp_path / str(steps)
        chosen = {**options, "objective.start": 3}
        weights.append([])
        vaezoo.train(
            "autoencoder-kl",
            digits,
            options=chosen,
            config=config,
            out=path,
            on_start=lambda trainer, path: weights[-1].append(trainer.objective.discriminator.main[0].weight),
        )
    first, second, third = (group[0].detach() for group in weights)
    assert torch.equal(first, second) and not torch.equal(second, third)


def test_groups():
    vae, objective = build()
    groups = objective.parameter_groups(vae)
    assert {id(p) for p in groups["vae"]} == {id(p) for p in vae.parameters()}
    assert {id(p) for p in groups["discriminator"]} == {id(p) for p in objective.parameters()}
    assert all(name.startswith("discriminator.") for name in objective.state_dict())  # no fixed network


@pytest.mark.parametrize(("side", "layers"), [(28, 3), (24, 3), (12, 2), (6, 1), (70, 3)])
def test_patches(side, layers):
    """The sizes of PatchGAN: halved `layers` times, then shortened twice by 1."""
    discriminator = PatchDiscriminator(3, 4, layers)
    logits = discriminator(torch.rand(2, 3, side, side))
    assert logits.shape == (2, 1, side // 2**layers - 2, side // 2**layers - 2)
    widths = [m.out_channels for m in discriminator.main if isinstance(m, nn.Conv2d)]
    assert widths == [4 * 2**i for i in range(layers + 1)] + [1]


def test_each_logit_sees_a_patch():
    discriminator = PatchDiscriminator(1, 4, 3).eval()
    x = torch.rand(1, 1, 160, 160, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator(x)[0, 0, 9, 9], x)
    rows = (gradient[0, 0].abs().sum(1) > 0).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 70


def test_distance_by_formula():
    """Two levels of made-up weights, against loops over pixels and channels."""
    torch.manual_seed(0)
    levels = [[Layer(torch.randn(4, 3, 3, 3), torch.randn(4))], [Layer(torch.randn(5, 4, 3, 3), torch.randn(5))]]
    weights = [torch.rand(4), torch.rand(5)]
    distance = PerceptualDistance(levels, 1, weights, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    x, y = torch.rand(2, 2, 3, 6, 4)
    expected = torch.zeros(2)
    for i in range(2):
        features = []
        for image in (x[i], y[i]):
            scaled = torch.stack([(2 * image[c] - 1 - 0.1 * (c + 1)) / (0.5 + 0.1 * c) for c in range(3)])
            first = F.relu(F.conv2d(scaled[None], *levels[0][0], padding=1))
            second = F.relu(F.conv2d(F.max_pool2d(first, 2), *levels[1][0], padding=1))
            features.append((first[0], second[0]))
        for a, b, weight in zip(*features, weights, strict=True):
            for h in range(a.shape[1]):
                for w in range(a.shape[2]):
                    one, two = (f[:, h, w] / (f[:, h, w].norm() + 1e-10) for f in (a, b))
                    expected[i] += (weight * (one - two) ** 2).sum() / (a.shape[1] * a.shape[2])
    torch.testing.assert_close(distance(x, y), expected)
    grey = torch.rand(2, 2, 1, 6, 4)
    colours = [image.expand(-1, 3, -1, -1) for image in grey]
    torch.testing.assert_close(distance(*grey), distance(*colours))
    assert torch.equal(distance(x, x), torch.zeros(2)) and distance.state_dict() == {}


def test_gradient_is_finite_where_features_are_zero():
    levels = [[Layer(torch.ones(2, 1, 1, 1), torch.full((2,), -0.5))]]
    distance = PerceptualDistance(levels, 0, [torch.ones(2)], (-1.0,), (2.0,))
    x, y = torch.tensor([0.1, 0.9]).view(1, 1, 1, 2).requires_grad_(), torch.full((1, 1, 1, 2), 0.9)
    (gradient,) = torch.autograd.grad(distance(x, y).sum(), x)
    assert gradient.isfinite().all()


def test_classifier_sees_grey_images(digits):
    from vaezoo.evaluation.feature_extractors import find_feature_extractor

    body = find_feature_extractor((1, 28, 28)).network
    x, y = digits.test.batch(slice(4)).x, digits.test.batch(slice(4, 8)).x
    expected = 0
    with torch.no_grad():
        for layers in (body[:2], body[:5]):
            a, b = (f / f.norm(dim=1, keepdim=True).clamp(min=1e-10) for f in (layers(x), layers(y)))
            expected = expected + (a - b).square().sum(1).mean((1, 2))
    torch.testing.assert_close(load_classifier()(x, y), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        load_classifier()(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1)), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_lpips_is_that_of_torchmetrics(lpips_files):
    x, y = torch.rand(2, 3, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = lpips_of_torchmetrics(lpips_files)(2 * x - 1, 2 * y - 1).flatten()
        torch.testing.assert_close(load_lpips(lpips_files)(x, y), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_run_is_loaded_without_the_files(lpips_files, tmp_path):
    """Training reads them before it writes anything. Everything else does without them."""
    copies = [tmp_path / "vgg.pth", tmp_path / "linear.pth"]
    for source, copy in zip((lpips_files.vgg, lpips_files.lpips), copies, strict=True):
        copy.write_bytes(source.read_bytes())
    options = {**SMALL, "objective.perceptual": "lpips", "objective.vgg": str(copies[0])}
    options |= {"objective.vgg_sha256": lpips_files.vgg_sha256, "objective.lpips": str(copies[1])}
    options |= {"objective.lpips_sha256": lpips_files.lpips_sha256, "objective.start": 0}
    data = vaezoo.from_arrays(np.random.default_rng(0).random((30, 3, 16, 16), np.float32))
    config = TrainConfig(steps=2, batch_size=4)
    trained = vaezoo.train("autoencoder-kl", data, options=options, config=config, out=tmp_path / "run")
    assert trained.result["metrics"]["perceptual"] > 0
    assert sum(f.stat().st_size for f in trained.path.rglob("*") if f.is_file()) < 5_000_000
    copies[1].unlink()
    assert vaezoo.load(trained.path).sample(2, seed=0).shape == (2, 3, 16, 16)
    with pytest.raises(InputError, match="cannot read") as e:
        vaezoo.train("autoencoder-kl", data, options=options, config=config, out=tmp_path / "again")
    assert e.value.hint and not (tmp_path / "again").exists()


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    digits = save(path, {"features.0.weight": torch.zeros(64, 3, 3, 3)})
    assert set(read_weights(path, digits, 1 << 30, "hint")) == {"features.0.weight"}
    with pytest.raises(InputError, match=f"its SHA-256 begins with {digits}, not 397923af") as e:
        read_weights(path, "397923af", 1 << 30, "hint")
    assert e.value.hint
    with pytest.raises(InputError, match=r"no finite tensor 'features.0.bias' of shape \(64,\)"):
        load_lpips(LpipsFiles(vgg=path, vgg_sha256=digits, lpips=path, lpips_sha256=digits))
    path.write_bytes(b"no weights")
    digits = hashlib.sha256(b"no weights").hexdigest()[:8]
    with pytest.raises(InputError, match="holds no weights"):
        read_weights(path, digits, 1 << 30, "hint")
    digits = save(path, [torch.zeros(2)])
    with pytest.raises(InputError, match="holds a list"):
        read_weights(path, digits, 1 << 30, "hint")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"perceptual": "lpips"}, "needs the files objective.vgg and objective.lpips"),
        ({"vgg": "a.pth"}, "objective.vgg has no effect with objective.perceptual=lenet"),
        ({"perceptual": "none", "lpips": "a.pth"}, "objective.lpips has no effect with objective.perceptual=none"),
        ({"vgg_sha256": "397923"}, "objective.vgg_sha256 is '397923'"),
        ({"lpips_sha256": "A78928A0"}, "objective.lpips_sha256 is 'A78928A0'"),
        ({"beta": -1.0}, "objective.beta is -1"),
        ({"perceptual_weight": -1.0}, "objective.perceptual_weight is -1"),
        ({"weight": -0.5}, "objective.weight is -0.5"),
        ({"start": -1}, "objective.start is -1"),
        ({"channels": 0}, "'objective.channels' is 0"),
        ({"layers": 0}, "'objective.layers' is 0"),
    ],
)
def test_invalid_options_are_refused(options, error):
    with pytest.raises(VaezooError, match=error) as e:
        LatentDiffusionPart(**options)
    assert e.value.hint


@pytest.mark.parametrize(
    ("data", "options", "error"),
    [
        ({"shape": (20,)}, {}, r"compares images in \[0, 1\]"),
        ({"shape": (3, 32, 32), "kind": "real", "likelihood": "gaussian"}, {}, "kind real"),
        ({"shape": (1, 12, 30)}, {}, "at least 14 pixels a side"),
        ({"shape": (1, 16, 20)}, {}, "objective.layers=3 needs 24"),
        ({"shape": (2, 32, 32)}, {"perceptual": "lpips", "vgg": "a", "lpips": "b"}, "1 or 3 channels"),
    ],
)
def test_unsupported_data_are_refused(data, options, error):
    with pytest.raises(UnsupportedDataError, match=error) as e:
        LatentDiffusionPart(**options).build(DataSpec(name="x", **data), (4,))
    assert e.value.hint
    part = LatentDiffusionPart(perceptual="none", weight=0.0)
    if data.get("kind") != "real" and len(data["shape"]) == 3:
        part.build(DataSpec(name="x", **data), (4,))


def test_other_objectives_are_refused():
    with pytest.raises(VaezooError, match="autoencoder-kl cannot have objective=iwae") as e:
        configure(SPEC.config, {"objective": "iwae"})
    assert e.value.hint == "use one of elbo, latent-diffusion"
