"""The features that Frechet distances are measured in: the packaged classifier's, and Inception's."""

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
from vaezoo.errors import InputError, UnsupportedDataError, VaezooError
from vaezoo.evaluation import feature_extractors, inception
from vaezoo.evaluation.feature_extractors import FeatureExtractor, find_feature_extractor, load_lenet
from vaezoo.evaluation.image_metrics import frechet_metrics

FILE = Path(str(resources.files("vaezoo.evaluation"))) / "files" / feature_extractors.FILE


def test_features_are_of_the_shape_promised_and_without_chance(digits):
    found = find_feature_extractor((1, 28, 28))
    x = digits.test.batch(slice(7)).x
    with torch.no_grad():
        once, again = found.network(x), find_feature_extractor((1, 28, 28)).network(x)
    assert once.shape == (7, found.dims) == (7, 64) and torch.equal(once, again)


def test_the_name_says_which_weights_and_how_good(digits):
    begins = hashlib.sha256(FILE.read_bytes()).hexdigest()[:8]
    assert re.fullmatch(rf"mnist-lenet64 {begins}, 99\.\d%", find_feature_extractor((1, 28, 28)).name)
    assert FILE.stat().st_size < 300_000


def test_the_classifier_is_as_good_as_its_file_says():
    """The packaged test digits are 2,000 of the 10,000 that it was measured on."""
    lenet, stored = load_lenet(FILE)
    error = math.sqrt(stored * (1 - stored) / 2000)
    assert accuracy(lenet, load_data("digits").test) == pytest.approx(stored, abs=3 * error)


def test_the_script_is_without_chance_and_learns(digits):
    few = digits.train.select(torch.arange(200))
    first, second = (fit(few) for _ in range(2))
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    assert accuracy(first, few) > 0.3  # in 16 steps


class Made(nn.Module):
    """Gives the same images as samples whatever it is asked."""

    def __init__(self, images):
        super().__init__()
        self.images, self.done = nn.Parameter(images), 0

    def sample(self, n):
        self.done += n
        return self.images[self.done - n : self.done]


def test_noise_is_farther_than_a_blur_and_that_than_training_examples(digits):
    found, x = find_feature_extractor((1, 28, 28)), digits.test.batch(slice(None)).x
    made = (torch.rand(x.shape, generator=torch.Generator().manual_seed(0)), F.avg_pool2d(x, 5, 1, 2), x)
    (noise, floor), (blur, same), (copy, _) = (frechet_metrics(Made(p), digits.train, digits.test, found) for p in made)
    assert noise.value > blur.value > floor.value == same.value > 0
    assert abs(copy.value) < 9e-6  # the features' variance, 603, to the half of float64's digits that roots have
    assert noise.name == f"Frechet distance ({found.name})" and "600 held-out examples" in noise.protocol
    assert "600 training examples" in floor.protocol and found.name in floor.name


def test_too_few_examples_are_told_before_the_work(digits):
    with pytest.raises(VaezooError, match="have no Frechet distance") as error:
        frechet_metrics(
            Made(torch.rand(9, 1, 28, 28)), digits.train, digits.test, FeatureExtractor("none", 2048, nn.Module())
        )
    assert error.value.hint


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 28, 28), (784,)])
def test_other_shapes_need_inception(shape):
    with pytest.raises(UnsupportedDataError, match="packaged features") as error:
        find_feature_extractor(shape)
    assert "--inception" in error.value.hint


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-1] + b"x", lambda b: b""])
def test_a_damaged_file_is_refused(damage, tmp_path):
    (tmp_path / "bad").write_bytes(damage(FILE.read_bytes()))
    with pytest.raises(InputError, match="is damaged") as error:
        load_lenet(tmp_path / "bad")
    assert error.value.hint


@pytest.mark.parametrize("load", [load_lenet, inception.load])
def test_a_file_that_is_much_too_large_is_not_read(load, tmp_path):
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 1 << 29)
    with pytest.raises(InputError, match="bytes, more than"):
        load(tmp_path / "large")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file with weights for Inception, drawn at random, large enough that something comes out at the end."""
    torch.manual_seed(0)
    network = inception.Inception().network
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), file)
    return file


def accept(file, monkeypatch):
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(inception, "SHA256", digits)
    return digits


def test_other_weights_of_inception_are_refused(weights):
    with pytest.raises(InputError, match="its SHA-256 begins with") as error:
        find_feature_extractor((3, 32, 32), weights)
    assert error.value.hint and error.value.exit_code == 3


def test_other_tensors_than_inceptions_are_refused(tmp_path, monkeypatch):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    accept(tmp_path / "other.pth", monkeypatch)
    with pytest.raises(InputError, match="no weights of Inception"):
        find_feature_extractor((3, 32, 32), tmp_path / "other.pth")


@pytest.mark.parametrize("shape", [(784,), (2, 28, 28)])
def test_inception_takes_grey_and_colour_images_alone(shape, weights):
    with pytest.raises(UnsupportedDataError, match="Inception takes no examples"):
        find_feature_extractor(shape, weights)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 320, 301)], ids=["grey", "colour"])
def test_inception_is_that_of_torch_fidelity(shape, weights, monkeypatch):
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    from torchmetrics.image.fid import NoTrainInceptionV3

    digits = accept(weights, monkeypatch)
    found = find_feature_extractor(shape, weights)
    assert found.name == f"Inception {digits}" and found.dims == 2048
    x = torch.randint(0, 256, (1, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        ours = found.network(x.float() / 255)
        theirs = NoTrainInceptionV3("inception", ["2048"], str(weights))(x.expand(-1, 3, -1, -1))
    assert theirs.std() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.max().item())


def test_images_become_bytes_before_inception_sees_them(weights, monkeypatch):
    accept(weights, monkeypatch)
    network, x = find_feature_extractor((1, 8, 8), weights).network, torch.full((1, 1, 8, 8), 51 / 255)
    with torch.no_grad():
        assert torch.equal(network(x), network(x + 0.4 / 255)) and not torch.equal(network(x), network(x + 0.6 / 255))
