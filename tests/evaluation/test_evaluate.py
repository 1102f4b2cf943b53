"""`vaezoo.evaluate`: metrics of runs and exports, with their protocols."""

import json

import pytest
import torch

import vaezoo
from vaezoo import TrainConfig
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.evaluation.evaluate import METRICS
from vaezoo.evaluation.likelihood import elbo
from vaezoo.training.validation import evaluate as validate
from vaezoo_cli.main import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run, trained on random bits."""
    config = TrainConfig(steps=60, batch_size=100, binarize="dynamic")
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    return vaezoo.train("mlp-vae", "digits", options={"hidden": [64]}, config=config, out=folder)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "export"
    vaezoo.export_onnx(run, folder)
    return vaezoo.runtime.load(folder)


def by_name(evaluation):
    return {metric.name: metric for metric in evaluation.metrics}


def test_evaluate_run(run):
    result = vaezoo.evaluate(run, metrics=["elbo", "nll"], nll_samples=20, elbo_samples=2)
    assert (result.split, result.examples, result.total, result.data) == ("test", 2000, 2000, "digits")
    assert result.config.binarize == "fixed" and result.checkpoint["sha256"] == run.checkpoint.model_sha256
    metrics = by_name(result)
    assert metrics["-ELBO"].value == pytest.approx(metrics["reconstruction"].value + metrics["KL"].value)
    assert sum(metrics["KL by dimension"].value) == pytest.approx(metrics["KL"].value)
    assert metrics["NLL-20"].value < metrics["-ELBO"].value
    assert metrics["NLL-20"].value == pytest.approx(metrics["NLL-20 per dimension"].value * 784 * 0.6931471805599453)
    assert "20 z for each example; one draw of bits" in metrics["NLL-20"].protocol
    assert all(metric.protocol for metric in result.metrics)
    json.dumps(result.as_dict(), allow_nan=False)


def test_a_point_has_no_bound(digits, monkeypatch):
    vae = vaezoo.create_model("autoencoder", digits)
    metrics = by_name(vaezoo.evaluate(vae, digits, metrics=["elbo"], limit=20))
    assert metrics["-ELBO"].protocol.startswith("no bound: q(z|x) is a point")
    monkeypatch.setitem(METRICS, "elbo", lambda context: pytest.fail("computed first"))
    with pytest.raises(VaezooError, match="a point, which has no density"):
        vaezoo.evaluate(vae, digits, metrics=["elbo", "nll"], limit=20)


def test_modules_are_evaluated_like_runs(run, digits):
    vae = run.vae.train()
    settings = {"metrics": ["elbo", "nll", "probe"], "nll_samples": 5, "limit": 100, "binarize": "none"}
    of_module, of_run = (vaezoo.evaluate(source, digits, **settings) for source in (vae, run))
    assert [m.value for m in of_module.metrics] == [m.value for m in of_run.metrics]
    assert (of_module.model, of_module.checkpoint) == (type(vae).__name__, {}) and vae.training
    x = digits.test.subsample(5).x
    assert (vaezoo.score(vae, x).neg_elbo == vaezoo.score(run, x, binarize="none").neg_elbo).all()
    assert (vaezoo.sample(vae, 3) == run.sample(3)).all() and (run.reconstruct(x) == vaezoo.reconstruct(vae, x)).all()
    assert (run.encode(x)["mu"] == vaezoo.encode(vae, x)["mu"]).all()
    assert run.evaluate(digits, limit=9).examples == 9 and len(run.score(x, elbo_samples=1).kl) == 5
    vae.eval()


def test_what_is_no_model_is_refused(run):
    with pytest.raises(VaezooError, match=r"an object of type Linear is not a run, an export or a vaezoo\.VAE"):
        vaezoo.evaluate(torch.nn.Linear(2, 2))
    with pytest.raises(VaezooError, match="does not know its data set"):
        vaezoo.evaluate(run.vae)


def test_elbo_equals_training_elbo(run):
    config = TrainConfig(batch_size=100)  # grey levels
    metrics = by_name(vaezoo.evaluate(run, binarize="none"))
    expected = validate(run.vae, run.objective, run.load_data().test, config)
    assert metrics["-ELBO"].value == pytest.approx(-expected["elbo"], rel=1e-2)  # one sample of z in training, ten here
    assert "not a likelihood" in metrics["-ELBO"].protocol


def test_export_equals_run(run, exported, digits):
    of_run, of_export = (
        by_name(vaezoo.evaluate(source, digits, metrics=["elbo", "nll"], nll_samples=10, limit=200))
        for source in (run, exported)
    )
    assert of_export.keys() == of_run.keys()
    same = vaezoo.evaluate(exported, digits, metrics=["elbo", "nll"], nll_samples=10, limit=200, binarize="fixed")
    for name, metric in by_name(same).items():
        assert metric.value == pytest.approx(of_run[name].value, rel=1e-4, abs=1e-4), name


@pytest.mark.slow
def test_export_with_saturated_pixels(tmp_path):
    """ONNX Runtime's sigmoid returns 0 below -18. A grey pixel there must not cost as much as the logit of 0."""
    run = vaezoo.load("mlp-vae", pretrained="mnist")
    vaezoo.export_onnx(run, tmp_path / "export")
    exported, data = vaezoo.runtime.load(tmp_path / "export"), vaezoo.load_data("digits")
    first, second = (by_name(vaezoo.evaluate(s, data, elbo_samples=2, limit=50))["-ELBO"] for s in (run, exported))
    assert first.value == pytest.approx(second.value, abs=0.1)


