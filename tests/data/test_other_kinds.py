"""Data sets that are not images: the options of load_data, and the dense VAE from training to the runtime."""

import numpy as np
import pytest
import torch

from vaezoo import Dataset, TrainConfig, create_model, evaluate, export_onnx, load_data, runtime, train
from vaezoo.data.base import DataSource
from vaezoo.data.load import OTHER_KINDS
from vaezoo.errors import VaezooError
from vaezoo.evaluation.likelihood import elbo, negative_log_likelihood
from vaezoo.objectives.elbo import ELBO
from vaezoo.training.trainer import Trainer

OPTIONS = {"hidden": "32", "latent_dim": "3"}
CONFIG = TrainConfig(steps=60, batch_size=50, lr=0.01, device="cpu", kl_warmup=30)


def shorten(data: Dataset, n: int = 200) -> Dataset:
    """Returns a data set with at most n examples in each split."""
    train, valid, test = (split.subsample(n) for split in (data.train, data.valid, data.test))
    return Dataset(spec=data.spec, train=train, valid=valid, test=test, source=data.source)


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_source_reloads_the_data(name, tmp_path):
    data = load_data(name, data_dir=tmp_path)
    assert data.source == DataSource(data=name, data_dir=str(tmp_path))
    again = load_data(data.source.data, data_dir=data.source.data_dir, likelihood=data.source.likelihood)
    assert again.spec == data.spec
    np.testing.assert_array_equal(again.train.x, data.train.x)  # NaN is a missing cell
    np.testing.assert_array_equal(again.test.x, data.test.x)
    assert len(data.valid) == (len(data.train) + len(data.valid)) // 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 16}, "has no images: it cannot be resized to image size 16"),
        ({"image_size": 1}, "image size 1 is out of range"),
        ({"stream": True}, "cannot be streamed"),
        ({"on_bad_image": "skip"}, "has no images to skip"),
        ({"on_bad_image": "ignore"}, "on_bad_image 'ignore' is not known"),
        ({"likelihood": "bernouli"}, "no likelihood named 'bernouli'"),
        ({"likelihood": "bernoulli"}, "likelihood 'bernoulli' is not for data of kind"),
    ],
)
@pytest.mark.parametrize("name", OTHER_KINDS)
def test_options_of_images_are_refused(name, options, message):
    with pytest.raises(VaezooError, match=message) as error:
        load_data(name, **options)
    assert error.value.hint


@pytest.mark.parametrize(
    ("name", "likelihood"), [("sines", "gaussian:0.1"), ("names", "categorical"), ("penguins", "table")]
)
def test_likelihood_can_be_chosen(name, likelihood):
    data = load_data(name, likelihood=likelihood, stream=False)
    assert data.spec.likelihood == data.source.likelihood == likelihood


def test_images_refuse_other_likelihoods():
    with pytest.raises(VaezooError, match="likelihood 'table' is not for data of kind unit"):
        load_data("digits", likelihood="table")


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_dense_vae_learns(name):
    data = shorten(load_data(name))
    torch.manual_seed(0)
    vae = create_model("mlp-vae", data.spec, OPTIONS)
    before, losses = elbo(vae, data.test, num_samples=1).elbo.value, []
    Trainer(vae, ELBO(), data, CONFIG, on_report=lambda report: losses.append(report.metrics["reconstruction"])).fit()
    after = elbo(vae, data.test, num_samples=5)
    assert losses[-1] < losses[0] and after.elbo.value > before + 2
    nll = negative_log_likelihood(vae, data.test, num_samples=50)
    assert nll.value < -after.elbo.value  # a tighter bound


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_KINDS)
def test_run_is_exported(name, tmp_path):
    data = shorten(load_data(name))
    run = train("mlp-vae", data, options=OPTIONS, config=CONFIG, out=tmp_path / "run")
    metrics = {
        metric.name: metric.value for metric in evaluate(run, data, metrics=["elbo", "nll"], nll_samples=5).metrics
    }
    assert np.isfinite([metrics["-ELBO"], metrics["NLL-5"]]).all()
    result = export_onnx(run, tmp_path / "export")
    assert result.parity and result.manifest["data"]["kind"] == data.spec.kind
    model = runtime.load(tmp_path / "export")
    samples = model.sample(20, seed=3)
    assert len(samples) == 20 and np.isfinite(samples).all() and np.array_equal(samples, model.sample(20, seed=3))
    again = model.reconstruct(data.test.x.numpy())
    expected = run.vae.reconstruct(data.test.x).detach().numpy()
    np.testing.assert_allclose(again, expected, atol=1e-5, rtol=1e-4)
