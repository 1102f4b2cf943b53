"""vaezoo.data.arrays and vaezoo.data.npy: arrays in programs and in files."""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from frames import Frame

from vaezoo.data import arrays
from vaezoo.data.arrays import from_arrays
from vaezoo.data.labels import code_labels, recode_labels
from vaezoo.errors import InputError, VaezooError, VaezooWarning

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
    is_grey = len(expected) == 3 and expected[0] == 1
    assert data.spec.likelihood == ("bernoulli" if is_grey else "gaussian:optimal")


def test_channels_last_is_transposed() -> None:
    x = RNG.random((20, 5, 6, 3)).astype(np.float32)
    train, *_ = arrays.to_splits(x, None, None, None, "")
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
    train, *_ = arrays.to_splits(x, None, None, None, "")
    assert train.x.dtype == dtype and train.x.tolist() == expected


def test_train_and_test_share_bits() -> None:
    dark = np.ones((2, 2), dtype=np.uint8)
    with pytest.warns(VaezooWarning, match="x_test has integers from 1 to 1"):
        _, test, *_ = arrays.to_splits(np.full((2, 2), 200), None, dark, None, "")
    assert test is not None and set(test.x.flatten().tolist()) == {1}
    _, test, *_ = arrays.to_splits(np.full((2, 2), 200), None, dark.astype(bool), None, "")
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
        (FLOATS * 3, "values from .* to 2.9", "--scale"),
        (FLOATS * 255, "values from .* to 25", "--scale"),
        (FLOATS - 0.5, "values from -0.4", "--scale"),
        (np.full((20, 2), 300), "values from 300 to 300", "--scale"),
        (np.full((20, 2), -1), "values from -1 to -1", "--scale"),
        (np.where(FLOATS > 0.9, np.nan, FLOATS), "NaN or infinite", "remove"),
        (np.where(FLOATS > 0.9, np.inf, FLOATS), "NaN or infinite", "remove"),
        (FLOATS * 250, "values from", "divide grey levels by 255"),
        (FLOATS * 300, "values from", "give --scale minmax"),
        (FLOATS - 1, "values from", "give --scale minmax"),
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
        (np.full(20, 0.5), "y holds 0.5"),
        (np.full(20, np.nan), "y holds nan"),
        (np.full(20, 1j), "y holds complex128"),
        (np.array(["cat", None] * 10, dtype=object), "y holds None of type NoneType beside other labels"),
    ],
)
def test_invalid_labels(labels: Array, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_arrays(FLOATS, labels)


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        (np.array(["cat", "dog", "ape", "cat"]), [1, 2, 0, 1], ("ape", "cat", "dog")),
        (["10", "9", "1", "9"], [2, 1, 0, 1], ("1", "9", "10")),
        (np.array([b"cat", b"dog", b"cat", b"cat"]), [0, 1, 0, 0], ("cat", "dog")),
        (np.array(["b", "a", "a", "b"], dtype=object), [1, 0, 0, 1], ("a", "b")),
        (np.array([0.0, 2.0, 1.0, 1.0]), [0, 2, 1, 1], ()),
        (np.array([True, False, True, True]), [1, 0, 1, 1], ()),
        (np.array([0, 2.0, 1, 1], dtype=object), [0, 2, 1, 1], ()),
        (np.eye(3)[[0, 2, 1, 1]], [0, 2, 1, 1], ()),
        (np.eye(3, dtype=int)[[0, 2, 1, 1]], [0, 2, 1, 1], ()),
        (np.eye(3, dtype=bool)[[0, 2, 1, 1]], [0, 2, 1, 1], ()),
        (np.array([[0, 1], [1, 0], [1, 1], [0, 1]]), [[0, 1], [1, 0], [1, 1], [0, 1]], ()),  # two factors
        (np.array([["a", "x"], ["b", "x"], ["b", "y"], ["a", "y"]]), [[0, 0], [1, 0], [1, 1], [0, 1]], ()),
    ],
)
def test_labels_of_any_type(labels: object, numbers: list[int], names: tuple[str, ...]) -> None:
    splits = arrays.to_splits(FLOATS[:4], labels, FLOATS[:4], labels, "")
    assert splits.class_names == names and splits.test is not None
    for y in (splits.train.y, splits.test.y):
        assert y is not None and y.tolist() == numbers and y.dtype == torch.int64


