"""vaezoo.data.base: splits, batches and the validation split."""

import pytest
import torch

from vaezoo.data.base import MAX_VALID, DataSpec, TensorSplit, train_valid_split
from vaezoo.errors import InputError, VaezooError


def test_batches_are_unit_floats() -> None:
    split = TensorSplit(torch.tensor([[0, 51, 255]], dtype=torch.uint8), None)
    x, y = split.batch(slice(None))
    assert x.tolist() == [[0.0, pytest.approx(0.2), 1.0]]
    assert y is None


@pytest.mark.parametrize(("n", "count"), [(2, 1), (10, 1), (99, 9), (10 * MAX_VALID + 10, MAX_VALID)])
def test_validation_is_a_tenth(n: int, count: int) -> None:
    train, valid = train_valid_split(TensorSplit(torch.arange(n), torch.arange(n)))
    assert len(valid) == count
    assert sorted(train.x.tolist() + valid.x.tolist()) == list(range(n))
    assert train.y is not None and train.x.equal(train.y)


def test_validation_stays_balanced() -> None:
    _, valid = train_valid_split(TensorSplit(torch.zeros(1000), torch.arange(10).repeat_interleave(100)))
    assert valid.y is not None and valid.y.bincount().tolist() == [10] * 10


def test_one_example_is_too_few() -> None:
    with pytest.raises(InputError, match="1 training examples"):
        train_valid_split(TensorSplit(torch.zeros(1, 3), None))


@pytest.mark.parametrize("shape", [(), (3, 4), (1, 0, 3), (1, 2, 3, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(VaezooError, match="neither an image's nor a vector's"):
        DataSpec(name="odd", shape=shape)
