"""vaezoo.from_arrays with data sets and data loaders of PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset
from torchvision import datasets, transforms

from vaezoo import TrainConfig, from_arrays, train
from vaezoo.data import convert
from vaezoo.errors import InputError, VaezooError

X, Y = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3


class Items(Dataset[Any]):
    """Returns given items."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __getitem__(self, index: int) -> Any:
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item

    def __len__(self) -> int:
        return len(self.items)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(X)


@pytest.mark.parametrize(
    "data",
    [
        TensorDataset(X, Y),
        Subset(TensorDataset(X, Y), range(20)),
        DataLoader(TensorDataset(X, Y), batch_size=3, shuffle=True),
        Items(*zip(X, Y.tolist(), strict=True)),
        Items(*zip(X.numpy(), Y, strict=True)),
    ],
)
def test_examples_and_labels_keep_their_order(data: Any) -> None:
    expected, actual = from_arrays(X, Y), from_arrays(data)
    assert actual.spec == expected.spec
    for a, b in ((actual.train, expected.train), (actual.valid, expected.valid)):
        assert a.gather(slice(None)).x.equal(b.gather(slice(None)).x) and a.y.equal(b.y)


def test_without_labels_and_with_test() -> None:
    data = from_arrays(TensorDataset(X), x_test=Items(*X[:3]))
    assert data.train.y is None and data.test is not None and len(data.test) == 3


def test_torchvision(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(np.full((6, 6, 3), 100 * i, np.uint8)).save(tmp_path / name / f"{i}.png")
    plain = from_arrays(datasets.ImageFolder(str(tmp_path)))
    tensors = from_arrays(Subset(datasets.ImageFolder(str(tmp_path), transforms.ToTensor()), range(6)))
    for data in (plain, tensors):
        assert data.spec.shape == (3, 6, 6) and data.spec.class_names == ("cat", "dog")
        assert torch.cat([data.train.y, data.valid.y]).sort().values.tolist() == [0, 0, 0, 1, 1, 1]
    assert plain.train.x.dtype == torch.uint8
    assert plain.train.batch(slice(None)).x.equal(tensors.train.batch(slice(None)).x)


def test_train_takes_them(tmp_path: Path) -> None:
    config = TrainConfig(steps=1, batch_size=4)
    runs = [train("mlp-vae", d, config=config, out=tmp_path / str(i)) for i, d in enumerate((TensorDataset(X, Y), X))]
    assert [run.data.classes for run in runs] == [(3,), ()] and runs[0].data.shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (Stream(), "of type Stream, whose examples have no index", "map-style"),
        (DataLoader(Stream()), "of type Stream, whose examples have no index", "map-style"),
        (Items(), "x has no examples", "two"),
        (Items({"x": X[0]}), "gives a dict", "wrap"),
        (TensorDataset(X, Y, Y), "gives 3 values", "wrap"),
        (Items(X[0], X[1, :, :2]), r"x\[0\] is float32 of shape \(1, 4, 4\), but x\[1\]", "transform"),
        (Items(X[0], ZeroDivisionError("no")), r"x\[1\] cannot be read: ZeroDivisionError: no", "repair"),
    ],
)
def test_other_data_sets_are_errors(data: Any, message: str, hint: str) -> None:
    with pytest.raises(VaezooError, match=message) as error:
        from_arrays(data)
    assert hint in error.value.hint


def test_labels_are_given_once() -> None:
    with pytest.raises(VaezooError, match="x is a data set, which has its own labels"):
        from_arrays(TensorDataset(X, Y), Y)


def test_larger_than_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "machine_memory", lambda: 100)
    with pytest.raises(InputError, match="the 20 examples of x need"):
        from_arrays(Items(*X))
