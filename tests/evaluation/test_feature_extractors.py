"""The feature extractors of Frechet distances: the packaged classifier and Inception."""

import hashlib
import math
import os
import re
from importlib import resources
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scripts.make_features import accuracy, fit
from vaezoo import load_data
from vaezoo.core import classifier
from vaezoo.errors import InputError, UnsupportedDataError, VaezooError
from vaezoo.evaluation import inception
from vaezoo.evaluation.feature_extractors import FeatureExtractor, find_feature_extractor, load_lenet
from vaezoo.evaluation.image_metrics import frechet_metrics

FILE = Path(str(resources.files("vaezoo.evaluation"))) / "files" / classifier.FILE


def test_features_are_deterministic(digits):
    extractor = find_feature_extractor((1, 28, 28))
    x = digits.test.batch(slice(7)).x
    with torch.no_grad():
        once, again = extractor.network(x), find_feature_extractor((1, 28, 28)).network(x)
    assert once.shape == (7, extractor.dims) == (7, 64) and torch.equal(once, again)


def test_name_has_hash_and_accuracy(digits):
    prefix = hashlib.sha256(FILE.read_bytes()).hexdigest()[:8]
    assert re.fullmatch(rf"mnist-lenet64 {prefix}, 99\.\d%", find_feature_extractor((1, 28, 28)).name)
    assert FILE.stat().st_size < 300_000


def test_accuracy_of_the_classifier():
    """The packaged test digits are 2,000 of the 10,000 that the stored accuracy is computed on."""
    lenet, stored = load_lenet(FILE)
    error = math.sqrt(stored * (1 - stored) / 2000)
    assert accuracy(lenet, load_data("digits").test) == pytest.approx(stored, abs=3 * error)


def test_script_is_deterministic(digits):
    small = digits.train.select(torch.arange(200))
    first, second = (fit(small) for _ in range(2))
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    assert accuracy(first, small) > 0.3  # in 16 steps


class StubVAE(nn.Module):
    """Returns given samples, in order."""

    def __init__(self, images):
        super().__init__()
        self.images, self.done = nn.Parameter(images), 0

    def sample(self, n):
        self.done += n
        return self.images[self.done - n : self.done]


def test_frechet_distance_ranks_samples(digits):
    extractor, x = find_feature_extractor((1, 28, 28)), digits.test.batch(slice(None)).x
    samples = (torch.rand(x.shape, generator=torch.Generator().manual_seed(0)), F.avg_pool2d(x, 5, 1, 2), x)
    (noise, floor), (blur, same), (copy, _) = (
        frechet_metrics(StubVAE(s), digits.train, digits.test, extractor) for s in samples
    )
    assert noise.value > blur.value > floor.value == same.value > 0
    assert abs(copy.value) < 9e-6  # the features' variance is 603, and roots have half of float64's digits
    assert noise.name == f"Frechet distance ({extractor.name})" and "600 held-out examples" in noise.protocol
    assert "600 training examples" in floor.protocol and extractor.name in floor.name


def test_too_few_examples_are_refused(digits):
    with pytest.raises(VaezooError, match="have no Frechet distance") as error:
        frechet_metrics(
            StubVAE(torch.rand(9, 1, 28, 28)), digits.train, digits.test, FeatureExtractor("none", 2048, nn.Module())
        )
    assert error.value.hint


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 28, 28), (784,)])
def test_other_shapes_need_inception(shape):
    with pytest.raises(UnsupportedDataError, match="packaged feature extractor") as error:
        find_feature_extractor(shape)
    assert "--inception" in error.value.hint


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-1] + b"x", lambda b: b""])
def test_damaged_file_is_refused(damage, tmp_path):
    (tmp_path / "bad").write_bytes(damage(FILE.read_bytes()))
    with pytest.raises(InputError, match="is damaged") as error:
        load_lenet(tmp_path / "bad")
    assert error.value.hint


@pytest.mark.parametrize("load", [load_lenet, inception.load_inception])
def test_huge_file_is_not_read(load, tmp_path):
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 1 << 29)
    with pytest.raises(InputError, match="bytes, more than"):
        load(tmp_path / "large")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file with random weights for Inception, large enough that the features do not vanish."""
    torch.manual_seed(0)
    network = inception.Inception().network
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), file)
    return file


def accept(file, monkeypatch):
    """Makes the loader accept a file, and returns the digits of its hash."""
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(inception, "SHA256", digits)
    return digits


def test_other_inception_weights_are_refused(weights):
    with pytest.raises(InputError, match="its SHA-256 begins with") as error:
        find_feature_extractor((3, 32, 32), weights)
    assert error.value.hint and error.value.exit_code == 3


def test_other_tensors_are_refused(tmp_path, monkeypatch):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    accept(tmp_path / "other.pth", monkeypatch)
    with pytest.raises(InputError, match="does not contain weights of Inception"):
        find_feature_extractor((3, 32, 32), tmp_path / "other.pth")


@pytest.mark.parametrize("shape", [(784,), (2, 28, 28)])
def test_inception_refuses_other_shapes(shape, weights):
    with pytest.raises(UnsupportedDataError, match="Inception does not accept examples"):
        find_feature_extractor(shape, weights)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 320, 301)], ids=["grey", "colour"])
def test_inception_equals_torch_fidelity(shape, weights, monkeypatch):
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    from torchmetrics.image.fid import NoTrainInceptionV3

    digits = accept(weights, monkeypatch)
    extractor = find_feature_extractor(shape, weights)
    assert extractor.name == f"Inception {digits}" and extractor.dims == 2048
    x = torch.randint(0, 256, (1, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        actual = extractor.network(x.float() / 255)
        expected = NoTrainInceptionV3("inception", ["2048"], str(weights))(x.expand(-1, 3, -1, -1))
    assert expected.std() > 1e-3
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * expected.max().item())


@pytest.mark.slow
def test_inception_rounds_to_bytes(weights, monkeypatch):
    accept(weights, monkeypatch)
    network, x = find_feature_extractor((1, 8, 8), weights).network, torch.full((1, 1, 8, 8), 51 / 255)
    with torch.no_grad():
        assert torch.equal(network(x), network(x + 0.4 / 255)) and not torch.equal(network(x), network(x + 0.6 / 255))


def test_images_are_resized_as_tensorflow_1_does():
    """A ramp stays a ramp from its first pixel on, without half pixels. Behind the last pixel it is constant."""
    ramp = torch.arange(4.0).expand(1, 1, 3, 4)
    expected = (torch.arange(10) * 0.4).clamp(max=3)
    for x in (ramp, ramp.transpose(2, 3)):
        y = inception.resize_without_centers(x, 10)
        rows = y if x is ramp else y.transpose(2, 3)
        torch.testing.assert_close(rows, expected.expand(1, 1, 10, 10))


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 320, 301)])
def test_resizing_equals_torch_fidelity(shape):
    reference = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow", reason="it is not installed")
    x = torch.rand((1, *shape), generator=torch.Generator().manual_seed(0)) * 255
    expected = reference.interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)
    torch.testing.assert_close(inception.resize_without_centers(x, 299), expected, rtol=1e-5, atol=1e-3)
