"""vaezoo.data.arrays and vaezoo.data.npy: arrays in programs and in files."""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from vaezoo.data import arrays
from vaezoo.data.arrays import from_arrays
from vaezoo.errors import InputError, VaezooError

RNG = np.random.default_rng(0)
FLOATS = RNG.random((20, 6))
Array = npt.NDArray[np.generic]


# --- in a program


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((20, 7), (7,)),
        ((20, 5, 6), (1, 5, 6)),
        ((20, 1, 5, 6), (1, 5, 6)),
        ((20, 3, 5, 6), (3, 5, 6)),
        ((20, 5, 6, 1), (1, 5, 6)),
        ((20, 5, 6, 3), (3, 5, 6)),
        ((20, 3, 5, 3), (3, 5, 3)),  # channels first if both are possible
    ],
)
def test_layouts(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    data = from_arrays(RNG.random(shape))
    assert data.spec.shape == expected
    assert data.train.x.shape == (18, *expected) and data.valid.x.shape == (2, *expected)
    assert data.spec.likelihood == ("gaussian:optimal" if len(expected) == 3 and expected[0] == 3 else "bernoulli")


def test_channels_last_is_transposed() -> None:
    x = RNG.random((20, 5, 6, 3)).astype(np.float32)
    train, _ = arrays.to_splits(x, None, None, None, "")
    assert np.array_equal(train.x.numpy(), np.moveaxis(x, 3, 1))


@pytest.mark.parametrize(
    ("x", "dtype", "expected"),
    [
        (np.array([[0.0, 0.25], [0.5, 1.0]], dtype=t), torch.float32, [[0.0, 0.25], [0.5, 1.0]])
        for t in ("f2", "f4", "f8", ">f4")
    ]
    + [(np.array([[0, 7], [128, 255]], dtype=t), torch.uint8, [[0, 7], [128, 255]]) for t in ("u1", "i8", ">u2")]
    + [(np.array([[0, 1], [1, 0]], dtype=t), torch.uint8, [[0, 255], [255, 0]]) for t in ("?", "u1", "i4")],
)
def test_types(x: Array, dtype: torch.dtype, expected: list[list[float]]) -> None:
    train, _ = arrays.to_splits(x, None, None, None, "")
    assert train.x.dtype == dtype and train.x.tolist() == expected


def test_train_and_test_share_bits() -> None:
    dark = np.ones((2, 2), dtype=np.uint8)
    _, test = arrays.to_splits(np.full((2, 2), 200), None, dark, None, "")
    assert test is not None and set(test.x.flatten().tolist()) == {1}
    _, test = arrays.to_splits(np.full((2, 2), 200), None, dark.astype(bool), None, "")
    assert test is not None and set(test.x.flatten().tolist()) == {255}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.uint8, torch.bool])
def test_tensors(dtype: torch.dtype) -> None:
    x = torch.ones(20, 4).to(dtype).requires_grad_(dtype.is_floating_point)
    data = from_arrays(x, torch.arange(20), x_test=x, y_test=torch.zeros(20, 2).int())
    assert data.spec.classes == ()  # one label in training and two in the test
    assert data.train.batch(slice(0, 2)).x.tolist() == [[1.0] * 4] * 2
    assert data.test is not None and data.test.y is not None and data.test.y.shape == (20, 2)
    assert data.train.y is not None and data.train.y.dtype == torch.int64
    assert data.source is None and data.held_out[0] == "test"


def test_read_only_arrays_are_silent() -> None:
    x = FLOATS.astype(np.float32)
    x.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_arrays(x, np.broadcast_to(np.arange(20)[:, None], (20, 3)))


def test_label_column_becomes_vector() -> None:
    data = from_arrays(FLOATS, np.arange(20)[:, None])
    assert data.train.y is not None and data.train.y.shape == (18,)