def test_training_and_test_labels_are_coded_together() -> None:
    data = from_arrays(FLOATS, ["dog"] * 20, x_test=FLOATS, y_test=["cat"] * 20)
    assert data.spec.classes == (2,) and data.spec.class_names == ("cat", "dog")
    assert data.train.y is not None and set(data.train.y.tolist()) == {1}
    with pytest.raises(InputError, match="only one of y, y_test holds texts"):
        from_arrays(FLOATS, ["dog"] * 20, x_test=FLOATS, y_test=np.arange(20))


def test_labels_of_other_data_get_the_numbers_of_a_run() -> None:
    names = ("ape", "cat", "dog")
    assert code_labels(["dog", "ape"], names).tolist() == [2, 0]
    assert recode_labels(torch.tensor([0, 1, 0]), (("cat", "dog"),), (names,)).tolist() == [1, 2, 1]
    assert recode_labels(torch.tensor([0, 0]), (("cat", "emu"),), (names,)).tolist() == [1, 1]  # no emu is there
    assert recode_labels(torch.tensor([0, 1]), (), (names,)).tolist() == [0, 1]
    two = recode_labels(torch.tensor([[0, 1], [1, 0]]), (("cat", "dog"), ("a", "b")), (names, ("b", "a")))
    assert two.tolist() == [[1, 0], [2, 1]]
    with pytest.raises(InputError, match="has the label 'emu', which is not a class of the run") as error:
        recode_labels(torch.tensor([0, 1]), (("cat", "emu"),), (names,))
    assert error.value.hint == "the classes are ape, cat, dog"


@pytest.mark.parametrize("value", [1.0000000000000002, 1.00000002, 1 + 9e-7, -9e-7, np.float32(1.0000001)])
def test_rounding_is_clipped(value: float) -> None:
    x = FLOATS.astype(np.asarray(value).dtype)
    x[0, 0] = value
    train = from_arrays(x).train.gather(slice(None)).x
    assert float(train.min()) >= 0 and float(train.max()) <= 1


@pytest.mark.parametrize("value", [1.000002, -2e-6])
def test_message_shows_what_is_out_of_range(value: float) -> None:
    x = FLOATS.copy()
    x[0, 0] = value
    with pytest.raises(InputError, match=f"{value:.9g}"):
        from_arrays(x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.arange(60).reshape(20, 3) % 3, "x has integers from 0 to 2"),
        (np.arange(60, dtype=np.uint8).reshape(20, 3) % 17, "x has integers from 0 to 16"),
        (np.arange(60).reshape(20, 3) % 64, "x has integers from 0 to 59"),
    ],
)
def test_dark_integers_warn(x: Array, message: str) -> None:
    with pytest.warns(VaezooWarning, match=rf"{message}, which are nearly black .*; --scale minmax") as caught:
        from_arrays(x)
    assert len(caught) == 1


@pytest.mark.parametrize("x", [np.arange(60).reshape(20, 3) * 4, np.arange(60).reshape(20, 3) % 2, FLOATS])
def test_other_values_do_not_warn(x: Array) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_arrays(x)


# --- what programs hold


def test_data_frames() -> None:
    bits, names = np.arange(20) % 2 == 0, np.array(["a", "b"] * 10, dtype=object)
    data = from_arrays(Frame(a=FLOATS[:, 0], b=bits), Frame(y=names))
    assert data.spec.shape == (2,) and data.spec.class_names == ("a", "b")
    assert data.train.x[0].tolist() == [pytest.approx(FLOATS[1, 0]), 0.0]
    with pytest.raises(InputError, match="x has columns that are not numbers: 'b'") as error:
        from_arrays(Frame(a=FLOATS[:, 0], b=names))
    assert "from_table" in error.value.hint


def test_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": FLOATS[:, 0], "b": np.arange(20) % 2 == 0, "y": ["cat", "dog"] * 10})
    data = from_arrays(frame[["a", "b"]], frame["y"])
    assert data.spec.shape == (2,) and data.spec.class_names == ("cat", "dog")


@pytest.mark.parametrize("scale", ["unit", "minmax", "none"])
def test_places_of_values_that_are_not_finite(scale: str) -> None:
    table = FLOATS.copy()
    table[3, 4], table[7, 0] = np.nan, -np.inf
    with pytest.raises(InputError, match=r"x has .* infinite: 2, the first in row 3, column 4\n") as error:
        from_arrays(table, scale=scale)
    assert "counted from 0" in error.value.hint
    frame = Frame(age=FLOATS[:, 0], size=table[:, 4])
    with pytest.raises(InputError, match=r"x_test has .* infinite: 1, the first in row 3, column 1 'size'"):
        from_arrays(Frame(age=FLOATS[:, 0], size=FLOATS[:, 1]), x_test=frame, scale=scale)
    images = np.zeros((5, 3, 4, 4), np.float32)
    images[2, 1, 0, 3:] = np.nan
    with pytest.raises(InputError, match=r"infinite: 1, the first in example 2\n"):
        from_arrays(images, scale=scale)


