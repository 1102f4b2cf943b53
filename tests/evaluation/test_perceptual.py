"""The metric lpips against torchmetrics' LPIPS, and against a direct computation in the classifier's features."""

import pytest
import torch
from lpips_weights import lpips_of_torchmetrics
from stub_vae import StubVAE

from vaezoo import LpipsFiles, TensorSplit, evaluate, load_data, runtime
from vaezoo.core import chunks
from vaezoo.errors import DivergedError, UnsupportedDataError, VaezooError
from vaezoo.evaluation.feature_extractors import find_feature_extractor
from vaezoo.evaluation.perceptual import perceptual_distance

X, Y = torch.rand(2, 6, 3, 20, 17, generator=torch.Generator().manual_seed(0))
PACKAGED = "perceptual distance (mnist-lenet64 b7b6fa37)"


def in_classifier(x, y):
    """Returns the distance in both convolutions of the packaged classifier, in float64."""
    body = find_feature_extractor((1, 28, 28)).network.double()
    total = 0
    for layers in (body[:2], body[:5]):
        a, b = (layers(image.double().mean(1, keepdim=True)) for image in (x, y))
        a, b = (f / f.norm(dim=1, keepdim=True).clamp(min=1e-10) for f in (a, b))
        total = total + (a - b).square().sum(1).mean((1, 2))
    return total.detach()


def test_packaged_network(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 4 * 128 * 20 * 17 * 4)  # four pairs at a time
    done = []
    metric = perceptual_distance(
        StubVAE(Y, shape=X.shape[1:]), TensorSplit(X, None), on_progress=lambda n, total: done.append((n, total))
    )
    expected = in_classifier(X, Y)
    assert metric.value == pytest.approx(float(expected.mean()), rel=1e-4)
    assert metric.error == pytest.approx(float(expected.std() / 6**0.5), rel=1e-4)
    assert metric.name == PACKAGED and "mnist-lenet64 b7b6fa37" in metric.protocol and done == [(6, 6)]


def test_equal_images_have_distance_0():
    assert perceptual_distance(StubVAE(X, shape=X.shape[1:]), TensorSplit(X, None)).value == 0


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_lpips_is_that_of_torchmetrics(channels, lpips_files):
    x, y = X[:3, :channels], Y[:3, :channels]
    metric = perceptual_distance(StubVAE(y, shape=x.shape[1:]), TensorSplit(x, None), lpips_files)
    colours = [2 * image.expand(-1, 3, -1, -1) - 1 for image in (x, y)]
    with torch.no_grad():
        expected = lpips_of_torchmetrics(lpips_files)(*colours).mean()
    assert metric.value == pytest.approx(float(expected), rel=1e-4)
    digits = lpips_files.vgg_sha256, lpips_files.lpips_sha256
    assert metric.name == f"LPIPS (VGG16 {digits[0]}, {digits[1]})" and all(d in metric.protocol for d in digits)


@pytest.mark.parametrize(
    ("shape", "files", "error"),
    [
        ((1, 13, 40), False, "at least 14 pixels a side"),
        ((1, 15, 40), True, "at least 16 pixels a side"),
        ((2, 32, 32), True, "1 or 3 channels"),
        ((300,), False, "not examples of shape"),
    ],
)
def test_other_data_are_refused(shape, files, error):
    x = torch.zeros(2, *shape)
    given = LpipsFiles(vgg="none.pth", lpips="none.pth") if files else None
    with pytest.raises(UnsupportedDataError, match=error) as e:
        perceptual_distance(StubVAE(x, shape=shape), TensorSplit(x, None), given)
    assert e.value.hint


def test_invalid_values_are_refused():
    with pytest.raises(DivergedError, match="not finite for 1 of 6"):
        y = Y.clone()
        y[2, 0, 3, 4] = torch.nan
        perceptual_distance(StubVAE(y, shape=X.shape[1:]), TensorSplit(X, None))
    with pytest.raises(VaezooError, match="vgg_sha256 is '397923'") as e:
        LpipsFiles(vgg="a", lpips="b", vgg_sha256="397923")
    assert e.value.hint


def test_runs_and_exports_have_the_metric(trained, exported):
    of_run = evaluate(trained, metrics=["lpips"], limit=60).metrics[0]
    x = load_data("digits").test.subsample(60).batch(slice(None)).x
    with torch.no_grad():
        expected = in_classifier(x, trained.vae.eval().reconstruct(x)).mean()
    assert of_run.value == pytest.approx(float(expected), rel=1e-4)
    (of_export,) = evaluate(runtime.load(exported.path), metrics=["lpips"], limit=60).metrics
    assert of_export.value == pytest.approx(of_run.value, rel=1e-4)