@pytest.mark.parametrize(
    ("x", "message", "hint"),
    [
        (FLOATS * 3, "values from .* to 2.9", "[0, 1]: use"),
        (FLOATS * 255, "values from .* to 25", "[0, 1]: divide by 255"),
        (FLOATS - 0.5, "values from -0.4", "[0, 1]: use"),
        (np.full((20, 2), 300), "values from 300 to 300", "use"),
        (np.full((20, 2), -1), "values from -1 to -1", "use"),
        (np.where(FLOATS > 0.9, np.nan, FLOATS), "NaN or infinite", "remove"),
        (np.where(FLOATS > 0.9, np.inf, FLOATS), "NaN or infinite", "remove"),
        (np.full((20, 2), None), "holds object", "floats"),
        (np.full((20, 2), "a"), "holds <U1", "floats"),
        (FLOATS.astype(complex), "holds complex128", "floats"),
        (np.zeros(()), r"the shape \(\)", "dimensions"),
        (np.zeros(20), r"the shape \(20,\)", "dimensions"),
        (np.zeros((0, 3)), r"the shape \(0, 3\)", "dimensions"),
        (np.zeros((20, 0)), r"the shape \(20, 0\)", "dimensions"),
        (np.zeros((20, 2, 5, 5)), r"the shape \(20, 2, 5, 5\)", "1 or 3"),
        (np.zeros((20, 1, 1, 5, 5)), r"the shape \(20, 1, 1, 5, 5\)", "dimensions"),
        (np.zeros((1, 3)), "1 training examples", "two"),
    ],
)
def test_invalid_examples(x: Array, message: str, hint: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        from_arrays(x)
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(19), "y has the shape .*19.* for 20 examples"),
        (np.zeros((20, 1, 1), int), "y has the shape"),
        (np.zeros((20, 0), int), "y has the shape"),
        (np.array(3), "y has the shape"),
        (np.zeros(20), "y holds float64"),
        (np.full(20, "cat"), "y holds <U3"),
    ],
)
def test_invalid_labels(labels: Array, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_arrays(FLOATS, labels)


def test_test_split_must_match() -> None:
    with pytest.raises(InputError, match=r"x has examples of shape \(6,\), but x_test of shape \(5,\)"):
        from_arrays(FLOATS, x_test=FLOATS[:, :5])
    with pytest.raises(InputError, match="y_test but no x_test"):
        from_arrays(FLOATS, y_test=np.arange(20))
    with pytest.raises(InputError, match="y_test has the shape"):
        from_arrays(FLOATS, x_test=FLOATS, y_test=np.arange(3))


def test_likelihood_and_name() -> None:
    data = from_arrays(FLOATS, name="mine", likelihood="gaussian:0.1")
    assert (data.spec.name, data.spec.likelihood) == ("mine", "gaussian:0.1")
    with pytest.raises(VaezooError, match="no likelihood"):
        from_arrays(FLOATS, likelihood="poisson")


# --- in files

X = RNG.integers(0, 256, (20, 5, 5), dtype=np.uint8)
Y = np.arange(20)


@pytest.mark.parametrize(
    ("content", "has_labels", "has_test"),
    [
        ({"x": X}, False, False),
        ({"x": X, "y": Y, "names": np.array(["other"])}, True, False),
        ({"x_train": X, "x_test": X[:3]}, False, True),
        ({"x_train": X, "y_train": Y, "x_test": X[:3], "y_test": Y[:3]}, True, True),
        ({"x": X, "y": Y, "x_test": X[:3]}, True, True),
        ({"whatever": X}, False, False),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, content: dict[str, Array], has_labels: bool, has_test: bool, save: type) -> None:
    save(tmp_path / "a.npz", **content)
    train, test = arrays.load(tmp_path / "a.npz")
    assert train.x.squeeze(1).numpy().tobytes() == X.tobytes()
    assert (train.y is not None) == has_labels and (test is not None) == has_test
    assert test is None or test.x.shape == (3, 1, 5, 5)


@pytest.mark.parametrize("x", [X, FLOATS, np.asfortranarray(FLOATS), FLOATS.astype(">f4"), X > 100])
def test_npy(tmp_path: Path, x: Array) -> None:
    np.save(tmp_path / "a.npy", x)
    train, test = arrays.load(tmp_path / "a.npy")
    expected, _ = arrays.to_splits(x, None, None, None, "")
    assert test is None and train.y is None and train.x.equal(expected.x)


@pytest.mark.parametrize("names", [("a", "b"), (), ("y",), ("x_test", "y_test")])
def test_npz_without_examples(tmp_path: Path, names: tuple[str, ...]) -> None:
    np.savez(tmp_path / "a.npz", allow_pickle=False, **dict.fromkeys(names, X))
    with pytest.raises(InputError) as error:
        arrays.load(tmp_path / "a.npz")
    assert "x=..." in error.value.hint


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        arrays.load(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("y", "y_test", "classes"),
    [
        (None, None, ()),
        ([0, 1, 2, 0], None, (3,)),
        ([0, 1, 1, 0], [3, 0, 0, 0], (4,)),  # the test split may have labels that training lacks
        ([[0, 1], [2, 0], [0, 4], [1, 1]], None, (3, 5)),
        ([-1, 0, 1, 2], None, ()),
        ([0, 0, 0, 10_000], None, ()),
        ([0, 0, 0, 9_999], None, (10_000,)),
        (None, [0, 1, 0, 1], (2,)),
    ],
)
def test_classes_are_counted(y: object, y_test: object, classes: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).random((4, 3))
    labels = [None if values is None else np.array(values) for values in (y, y_test)]
    data = from_arrays(x, labels[0], x_test=None if y_test is None else x, y_test=labels[1])
    assert data.spec.classes == classes and data.spec.kind == "unit"
