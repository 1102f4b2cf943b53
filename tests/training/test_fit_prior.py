"""A prior fitted after training: a run with the same first stage, which every function takes."""

import json
import shutil

import numpy as np
import pytest
import torch
from test_resume import asked_at, contents

import vaezoo
from vaezoo import TrainConfig, fit_prior
from vaezoo.core import signals
from vaezoo.errors import InputError, StorageError, VaezooError
from vaezoo.training.prior_fit import first_stage

KINDS = {
    "gmm": {"options": {"components": 4}},
    "kde": {"options": {"kernels": 100}, "codes": "means"},
    "exemplar": {"options": {"exemplars": 200, "variance": 0.5}},
    "flow": {"options": {"couplings": 4, "hidden": 32}, "steps": 150, "lr": 0.005, "batch_size": 100},
    "vae": {"options": {"hidden": 32}, "steps": 150, "lr": 0.005, "batch_size": 100},
    "riemannian": {"options": {"centroids": 20, "proposals": 8}},
}
LATENTS = 4


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """An mlp-vae whose codes are far from the standard normal, because its KL counts little."""
    config = TrainConfig(steps=120, batch_size=50, lr=0.005)
    out = tmp_path_factory.mktemp("first") / "run"
    options = {"hidden": "64", "latent_dim": LATENTS, "beta": 0.1}
    return vaezoo.train("mlp-vae", digits, options=options, config=config, out=out)


@pytest.fixture(scope="module")
def fitted(trained, digits, tmp_path_factory):
    """One run of each kind."""
    folder = tmp_path_factory.mktemp("fitted")
    return {kind: fit_prior(trained, kind, data=digits, out=folder / kind, **more) for kind, more in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_first_stage_has_the_same_bits(trained, fitted, kind):
    old, new = trained.vae.state_dict(), first_stage(fitted[kind].vae)
    assert list(old) == list(new)
    assert all(torch.equal(new[name], old[name]) and new[name].dtype == old[name].dtype for name in old)
    assert {name.split(".")[0] for name in fitted[kind].vae.state_dict().keys() - old.keys()} == {"prior"}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "riemannian"])  # it is no density of the codes
def test_prior_is_better_than_the_standard_normal(trained, fitted, digits, kind):
    """log p(z) of held-out codes rises, and the ELBO with it."""
    run = fitted[kind]
    before = vaezoo.evaluate(trained, digits, metrics=["elbo"]).metrics
    after = vaezoo.evaluate(run, digits, metrics=["elbo", "nll"], nll_samples=20, limit=100).metrics
    values = [{m.name: m.value for m in metrics} for metrics in (before, after)]
    assert values[1]["KL"] < values[0]["KL"] - 0.5
    assert np.isfinite(values[1]["NLL-20"]) and values[1]["NLL-20"] < values[1]["-ELBO"] + 0.5
    assert run.result["metrics"]["log_prior"] > -20