def test_lists_of_texts_and_numbers_are_no_labels() -> None:
    """NumPy would make texts of all of them."""
    assert from_arrays(FLOATS[:4], ["a", "1", "b", "1"]).spec.class_names == ("1", "a", "b")
    for labels in ([1, "a", "b", "c"], ["a", "b", "c", 2.5], ["a", None, "b", "c"], [["a", 1]] * 4):
        with pytest.raises(InputError, match=r"y holds .* beside other labels"):
            from_arrays(FLOATS[:4], labels)
    pairs = [(torch.zeros(2), label) for label in ("a", 1, "b")]
    with pytest.raises(InputError, match="beside other labels"):
        from_arrays(ListData(pairs))


class ListData(torch.utils.data.Dataset[object]):
    """A data set of PyTorch made of a list."""

    def __init__(self, items: list[object]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> object:
        return self.items[i]


MASKED = np.ma.masked_greater(FLOATS, 0.9)


@pytest.mark.parametrize(
    ("x", "message", "hint"),
    [
        ([[0.1, 0.2], [0.3]], "x is ragged", "same shape"),
        ([torch.zeros(2), torch.zeros(3)], "x is ragged|x is not an array", "same shape"),
        (torch.zeros(20, 3).to_sparse(), "x is a sparse tensor", "to_dense"),
        (MASKED, f"x has {MASKED.mask.sum()} masked values", "filled"),
        (np.zeros((20, 4, 5, 6)), r"x has the shape \(20, 4, 5, 6\)", "alpha"),
        (np.zeros((20, 5, 6, 4)), r"x has the shape \(20, 5, 6, 4\)", "alpha"),
        (torch.zeros(20, 3, dtype=torch.complex64).conj(), "holds complex64", "floats"),
    ],
)
def test_other_examples_are_errors(x: object, message: str, hint: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        from_arrays(x)
    assert hint in error.value.hint


def test_sparse_matrices_are_errors() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(InputError, match="sparse matrix") as error:
        from_arrays(sparse.csr_matrix(FLOATS))
    assert "toarray" in error.value.hint


def test_masked_arrays_without_masked_values() -> None:
    assert len(from_arrays(np.ma.masked_greater(FLOATS, 2)).train) == 18
    with pytest.raises(InputError, match="y has 1 masked values"):
        from_arrays(FLOATS, np.ma.masked_equal(np.arange(20), 3))


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
        from_arrays(FLOATS, likelihood="cauchy")


# --- scaled

TABLE = RNG.normal([200.0, 3e-3, 7.0], [15.0, 1e-4, 0.0], (100, 3))  # columns of other sizes, and a constant one


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (FLOATS, "gaussian:optimal"),
        ((FLOATS > 0.5).astype(float), "bernoulli"),  # bits, as floats
        (FLOATS > 0.5, "bernoulli"),
        ((FLOATS * 255).astype(np.uint8), "bernoulli"),
        (FLOATS.reshape(20, 2, 3), "bernoulli"),  # a grey image
    ],
)
def test_default_likelihood_follows_the_values(x: Array, expected: str) -> None:
    assert from_arrays(x).spec.likelihood == expected


@pytest.mark.parametrize("scale", ["minmax", "standardize", "none"])
def test_scaling_is_fitted_to_the_training_part(scale: str) -> None:
    table = TABLE.copy()
    table[::10] = 1e6  # these rows are held out for validation
    data = from_arrays(table, x_test=TABLE * 2, scale=scale)
    assert data.spec.kind == ("unit" if scale == "minmax" else "real") and data.spec.likelihood == "gaussian:optimal"
    x = data.train.batch(slice(None)).x.numpy()
    if scale == "minmax":
        assert x.min(0).tolist() == [0, 0, 0] and x.max(0).tolist() == [1, 1, 0]
    elif scale == "standardize":
        assert np.allclose(x.mean(0), 0, atol=1e-5) and np.allclose(x.std(0), [1, 1, 0], atol=1e-5)
    assert data.test is not None
    whole = ((data.train, np.delete(table, np.s_[::10], 0)), (data.valid, table[::10]), (data.test, TABLE * 2))
    for split, values in whole:
        assert np.allclose(data.spec.scaling.invert(split.batch(slice(None)).x.numpy()), values, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int64, np.float16, np.float64, ">i2"])
