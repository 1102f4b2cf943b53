"""vaezoo.data.images.digits: the packaged digits and the script that makes them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scripts import make_digits
from vaezoo import data
from vaezoo.data.images import digits

FILES = Path(data.__file__).parent / "files"
MNIST = Path(__file__).parents[2] / "../shared/data/mnist"
needs_mnist = pytest.mark.skipif(
    not MNIST.is_dir(), reason="the folder shared/data/mnist beside the repository is absent"
)


def test_shapes_and_balance() -> None:
    for split, count in zip(digits.load(), (1000, 200), strict=True):
        assert split.x.shape == (10 * count, 1, 28, 28) and split.x.dtype == torch.uint8
        assert split.y is not None and split.y.dtype == torch.int64
        assert split.y.bincount().tolist() == [count] * 10


def test_classes_are_mixed() -> None:
    train, _ = digits.load()
    assert train.y is not None and len(set(train.y[:100].tolist())) == 10


def test_image_size() -> None:
    train, test = digits.load(image_size=16)
    assert train.x.shape == (10_000, 1, 16, 16) and test.x.shape == (2_000, 1, 16, 16)


@needs_mnist
def test_digits_are_from_mnist() -> None:
    from vaezoo.data.images import standard_sets

    for split, official in zip(digits.load(), standard_sets.load("mnist", MNIST, None), strict=True):
        assert split.y is not None and official.y is not None
        expected = {(x.tobytes(), int(y)) for x, y in zip(official.x.numpy(), official.y, strict=True)}
        actual = {(x.tobytes(), int(y)) for x, y in zip(split.x.numpy(), split.y, strict=True)}
        assert len(actual) == len(split) and actual <= expected


@needs_mnist
def test_script_remakes_packaged_file(tmp_path: Path) -> None:
    make_digits.make(MNIST, tmp_path / "a.npz")
    make_digits.make(MNIST, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with (
        np.load(FILES / digits.FILE, allow_pickle=False) as old,
        np.load(tmp_path / "a.npz", allow_pickle=False) as new,
    ):
        assert old.files == new.files
        # Contents are compared, because another version of zlib may compress the same numbers differently.
        assert all(np.array_equal(old[name], new[name]) for name in old.files)


def test_licence_is_packaged() -> None:
    licence = (FILES / "DIGITS-LICENSE.md").read_text()
    assert "CC BY-SA 3.0" in licence and "LeCun" in licence