@pytest.mark.parametrize("kind", KINDS)
def test_run_is_loaded_resumed_and_recorded(trained, fitted, kind):
    run = fitted[kind]
    again = vaezoo.load(run.path)
    weights = zip(again.vae.state_dict().values(), run.vae.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    fit = again.prior_fit
    assert (fit.kind, fit.codes) == (kind, KINDS[kind].get("codes", "draws"))
    assert {**fit.options, **KINDS[kind]["options"]} == dict(fit.options)
    record = json.loads((run.path / "run.json").read_text())
    assert record["prior"]["first_stage"] == fit.first_stage and record["init_from"]["step"] == trained.checkpoint.step
    before = contents(run.path)
    assert vaezoo.resume(run.path).checkpoint.step == run.checkpoint.step
    assert contents(run.path) == before
    np.testing.assert_array_equal(again.sample(4, seed=1), run.sample(4, seed=1))
    assert not np.array_equal(again.sample(4, seed=1), trained.sample(4, seed=1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_the_same_bytes(trained, digits, fitted, kind, tmp_path):
    torch.manual_seed(99)  # it has no effect
    again = fit_prior(trained.path, kind, data=digits, out=tmp_path / "again", **KINDS[kind])
    assert contents(again.path) == contents(fitted[kind].path)
    if kind != "vae":
        other = fit_prior(trained, kind, data=digits, out=tmp_path / "other", seed=1, **KINDS[kind])
        assert other.checkpoint.model_sha256 != again.checkpoint.model_sha256


def test_training_of_a_prior_is_resumed(trained, digits, fitted, tmp_path):
    path = tmp_path / "run"
    with signals.handle_signals(), pytest.raises(signals.Stopped) as e:
        fit_prior(trained, "flow", data=digits, out=path, on_start=asked_at(40), **KINDS["flow"])
    assert "vaezoo train --resume" in e.value.hint
    run = vaezoo.resume(path, digits)
    assert contents(run.path) == contents(fitted["flow"].path)


def test_a_fitted_prior_is_replaced(fitted, digits, tmp_path):
    again = fit_prior(fitted["kde"], "gmm", data=digits, out=tmp_path / "run", options={"components": 4})
    assert again.checkpoint.model_sha256 == fitted["gmm"].checkpoint.model_sha256


def test_autoencoder_gets_a_density(digits, tmp_path):
    """Its KL stays zero, and there is no likelihood. Samples come from the density."""
    config = TrainConfig(steps=60, batch_size=50)
    run = vaezoo.train("autoencoder", digits, options={"latent_dim": 3}, config=config, out=tmp_path / "a")
    new = fit_prior(run, "gmm", data=digits, out=tmp_path / "b", options={"components": 3})
    assert new.result["metrics"]["kl"] == 0
    assert new.result["metrics"]["reconstruction"] == run.result["metrics"]["reconstruction"]
    codes = torch.from_numpy(vaezoo.encode(run, digits)["z"])
    torch.manual_seed(0)
    z = new.vae.prior.sample(5000).detach()
    scale = codes.std(0)
    assert ((z.mean(0) - codes.mean(0)).abs() < 0.25 * scale).all() and ((z.std(0) / scale - 1).abs() < 0.25).all()
    with pytest.raises(VaezooError, match="no density"):
        vaezoo.evaluate(new, digits, metrics=["nll"], nll_samples=2)


def test_exemplars_are_the_aggregate_posterior(trained, digits, tmp_path):
    """With all training examples p(z) is the mean of their q(z|x), in the units of z."""
    run = fit_prior(trained, "exemplar", data=digits, out=tmp_path / "run", options={"exemplars": 10_000})
    assert run.prior_fit.options == {"exemplars": len(digits.train), "variance": None}
    with torch.no_grad():
        q = trained.vae.encode(digits.train.batch(slice(None)).x)
        z = q.rsample()[:40]
        normal = torch.distributions.Normal(q.mu.double(), torch.exp(0.5 * q.logvar.double()))
        expected = torch.logsumexp(normal.log_prob(z.double()[:, None]).sum(2), 1) - np.log(len(digits.train))
        torch.testing.assert_close(run.vae.prior.log_prob(z).double(), expected, rtol=1e-3, atol=5e-3)
        variance = fit_prior(trained, "exemplar", data=digits, out=tmp_path / "b", options={"variance": 0.3})
        normal = torch.distributions.Normal(q.mu.double(), np.sqrt(0.3))
        expected = torch.logsumexp(normal.log_prob(z.double()[:, None]).sum(2), 1) - np.log(len(digits.train))
        torch.testing.assert_close(variance.vae.prior.log_prob(z).double(), expected, rtol=1e-3, atol=5e-3)


def test_exemplars_of_an_autoencoder_need_a_variance(digits, tmp_path):
    run = vaezoo.train("autoencoder", digits, config=TrainConfig(steps=2, batch_size=50), out=tmp_path / "a")
    with pytest.raises(VaezooError, match="kind exemplar takes the variances of posterior=diagonal") as e:
        fit_prior(run, "exemplar", data=digits, out=tmp_path / "b")
    assert "variance" in e.value.hint and not (tmp_path / "b").exists()
    new = fit_prior(run, "exemplar", data=digits, out=tmp_path / "b", options={"variance": 0.1, "exemplars": 50})
    assert new.result["metrics"]["kl"] == 0 and new.sample(3, seed=0).shape == (3, 1, 28, 28)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gmm", "flow", "exemplar", "riemannian"])
def test_labels_go_along(digits, tmp_path, kind):
    """A conditional model gets a density for each label, fitted to the codes of its examples."""
    config = TrainConfig(steps=20, batch_size=50)
    run = vaezoo.train("cvae", digits, options={"latent_dim": 2}, config=config, out=tmp_path / "a")
    options = {"gmm": {"components": 2}, "flow": {"hidden": 8}, "exemplar": {"exemplars": 20}}
    options |= {"riemannian": {"centroids": 3, "proposals": 2}}
    more = {"options": options[kind]} | ({"steps": 10} if kind == "flow" else {})
    new = fit_prior(run, kind, data=digits, out=tmp_path / "b", **more)
    assert new.vae.prior.inputs == ("y",) and len(new.vae.prior.density.densities) == 10
    assert vaezoo.load(new.path).sample(3, label=7).shape == (3, 1, 28, 28)
    assert {m.name for m in vaezoo.evaluate(new, digits, metrics=["elbo"], limit=20).metrics} >= {"KL"}
    if kind == "gmm":
        means = torch.stack([d.mu.T @ torch.softmax(d.weight_logits, 0) for d in new.vae.prior.density.densities])
        share = torch.bincount(digits.train.y, minlength=10) / len(digits.train)
        assert (share @ means).abs().max() < 1e-4  # all labels together have the mean of all codes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "options", "error"),
    [
        ("ladder-vae", {"hidden": "16"}, "the posterior of ladder-vae belongs to its prior"),
        ("autoencoder-kl", {"channels": "8,8", "norm_groups": 4}, "not to latents of shape"),
    ],
)
def test_models_without_a_free_prior(digits, tmp_path, model, options, error):
    run = vaezoo.train(model, digits, options=options, config=TrainConfig(steps=1, batch_size=20), out=tmp_path / "a")
    with pytest.raises(VaezooError, match=error) as e:
        fit_prior(run, data=digits, out=tmp_path / "b")
    assert "conv-vae" in e.value.hint and not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"kind": "gmn"}, "no kind of prior named 'gmn'"),
        ({"options": {"components": 1000}}, "1000 components are too many for 600 codes"),
        ({"steps": 5}, "'steps' has no effect on kind gmm"),
        ({"kind": "flow", "steps": 0}, "'steps' is 0"),
        ({"kind": "flow", "batch_size": 10_000}, "batch size 10000 is larger"),
        ({"codes": "modes"}, "no codes named 'modes'"),
        ({"kind": "exemplar", "codes": "means"}, "'codes' has no effect on kind exemplar"),
        ({"kind": "exemplar", "options": {"variance": 0}}, "'variance' is 0"),
        ({"kind": "riemannian", "codes": "means"}, "'codes' has no effect on kind riemannian"),
        ({"seed": -1}, "seed is -1"),
        ({"device": "gpu"}, "gpu"),
    ],
)
def test_bad_arguments_leave_nothing(trained, digits, inside, arguments, error):
    with pytest.raises(VaezooError, match=error) as e:
        fit_prior(trained, data=digits, **arguments)
    assert e.value.hint and not list(inside.glob("runs/*"))