def test_single_example_without_error(run):
    result = vaezoo.evaluate(run, metrics=["elbo", "nll"], nll_samples=5, limit=1)
    assert by_name(result)["-ELBO"].error is None and by_name(result)["NLL-5"].error is None
    json.dumps(result.as_dict(), allow_nan=False)


def test_dynamic_nll_equals_fixed(run):
    results = [
        vaezoo.evaluate(run, metrics=["nll", "elbo"], nll_samples=5, limit=20, binarize=mode)
        for mode in ("fixed", "dynamic")
    ]
    fixed, dynamic = map(by_name, results)
    assert fixed["NLL-5"] == dynamic["NLL-5"]
    assert "drawn anew for each z" in dynamic["-ELBO"].protocol and "one draw" in fixed["-ELBO"].protocol
    assert results[0].metrics[0].name == "NLL-5"  # in the requested order


@pytest.mark.parametrize("settings", [{"uint8": True}, {"likelihood": "gaussian:learned"}])
@pytest.mark.slow
def test_incomplete_export_is_refused(settings, tmp_path):
    likelihood = settings.pop("likelihood", None)
    data = vaezoo.load_data("digits", likelihood=likelihood)
    run = vaezoo.train("mlp-vae", data, config=TrainConfig(steps=1), out=tmp_path / "run")
    vaezoo.export_onnx(run, tmp_path / "export", **settings)
    with pytest.raises(UnsupportedDataError, match="the export cannot be evaluated"):
        vaezoo.evaluate(vaezoo.runtime.load(tmp_path / "export"), data)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"metrics": ["elbow"]}, "no metric named 'elbow'"),
        ({"metrics": []}, "no metrics given"),
        ({"limit": 0}, "limit is 0"),
        ({"metrics": ["nll"], "nll_samples": 0}, "the number of samples of z for each example is 0"),
        ({"elbo_samples": 0}, "the number of samples of z for each example is 0"),
        ({"binarize": "static"}, "no binarization named 'static'"),
    ],
)
def test_bad_arguments_are_refused(settings, error, run):
    with pytest.raises(VaezooError, match=error):
        vaezoo.evaluate(run, **settings)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bound", "elbo"),
        ("codes", "probe"),
        ("factors", "disentanglement"),
        ("samples", "nearest-neighbour"),
        ("frechet", "fid"),
    ],
)
def test_old_metric_names(old, new, run, capsys):
    hint = f"'{old}' is now called '{new}'"
    with pytest.raises(VaezooError, match=f"no metric named '{old}'") as error:
        vaezoo.evaluate(run, metrics=[old])
    assert error.value.hint == hint
    with pytest.raises(SystemExit):
        main(["eval", str(run.path), "--metrics", old])
    assert hint in capsys.readouterr().err


def test_other_shape_is_refused(run):
    with pytest.raises(UnsupportedDataError, match="shape"):
        vaezoo.evaluate(run, vaezoo.load_data("shapes"))


def test_model_is_left_unchanged(run):
    before = {name: value.clone() for name, value in run.vae.state_dict().items()}
    vaezoo.evaluate(run, limit=3)
    assert not run.vae.training and all(torch.equal(v, before[n]) for n, v in run.vae.state_dict().items())


def test_elbo_is_deterministic(run, digits):
    once, again = (elbo(run.vae, digits.test, num_samples=1, seed=5) for _ in range(2))
    assert once == again != elbo(run.vae, digits.test, num_samples=1, seed=6)


@pytest.mark.slow
def test_groups_with_labels_and_images(run):
    metrics = by_name(vaezoo.evaluate(run, metrics=["reconstructions", "probe", "nearest-neighbour"], limit=300))
    assert {"PSNR", "SSIM", "k-NN accuracy", "nearest-training-example ratio"} <= metrics.keys()
    assert metrics["k-NN accuracy"].value > 0.3 and "9,000 training" in metrics["k-NN accuracy"].protocol
    with pytest.raises(VaezooError, match="no factors of variation"):
        vaezoo.evaluate(run, metrics=["disentanglement"])
