"""vaezoo.data.base: splits, batches and the validation split."""

import json
import math
from dataclasses import asdict
from typing import Any

import pytest
import torch

from vaezoo.core.options import construct
from vaezoo.data.base import MAX_VALID, Batch, TensorSplit, given, train_valid_split
from vaezoo.data.spec import DataSpec
from vaezoo.errors import InputError, VaezooError
from vaezoo.vae import check_labels


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


@pytest.mark.parametrize("shape", [(), (0,), (1, 0, 3), (3, -4), (1, 2, 3, 4, 5)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(VaezooError, match="is not the shape of an example"):
        DataSpec(name="odd", shape=shape)


@pytest.mark.parametrize("shape", [(7,), (3, 4), (1, 2, 3), (1, 2, 3, 4)])
def test_shapes_of_one_to_four_dimensions(shape: tuple[int, ...]) -> None:
    spec = DataSpec(name="x", shape=shape)
    assert spec.features_shape == spec.params_shape == shape and spec.dims == math.prod(shape)


TOKENS = {"shape": (4,), "kind": "tokens", "likelihood": "categorical"}
TABLE = {"kind": "table", "likelihood": "table"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"shape": (3,), "kind": "text"}, "no kind of data named 'text'"),
        ({"shape": (3,), "kind": "real"}, "likelihood 'bernoulli' is not for data of kind real"),
        ({"shape": (3,), "likelihood": "categorical"}, "likelihood 'categorical' is not for data of kind unit"),
        ({"shape": (3,), "kind": "real", "likelihood": "gausian"}, "no likelihood named 'gausian'"),
        (TOKENS | {"vocabulary": 1}, "a vocabulary of 1 ids is too small"),
        (TOKENS, "a vocabulary of 0 ids is too small"),
        (TOKENS | {"vocabulary": 3, "symbols": ("", "a")}, "2 symbols for 3 token ids"),
        (TABLE | {"shape": (2,), "columns": ("a:real",)}, r"1 columns and shape \(2,\)"),
        (TABLE | {"shape": (1, 1), "columns": ("a:real",)}, r"1 columns and shape \(1, 1\)"),
        (TABLE | {"shape": (1,), "columns": ("a",)}, "column 'a' is neither real nor a category"),
        (TABLE | {"shape": (1,), "columns": ("a:1",)}, "column 'a:1' is neither"),
        (TABLE | {"shape": (1,), "columns": ("a:-2",)}, "column 'a:-2' is neither"),
        (TABLE | {"shape": (1,), "columns": ("a:10001",)}, "column 'a:10001' is neither"),
        (TABLE | {"shape": (1,), "columns": ("a:999999999999",)}, "is neither real nor a category"),
        ({"shape": (3,), "classes": (0,)}, "labels of 0 values"),
        ({"shape": (3,), "offset": (0.0,), "factor": (1.0,)}, "a scaling of 1 offsets and 1 factors"),
        ({"shape": (1,), "offset": (0.0,)}, "a scaling of 1 offsets and 0 factors"),
        ({"shape": (1,), "offset": (0.0,), "factor": (0.0,)}, "a scaling by 0"),
        (TOKENS | {"vocabulary": 3, "offset": (0.0,) * 4, "factor": (1.0,) * 4}, "a scaling of 4 offsets"),
        ({"shape": (3,), "classes": (3, 10_001)}, "labels of 10,001 values"),
        ({"shape": (3,), "classes": (3,), "class_names": ("a", "b")}, r"2 names for labels of \(3,\) values"),
        ({"shape": (3,), "classes": (2,), "class_names": ("a", "a")}, r"2 names for labels of \(2,\) values"),
        ({"shape": (3,), "class_names": ("a",)}, "1 names for labels of no values"),
        (
            {"shape": (3,), "classes": (2,), "label_names": (("a", "b"),)},
            r"names of 1 labels for labels of \(2,\) values",
        ),
        ({"shape": (3,), "classes": (2, 1), "label_names": (("a", "a"), ("b",))}, "names of 2 labels for labels of"),
        (
            {"shape": (3,), "classes": (1,), "class_names": ("a\x1b[2J",)},
            "class or column that cannot be printed",
        ),
    ],
)
def test_fields_must_fit_each_other(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(VaezooError, match=words) as e:
        DataSpec(name="odd", **fields)
    assert e.value.hint and "\n" not in e.value.message


def test_spec_derives_shapes() -> None:
    tokens = DataSpec(name="t", vocabulary=6, symbols=tuple("-abcde"), **TOKENS)  # type: ignore[arg-type]
    assert tokens.features_shape == tokens.params_shape == (4, 6)
    table = DataSpec(name="t", shape=(2,), columns=("a:real", "b:5"), **TABLE)  # type: ignore[arg-type]
    assert (table.features_shape, table.params_shape, table.dims) == ((6,), (7,), 2)


def test_spec_survives_json() -> None:
    spec = DataSpec(name="t", shape=(2,), kind="table", likelihood="table", columns=("a:real", "b:5"), classes=(3, 2))
    assert construct(DataSpec, json.loads(json.dumps(asdict(spec)))) == spec


def test_scaling_of_many_columns_survives_json_exactly() -> None:
    numbers = tuple((torch.rand(5000, dtype=torch.float64) + 1e-9).tolist())
    spec = DataSpec(name="t", shape=(5000,), offset=numbers, factor=numbers)
    assert construct(DataSpec, json.loads(json.dumps(asdict(spec)))) == spec


def test_given_takes_fields_of_a_batch() -> None:
    x, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    assert given((), Batch(x)) == () and given(("y", "x"), Batch(x, y)) == (y, x)
    with pytest.raises(VaezooError, match="conditioned on labels, but none are given") as e:
        given(("x", "y"), Batch(x))
    assert e.value.hint


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (torch.tensor([[0, 1], [2, 1]]), ""),
        (torch.zeros(0, 2, dtype=torch.int64), ""),
        (torch.tensor([[0, 1], [3, 1]]), "unknown label 3"),
        (torch.tensor([[0, 2]]), "unknown label 2"),
        (torch.tensor([[0, -1]]), "unknown label -1"),
        (torch.tensor([0, 1]), r"labels have shape \(2,\), but data set 'x' has 2 per example"),
        (torch.zeros(2, 2, 1, dtype=torch.int64), "labels have shape"),
    ],
)
def test_labels_are_below_their_classes(y: torch.Tensor, words: str) -> None:
    data = DataSpec(name="x", shape=(3,), classes=(3, 2))
    if not words:
        check_labels(data, y)
        return
    with pytest.raises(VaezooError, match=words) as e:
        check_labels(data, y)
    assert e.value.hint
