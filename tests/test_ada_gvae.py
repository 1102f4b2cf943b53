"""Ada-GVAE: which latents of a pair are shared, the loss against its definition, and the pairs of a training."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

import vaezoo
from vaezoo import Batch, Dataset, TensorSplit, TrainConfig, create_model, train
from vaezoo.core import distributed
from vaezoo.data.images import sprites
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.objectives.ada_gvae import AdaGVAE, share_latents
from vaezoo.objectives.base import StepContext
from vaezoo.objectives.elbo import ELBO, terms_of
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.training.trainer import Trainer

OPTIONS = {"channels": "4,4,4,4", "latent_dim": 5}


@pytest.fixture(scope="module")
def data():
    """300 sprites of 32x32 pixels, with five factors."""
    rng = np.random.default_rng(0)
    x, y = (torch.cat(parts) for parts in zip(*(part_of(rng, 100) for _ in range(3)), strict=True))
    parts = [TensorSplit(x[i : i + 100], y[i : i + 100]) for i in (0, 100, 200)]
    whole = vaezoo.from_arrays(x.squeeze(1).numpy(), y.numpy(), name="sprites")
    spec = dataclasses.replace(whole.spec, classes=tuple(sprites.FACTORS.values()))
    return Dataset(spec=spec, train=parts[0], valid=parts[1], test=parts[2])


def part_of(rng, n):
    y = sprites._sample_factors(rng, n)
    return sprites.render(y, 32), y


@pytest.fixture
def vae(data):
    torch.manual_seed(0)
    model = create_model("ada-gvae", data, OPTIONS)
    with torch.no_grad():
        model.encoder[-1].weight.mul_(20)  # untrained posteriors hardly differ
    return model


def test_shared_latents():
    """The KL of the four latents is 0.005, 0.22, 0.45 and 8, so that the threshold is 4."""
    mu = torch.tensor([[0.0, 0.0, 1.0, 4.0], [0.1, 0.0, 1.0, 0.0]])
    logvar = torch.tensor([[1.0, 1.0, 3.0, 1.0], [1.0, 3.0, 1.0, 1.0]]).log()
    shared = share_latents(DiagonalGaussian(mu, logvar))
    assert torch.equal(shared.mu[:, 3], mu[:, 3]) and torch.equal(shared.logvar[:, 3], logvar[:, 3])
    assert torch.allclose(shared.mu[:, :3], torch.tensor([0.05, 0.0, 1.0]).expand(2, 3))
    # The mean of the variances 1 and 3, not of their logarithms.
    assert torch.allclose(shared.logvar[:, :3].exp(), torch.tensor([1.0, 2.0, 2.0]).expand(2, 3))


def test_threshold_and_direction_of_the_divergence():
    """For many random pairs, against torch.distributions. The reverse KL would share other latents."""
    torch.manual_seed(0)
    mu, logvar = torch.randn(200, 6), torch.randn(200, 6)
    (first, second) = (Normal(mu[i::2], (0.5 * logvar[i::2]).exp()) for i in (0, 1))
    shared = share_latents(DiagonalGaussian(mu, logvar))
    is_shared = shared.mu[::2] == shared.mu[1::2]
    for kl, agrees in ((kl_divergence(first, second), True), (kl_divergence(second, first), False)):
        threshold = 0.5 * (kl.max(1, keepdim=True).values + kl.min(1, keepdim=True).values)
        assert torch.equal(is_shared, kl < threshold) == agrees
    assert is_shared.any(1).all() and not is_shared.all(1).any()  # at least one of both kinds in each pair
    assert torch.equal(shared.mu[::2][~is_shared], mu[::2][~is_shared])
    assert torch.equal(shared.logvar[1::2][~is_shared], logvar[1::2][~is_shared])


def metrics_and_loss(objective, vae, x, **step):
    torch.manual_seed(1)
    output = objective(vae, Batch(x, None), StepContext.initial()._replace(**step))
    return output.losses["vae"].item(), {name: value.item() for name, value in output.metrics.items()}


def test_equal_images_give_the_elbo(vae, data):
    x = data.train.batch(slice(0, 5)).x.repeat_interleave(2, 0)
    loss, metrics = metrics_and_loss(AdaGVAE(), vae, x)
    expected, terms = metrics_and_loss(ELBO(), vae, x)
    assert loss == pytest.approx(expected, rel=1e-6) and metrics == pytest.approx(terms, rel=1e-6)


@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_loss_is_that_of_both_examples(vae, data, beta):
    """The mean over both examples of -log p(x|z) + beta KL, with the shared posterior."""
    x = data.train.batch(slice(0, 8)).x
    loss, metrics = metrics_and_loss(AdaGVAE(beta), vae, x, kl_weight=torch.tensor(0.5))
    torch.manual_seed(1)
    posterior = share_latents(vae.encode(x))
    terms = terms_of(vae, posterior, Batch(x))
    kl = 0.5 * (posterior.mu**2 + posterior.logvar.exp() - 1 - posterior.logvar).sum(1)
    assert loss == pytest.approx((terms.reconstruction + 0.5 * beta * kl).mean().item(), rel=1e-6)
    assert metrics["elbo"] == pytest.approx(-(terms.reconstruction + kl).mean().item(), rel=1e-6)
    plain, _ = metrics_and_loss(ELBO(beta), vae, x, kl_weight=torch.tensor(0.5))
    assert abs(loss - plain) > 1e-4  # something was shared
    if beta != 1:
        assert metrics["weighted_elbo"] == pytest.approx(-(terms.reconstruction + beta * kl).mean().item(), rel=1e-6)


def test_pairs_do_not_depend_on_each_other(vae, data):
    """The posteriors of a pair are the same in a batch of one pair and of four, and in duplicated batches."""
    x = data.train.batch(slice(0, 8)).x
    together = share_latents(vae.encode(x))
    alone = [share_latents(vae.encode(x[i : i + 2])) for i in range(0, 8, 2)]
    torch.testing.assert_close(together.mu, torch.cat([q.mu for q in alone]), rtol=1e-4, atol=1e-5)
    twice = share_latents(vae.encode(torch.cat([x, x])))
    torch.testing.assert_close(twice.logvar[8:], together.logvar, rtol=1e-4, atol=1e-5)


def test_evaluation_has_no_pairs(vae, data):
    x = data.valid.batch(slice(0, 7)).x
    objective = AdaGVAE().eval()
    assert metrics_and_loss(objective, vae, x)[1] == metrics_and_loss(ELBO(), vae, x)[1]
    with pytest.raises(VaezooError, match="objective=ada needs pairs, and a batch has 7 rows"):
        metrics_and_loss(objective.train(), vae, x)


def batches_of(data, monkeypatch, objective, processes=1, **settings):
    """Returns the labels of each micro-batch of a short training, as the objective sees them, of each process."""
    seen = []
    for rank in range(processes):
        torch.manual_seed(0)
        vae = create_model("ada-gvae", data, OPTIONS)
        monkeypatch.setattr(distributed, "world_size", lambda: processes)
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        trainer = Trainer(vae, objective, data, TrainConfig(steps=6, compile="off", **settings))
        seen.append([trainer.train_split.batch(rows).y for rows in trainer._indices()])
    monkeypatch.undo()
    return seen


def test_training_batches_are_pairs(data, monkeypatch):
    """The rows of each process are whole pairs, and together they are the batch of one process."""
    (one,) = batches_of(data, monkeypatch, AdaGVAE(changed_factors=1), batch_size=20)
    two = batches_of(data, monkeypatch, AdaGVAE(changed_factors=1), 2, batch_size=20)
    for step, y in enumerate(one):
        assert torch.equal(torch.cat([part[step] for part in two]), y)
        differ = (y[::2] != y[1::2]).sum(1)
        assert differ.min() >= 1 and differ.float().mean() < 4  # few of 100 sprites share four factors
    assert len(one) == 6


@pytest.mark.parametrize(("batch_size", "accumulate", "multiple"), [(25, 1, 2), (30, 2, 4)])
def test_batch_must_hold_pairs(data, tmp_path, batch_size, accumulate, multiple):
    settings = {"steps": 2, "batch_size": batch_size, "grad_accum_steps": accumulate}
    if batch_size % accumulate == 0:
        with pytest.raises(VaezooError, match=f"batch size {batch_size} .* groups of 2 examples") as e:
            train("ada-gvae", data, options=OPTIONS, config=settings, out=tmp_path / "run")
        assert e.value.hint == f"give --batch-size a multiple of {multiple}"
        assert not (tmp_path / "run").exists()


def test_data_without_factors_are_refused(digits, data, tmp_path):
    unlabelled = dataclasses.replace(digits, spec=dataclasses.replace(digits.spec, classes=()))
    unlabelled = dataclasses.replace(unlabelled, train=TensorSplit(digits.train.x, None))
    for wrong in (digits, unlabelled):
        with pytest.raises(UnsupportedDataError, match="objective=ada needs factors of variation") as e:
            train("ada-gvae", wrong, options={"channels": "4,4"}, config={"steps": 2}, out=tmp_path / "run")
        assert e.value.hint and not (tmp_path / "run").exists()
    with pytest.raises(VaezooError, match=r"objective\.changed_factors is 5, and the data have 5 factors"):
        options = OPTIONS | {"objective.changed_factors": 5}
        train("ada-gvae", data, options=options, config={"steps": 2, "batch_size": 20}, out=tmp_path / "run")


@pytest.mark.parametrize(("option", "value"), [("beta", -1), ("changed_factors", 0)])
def test_options_in_range(option, value, data):
    with pytest.raises(VaezooError, match=rf"objective.{option} is {value}"):
        create_model("ada-gvae", data, {f"objective.{option}": value})
