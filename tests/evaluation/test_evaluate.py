"""`vaezoo.evaluate` and `vaezoo eval`: the figures of runs and exports, with their protocols."""

import json

import pytest
import torch

import vaezoo
from vaezoo import TrainConfig
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.evaluation.likelihood import elbo
from vaezoo.training.validation import evaluate as validate


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was trained a little, on bits."""
    config = TrainConfig(steps=60, batch_size=100, binarize="dynamic")
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    return vaezoo.train("mlp-vae", "digits", options={"hidden": [64]}, config=config, out=folder)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "export"
    vaezoo.export_onnx(run, folder)
    return vaezoo.runtime.load(folder)


def figures(evaluation):
    return {figure.name: figure for figure in evaluation.metrics}


def test_a_run_is_evaluated_on_the_test_part_as_it_was_trained(run):
    found = vaezoo.evaluate(run, metrics=["elbo", "nll"], nll_samples=20, elbo_samples=2)
    assert (found.part, found.examples, found.of, found.data) == ("test", 2000, 2000, "digits")
    assert found.config.binarize == "fixed" and found.checkpoint["sha256"] == run.checkpoint.model_sha256
    told = figures(found)
    assert told["-ELBO"].value == pytest.approx(told["reconstruction"].value + told["KL"].value)
    assert sum(told["KL by dimension"].value) == pytest.approx(told["KL"].value)
    assert told["NLL-20"].value < told["-ELBO"].value
    assert told["NLL-20"].value == pytest.approx(told["NLL-20 per dimension"].value * 784 * 0.6931471805599453)
    assert "20 z for each example; one draw of bits" in told["NLL-20"].protocol
    assert all(figure.protocol for figure in found.metrics)
    json.dumps(found.as_dict(), allow_nan=False)


def test_the_bound_on_grey_levels_is_that_of_the_training(run):
    config = TrainConfig(batch_size=100)  # no bits
    told = figures(vaezoo.evaluate(run, binarize="none"))
    by_training = validate(run.vae, run.objective, run.load_data().test, config)
    assert told["-ELBO"].value == pytest.approx(-by_training["elbo"], rel=1e-2)  # one draw of z there, ten here
    assert "no likelihood" in told["-ELBO"].protocol


def test_an_export_has_the_figures_of_its_run(run, exported, digits):
    of_run, of_export = (
        figures(vaezoo.evaluate(source, digits, metrics=["elbo", "nll"], nll_samples=10, limit=200))
        for source in (run, exported)
    )
    assert of_export.keys() == of_run.keys()
    # The run was trained on bits, which an export does not tell: the same has to be asked for.
    same = vaezoo.evaluate(exported, digits, metrics=["elbo", "nll"], nll_samples=10, limit=200, binarize="fixed")
    for name, figure in figures(same).items():
        assert figure.value == pytest.approx(of_run[name].value, rel=1e-4, abs=1e-4), name


def test_an_export_has_the_figures_of_a_run_that_is_sure_of_its_pixels(tmp_path):
    """ONNX Runtime's sigmoid is 0 from -18 on: a grey pixel there must not cost what the logit of 0 would."""
    run = vaezoo.load("mlp-vae", pretrained="mnist")
    vaezoo.export_onnx(run, tmp_path / "export")
    exported, data = vaezoo.runtime.load(tmp_path / "export"), vaezoo.load_data("digits")
    first, second = (figures(vaezoo.evaluate(s, data, elbo_samples=2, limit=50))["-ELBO"] for s in (run, exported))
    assert first.value == pytest.approx(second.value, abs=0.1)


def test_one_example_has_no_standard_error(run):
    found = vaezoo.evaluate(run, metrics=["elbo", "nll"], nll_samples=5, limit=1)
    assert figures(found)["-ELBO"].error is None and figures(found)["NLL-5"].error is None
    json.dumps(found.as_dict(), allow_nan=False)


def test_the_likelihood_of_bits_drawn_anew_is_that_of_one_draw_and_says_so(run):
    found = [
        vaezoo.evaluate(run, metrics=["nll", "elbo"], nll_samples=5, limit=20, binarize=how)
        for how in ("fixed", "dynamic")
    ]
    fixed, dynamic = map(figures, found)
    assert fixed["NLL-5"] == dynamic["NLL-5"]
    assert "drawn anew for each z" in dynamic["-ELBO"].protocol and "one draw" in fixed["-ELBO"].protocol
    assert found[0].metrics[0].name == "NLL-5"  # in the order that was asked for


@pytest.mark.parametrize("settings", [{"uint8": True}, {"likelihood": "gaussian:learned"}])
def test_an_export_that_lacks_something_is_refused(settings, tmp_path):
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
        ({"metrics": []}, "no metrics are asked for"),
        ({"limit": 0}, "0 examples are none"),
        ({"metrics": ["nll"], "nll_samples": 0}, "0 latents for each example are none"),
        ({"elbo_samples": 0}, "0 latents for each example are none"),
        ({"binarize": "static"}, "no way to binarize named 'static'"),
    ],
)
def test_what_cannot_be_done_is_refused(settings, error, run):
    with pytest.raises(VaezooError, match=error):
        vaezoo.evaluate(run, **settings)


def test_other_data_are_refused_by_their_shape(run):
    with pytest.raises(UnsupportedDataError, match="shape"):
        vaezoo.evaluate(run, vaezoo.load_data("shapes"))


def test_a_model_stays_where_it_was_in_the_mode_it_was(run):
    before = {name: value.clone() for name, value in run.vae.state_dict().items()}
    vaezoo.evaluate(run, limit=3)
    assert not run.vae.training and all(torch.equal(v, before[n]) for n, v in run.vae.state_dict().items())


def test_a_part_gives_the_same_however_it_is_asked_for(run, digits):
    once, again = (elbo(run.vae, digits.test, num_samples=1, seed=5) for _ in range(2))
    assert once == again != elbo(run.vae, digits.test, num_samples=1, seed=6)


def test_groups_that_need_labels_and_images(run):
    told = figures(vaezoo.evaluate(run, metrics=["reconstructions", "probe", "samples"], limit=300))
    assert {"PSNR", "SSIM", "k-NN accuracy", "nearest-training-example ratio"} <= told.keys()
    assert told["k-NN accuracy"].value > 0.3 and "9,000 training" in told["k-NN accuracy"].protocol
    with pytest.raises(VaezooError, match="disentanglement"):
        vaezoo.evaluate(run, metrics=["disentanglement"])