def test_other_data_are_refused(trained, inside):
    with pytest.raises(InputError, match="the data are not those"):
        fit_prior(trained)  # all digits, not those of the training
    x = vaezoo.from_arrays(np.random.default_rng(0).random((60, 5), np.float32))
    run = vaezoo.train("mlp-vae", x, config=TrainConfig(steps=1, batch_size=20), out="r")
    with pytest.raises(VaezooError, match="trained on arrays of a program"):
        fit_prior(vaezoo.load(run.path))  # another program does not have the arrays
    assert fit_prior(run, "kde").path.as_posix() == "runs/mlp-vae-arrays-kde-1"
    with pytest.raises(StorageError, match="exists and is not empty"):
        fit_prior(run, "kde", data=x, out="r")


@pytest.fixture
def copy(fitted, tmp_path):
    return lambda kind: shutil.copytree(fitted[kind].path, tmp_path / kind)


def test_prior_of_another_run_is_refused(trained, digits, fitted, copy, tmp_path):
    config = TrainConfig(steps=1, batch_size=50, seed=5)
    other = vaezoo.train("mlp-vae", digits, options=trained.options, config=config, out=tmp_path / "other")
    foreign = fit_prior(other, "gmm", data=digits, out=tmp_path / "foreign", options={"components": 4})
    path = copy("gmm")
    record = json.loads((path / "run.json").read_text())
    record["prior"] = json.loads((foreign.path / "run.json").read_text())["prior"]
    (path / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="was fitted for another model") as e:
        vaezoo.load(path)
    assert "fit-prior" in e.value.hint


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"kind": "cubes"}, "no kind of prior named 'cubes'"),
        ({"kind": 3}, "is damaged"),
        ({"codes": "all"}, "is damaged"),
        ({"seed": "0"}, "is damaged"),
        ({"first_stage": None}, "is damaged"),
        ({"options": {"components": 5, "covariance": "full"}}, "other tensors"),
        ({"options": {"components": 10**12}}, "bytes"),
        ({"options": {"bandwidth": 3}}, "no option named 'bandwidth'"),
        ({"options": [1]}, "is damaged"),
    ],
    ids=str,
)
def test_damaged_record(copy, change, error):
    path = copy("gmm")
    record = json.loads((path / "run.json").read_text())
    record["prior"] |= change
    (path / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=error) as e:
        vaezoo.load(path)
    assert e.value.hint