def test_images_of_any_type_are_scaled(dtype: npt.DTypeLike) -> None:
    values = RNG.integers(0, 2**11, (30, 6, 6)).astype(dtype)
    data = from_arrays(values, scale="minmax")
    assert data.spec.shape == (1, 6, 6) and len(data.spec.offset) == 1 and data.spec.likelihood == "gaussian:optimal"
    kept = np.delete(values, [0, 10, 20], 0).astype(float)
    assert np.allclose(data.train.batch(slice(None)).x.numpy()[:, 0], (kept - kept.min()) / (kept.max() - kept.min()))


def test_new_data_get_the_scaling_of_a_run() -> None:
    scaling = from_arrays(TABLE, scale="standardize").spec.scaling
    data = from_arrays(TABLE[:5] * 3, scale=scaling)
    assert data.spec.scaling == scaling
    expected = scaling.apply(TABLE[1:5] * 3)
    assert np.array_equal(data.train.batch(slice(None)).x.numpy(), expected)


def test_drift_beyond_the_training_range_is_told_and_kept() -> None:
    scaling = from_arrays(TABLE, scale="minmax").spec.scaling
    drifted = TABLE[:20].copy()
    drifted[3, 0] = 1000
    with pytest.warns(VaezooWarning, match="1 of 18 training examples have values beyond .* not clipped"):
        data = from_arrays(drifted, scale=scaling)
    assert float(data.train.batch(slice(None)).x.max()) > 5
    with pytest.raises(InputError, match=r"1 of 18 .* the likelihood bernoulli is for values from 0 to 1 only"):
        from_arrays(drifted, scale=scaling, likelihood="bernoulli")


def test_held_out_values_beyond_the_range_need_a_gaussian() -> None:
    table = np.linspace(0, 1, 100)[:, None]  # the smallest value is held out
    with pytest.raises(InputError, match="1 of 10 validation examples have values beyond") as error:
        from_arrays(table, scale="minmax", likelihood="bernoulli")
    assert "gaussian" in error.value.hint
    assert float(from_arrays(table, scale="minmax").valid.batch(slice(None)).x.min()) < 0


@pytest.mark.parametrize("scale", ["minmax", "standardize", "none"])
def test_scaling_refuses_what_is_not_finite(scale: str) -> None:
    for value in (np.nan, np.inf):
        with pytest.raises(InputError, match="NaN or infinite"):
            from_arrays(np.where(FLOATS > 0.9, value, FLOATS), scale=scale)
    with pytest.raises(InputError, match="not numbers"):
        from_arrays(np.full((20, 2), "a"), scale=scale)


def test_a_scaling_must_exist_and_fit_the_likelihood() -> None:
    with pytest.raises(VaezooError, match="no scaling named 'max'"):
        from_arrays(FLOATS, scale="max")
    with pytest.raises(VaezooError, match="likelihood 'bernoulli' is not for data of kind real"):
        from_arrays(FLOATS, scale="standardize", likelihood="bernoulli")


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
    train, test, *_ = arrays.load(tmp_path / "a.npz")
    assert train.x.squeeze(1).numpy().tobytes() == X.tobytes()
    assert (train.y is not None) == has_labels and (test is not None) == has_test
    assert test is None or test.x.shape == (3, 1, 5, 5)


@pytest.mark.parametrize("x", [X, FLOATS, np.asfortranarray(FLOATS), FLOATS.astype(">f4"), X > 100])
def test_npy(tmp_path: Path, x: Array) -> None:
    np.save(tmp_path / "a.npy", x)
    train, test, *_ = arrays.load(tmp_path / "a.npy")
    expected, *_ = arrays.to_splits(x, None, None, None, "")
    assert test is None and train.y is None and train.x.equal(expected.x)


@pytest.mark.parametrize("names", [("a", "b"), (), ("y",), ("x_test", "y_test")])
def test_npz_without_examples(tmp_path: Path, names: tuple[str, ...]) -> None:
    np.savez(tmp_path / "a.npz", allow_pickle=False, **dict.fromkeys(names, X))
    with pytest.raises(InputError) as error:
        arrays.load(tmp_path / "a.npz")
    assert "x=..." in error.value.hint


def test_npz_with_text_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=np.array(["dog", "cat"] * 10))
    splits = arrays.load(tmp_path / "a.npz")
    assert splits.class_names == ("cat", "dog") and splits.train.y.tolist() == [1, 0] * 10


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
