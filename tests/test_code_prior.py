"""The autoregressive prior of codes: its probabilities, its fit to a run with codes, and its export."""

import itertools
import math

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo import TrainConfig, VaezooError, fit_prior, verify_onnx
from vaezoo.priors.codes import CodeTransformer, UniformCodes
from vaezoo.training.prior_fit import first_stage

SMALL = {"codebook_size": 16, "channels": "16,16", "code_dim": 8, "residual_channels": 8}


@pytest.fixture
def prior():
    torch.manual_seed(0)
    return CodeTransformer(3, (2, 2), hidden=16, layers=2).double()


def every_grid():
    """All 81 grids of four codes below 3, `(81, 2, 2)`."""
    return torch.tensor(list(itertools.product(range(3), repeat=4))).view(-1, 2, 2)


def test_probabilities_add_up_to_1(prior):
    assert prior.log_prob(every_grid()).exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_kl_is_what_codes_cost(prior):
    """q(z|x) is certain of its codes, so the KL is -log p(z): one part for each position."""
    z = every_grid()
    parts = prior.kl_terms(None, z)
    assert parts.shape == (81, 4)
    torch.testing.assert_close(parts.sum(1), -prior.log_prob(z))


def test_a_code_depends_on_those_before(prior):
    z = torch.zeros((1, 2, 2), dtype=torch.int64)
    changed = z.clone()
    changed[0, 1, 0] = 2  # the third of four, row by row
    before, after = prior.id_logits(z)[0], prior.id_logits(changed)[0]
    torch.testing.assert_close(before[:3], after[:3])
    assert not torch.allclose(before[3], after[3])


def test_samples_have_the_probabilities(prior):
    torch.manual_seed(0)
    draws = prior.sample(20_000)
    codes, weights = draws.flatten(1), torch.tensor([27, 9, 3, 1])
    counts = torch.bincount((codes * weights).sum(1), minlength=81) / len(draws)
    expected = prior.log_prob(every_grid()).exp()
    assert (counts - expected).abs().max() < 5 * (expected.max() / len(draws)).sqrt()


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    config = TrainConfig(steps=60, batch_size=50, lr=0.003)
    out = tmp_path_factory.mktemp("first") / "run"
    return vaezoo.train("vq-vae", digits, options=SMALL, config=config, out=out)


@pytest.fixture(scope="module")
def fitted(trained, digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted") / "run"
    options = {"hidden": 32, "layers": 1}
    return fit_prior(trained, "autoregressive", options=options, steps=60, lr=0.003, data=digits, out=out)


def test_codes_are_more_probable_than_before(trained, fitted, digits):
    old, new = trained.vae.state_dict(), first_stage(fitted.vae)
    assert list(old) == list(new) and all(torch.equal(new[name], old[name]) for name in old)
    assert isinstance(trained.vae.prior, UniformCodes) and isinstance(fitted.vae.prior, CodeTransformer)
    positions = math.prod(fitted.vae.latent_shape)
    kl = {run.path.parent.name: vaezoo.evaluate(run, digits, metrics=["elbo"]) for run in (trained, fitted)}
    before, after = ({m.name: m.value for m in result.metrics} for result in kl.values())
    assert before["KL"] == pytest.approx(positions * math.log(16), rel=1e-6)
    assert after["KL"] < 0.9 * before["KL"]
    assert after["reconstruction"] == before["reconstruction"]


def test_run_is_loaded_and_stopped_fits_resume(fitted):
    again = vaezoo.load(fitted.path)
    np.testing.assert_array_equal(again.sample(4, seed=1), fitted.sample(4, seed=1))
    assert vaezoo.resume(fitted.path).checkpoint.step == fitted.checkpoint.step
    assert again.prior_fit.options == {"hidden": 32, "layers": 1}


@pytest.mark.slow
def test_export_draws_codes_one_by_one(fitted, tmp_path):
    result = fitted.export(tmp_path / "onnx")
    assert result.manifest["prior"] == "autoregressive" and verify_onnx(tmp_path / "onnx").parity
    model = vaezoo.runtime.load(tmp_path / "onnx")
    images = model.sample(4, seed=3)
    assert images.shape == (4, *fitted.data.shape) and np.isfinite(images).all()
    np.testing.assert_array_equal(images, model.sample(4, seed=3))
    z = fitted.vae.encode(fitted.examples.x).mode()
    logits = model.run("prior", {"z": z.numpy()})["logits"]
    np.testing.assert_allclose(logits, fitted.vae.prior.id_logits(z).detach(), atol=1e-4)


def test_kinds_fit_their_latents(trained, digits, tmp_path):
    with pytest.raises(VaezooError, match="latents of this model are codes") as e:
        fit_prior(trained, "gmm", data=digits, out=tmp_path / "a")
    assert e.value.hint == "use --kind autoregressive"
    config = TrainConfig(steps=2, batch_size=50)
    real = vaezoo.train("mlp-vae", digits, options={"hidden": "8"}, config=config, out=tmp_path / "real")
    with pytest.raises(VaezooError, match="kind autoregressive is for grids of codes") as e:
        fit_prior(real, "autoregressive", data=digits, out=tmp_path / "b")
    assert "vq-vae" in e.value.hint
    with pytest.raises(VaezooError, match="option 'hidden' is 30") as e:
        fit_prior(trained, "autoregressive", options={"hidden": 30}, data=digits, out=tmp_path / "c")
    assert not list(tmp_path.glob("[abc]"))