def test_missing_record(copy):
    path = copy("gmm")
    record = json.loads((path / "run.json").read_text())
    del record["prior"]
    (path / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="other tensors"):
        vaezoo.load(path)


def test_a_fit_in_one_go_has_no_more_steps(copy, digits):
    path = copy("gmm")
    with pytest.raises(VaezooError, match="is not trained in steps") as e:
        vaezoo.resume(path, digits, steps=500)
    assert "fit-prior" in e.value.hint
    (path / "result.json").unlink()
    with pytest.raises(InputError, match="was stopped before the prior was fitted"):
        vaezoo.resume(path, digits)


def test_comparison_shows_the_kinds(trained, fitted):
    comparison = vaezoo.compare([trained.path, fitted["gmm"].path, fitted["kde"].path])
    assert "fitted-prior" in comparison.columns and len(comparison.groups) == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_export_draws_from_the_prior(fitted, digits, tmp_path, kind):
    """The graph from noise to z passes the gate, and its samples have the moments of the prior."""
    run = fitted[kind]
    exported = vaezoo.export_onnx(run, tmp_path / "export")
    assert exported.manifest["prior"] == "graph" and exported.manifest["options"]["fitted-prior"] == kind
    assert {row.graph for row in vaezoo.verify_onnx(exported.path).parity} >= {"prior"}
    model = vaezoo.runtime.load(exported.path)
    noise = np.random.default_rng(0).standard_normal((20_000, *run.vae.prior.noise_shape), dtype=np.float32)
    z = torch.from_numpy(model.run("prior", {"noise": noise})["z"])
    torch.manual_seed(0)
    expected = run.vae.prior.sample(20_000).detach()
    scale = expected.std(0)
    assert ((z.mean(0) - expected.mean(0)).abs() < 0.06 * scale).all()
    assert ((z.std(0) / scale - 1).abs() < 0.06).all()
    assert model.sample(5, seed=0).shape == (5, 1, 28, 28)


@pytest.mark.slow
def test_labelled_export_draws_from_the_prior(digits, tmp_path):
    config = TrainConfig(steps=20, batch_size=50)
    run = vaezoo.train("cvae", digits, options={"latent_dim": 2}, config=config, out=tmp_path / "a")
    new = fit_prior(run, "kde", data=digits, out=tmp_path / "b", options={"kernels": 20})
    model = vaezoo.runtime.load(vaezoo.export_onnx(new, tmp_path / "export").path)
    assert model.sample(4, y=np.array([3, 3, 1, 0])).shape == (4, 1, 28, 28)


def test_unlabelled_example_is_refused(digits, tmp_path):
    """A label without training examples has no density."""
    x, y = digits.train.batch(slice(0, 200))
    y = y.clamp(max=8)
    data = vaezoo.from_arrays(x.numpy(), y.numpy(), x_test=x[:20].numpy(), y_test=np.full(20, 9))
    config = TrainConfig(steps=1, batch_size=20)
    run = vaezoo.train("cvae", data, options={"latent_dim": 2}, config=config, out=tmp_path / "a")
    with pytest.raises(VaezooError, match="has the label 9"):
        fit_prior(run, data=data, out=tmp_path / "b")
