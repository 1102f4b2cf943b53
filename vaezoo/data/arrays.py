"""Data sets from arrays: .npy and .npz files, and NumPy arrays or tensors in a program."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from vaezoo.core.scaling import Scaling, check_scale, fit
from vaezoo.data.base import Dataset, DataSource, Split, Splits, TensorSplit, train_valid_split
from vaezoo.data.columns import column_names, to_columns
from vaezoo.data.convert import TorchData, Values, is_torch_data, read_torch_data, to_array
from vaezoo.data.counts.layout import SCALING as COUNT_SCALING
from vaezoo.data.counts.layout import count_rows
from vaezoo.data.labels import convert_labels
from vaezoo.data.npy import Array, read_arrays
from vaezoo.data.scaling import check_range, scale_split
from vaezoo.data.series.layout import series_first
from vaezoo.data.spec import MAX_CLASSES, DataSpec
from vaezoo.errors import InputError, VaezooError, VaezooWarning, safe_repr

CHANNELS = (1, 3)
TOLERANCE = 1e-6  # of [0, 1]: rounding leaves such values, which are clipped
MAX_DARK = 63  # a quarter of the levels 0..255; integers below it are seldom grey levels
LABELS = ("y", "y_train", "y_test")  # of arrays in a .npz file
NAMES = ("x", "x_train", "x_test", *LABELS)
SERIES_SCALE = "standardize"  # the default of series, whose values have units
CONTINUOUS = "gaussian:optimal"  # the default likelihood of values that are neither bits nor bytes
COUNTS = "zinb"  # that of counts, as in scVI
SCALE_HINT = "give --scale minmax, standardize or none (in Python scale='minmax')"
GREY_HINT = "divide grey levels by 255, or give --scale minmax (in Python scale='minmax')"


Layout: TypeAlias = Callable[[Array, str], Array]  # brings examples into their axes, given what errors call them


def load(path: Path, scale: str | Scaling = "unit", layout: Layout | None = None) -> Splits:
    """Reads an array file into memory.

    Args:
        path: A .npy file with the examples, or a .npz file. A .npz file has `x` and optionally `y`, or `x_train` and
            optionally `y_train`, `x_test` and `y_test`, or one array of any name.
        scale: As in `to_splits`, like the next one.
        layout: The axes of the examples.

    Returns:
        The training split and the test split, as `from_arrays` describes them. The test split is None if there is none.

    Raises:
        InputError: If the file cannot be read, or `from_arrays` does not accept its arrays.
    """
    arrays = read_arrays(path, NAMES, texts=LABELS)
    train = arrays.get("x_train", arrays.get("x", arrays.get("")))
    if train is None:
        raise InputError(
            f"array file '{path}' has neither x nor x_train", "save the examples as numpy.savez(path, x=..., y=...)"
        )
    y = arrays.get("y_train", arrays.get("y"))
    return to_splits(train, y, arrays.get("x_test"), arrays.get("y_test"), f" of '{path}'", scale, layout)


def from_arrays(
    x: Values | TorchData,
    y: Values | None = None,
    *,
    x_test: Values | TorchData | None = None,
    y_test: Values | None = None,
    name: str = "arrays",
    likelihood: str | None = None,
    scale: str | Scaling | None = None,
    kind: str | None = None,
) -> Dataset:
    """Makes a data set of arrays, tensors, data frames or data sets of PyTorch. One example in ten is held out.

    Args:
        x: The examples: vectors `(N, dimensions)`, grey images `(N, height, width)`, or images with 1 or 3 channels,
            `(N, channels, height, width)` or `(N, height, width, channels)`. The values are floats in [0, 1], integers
            in 0..255, or bits, unless `scale` says otherwise. Bits are bools, or integers that are all 0 or 1. Columns
            of a frame keep their names. A data set of PyTorch has examples and labels, and is read once. A DataLoader
            stands for its data set.
        y: Labels `(N,)` or factors of variation `(N, factors)`: whole numbers or texts. `(N, classes)` with a single 1
            in each row are one-hot labels.
        x_test: Test examples, in the form of x. The columns of a frame may have another order.
        y_test: The labels of the test examples.
        name: The name of the data set.
        likelihood: As in `vaezoo.likelihoods.make.make_likelihood`. The default is "bernoulli" for bits, for vectors of
            bytes and for one channel. It is "gaussian:optimal" for vectors of floats, for colour and for scaled data.
        scale: How values become x. The default is "unit", or "standardize" for series. "unit" takes floats in [0, 1],
            and divides integers by 255. "minmax" maps the range of each column of vectors, or of each channel of images
            and series, to [0, 1]. "standardize" maps its mean and standard deviation to 0 and 1. "none" takes real
            values as they are. Both are fitted to the training part alone. New data get the scaling of a run as it is,
            `run.data.scaling`.
        kind: "series" for series `(N, time)` or `(N, channels, time)`, "counts" for counts `(N, columns)`.

    Returns:
        The data set. Floats become float32. Integers and bits become uint8, bits as 0 and 255. Images become
        `(N, channels, height, width)`. Its spec holds the scaling.

    Raises:
        InputError: If an array has another shape, type or range, or the lengths differ.
        VaezooError: If the likelihood, the scaling or the kind does not exist, or they do not fit each other.
    """
    if kind not in (None, "series", "counts"):
        raise VaezooError(f"no kind of data named '{safe_repr(kind)}'", "use series or counts, or leave it out")
    layout = None if kind is None else {"series": series_first, "counts": count_rows}[kind]
    scale = scale_of(kind, scale)
    x, y, class_names = without_torch(x, y, "x")
    x_test, y_test, _ = (x_test, y_test, ()) if x_test is None else without_torch(x_test, y_test, "x_test")
    splits = to_splits(x, y, x_test, y_test, "", scale, layout)
    splits = splits if splits.class_names else splits._replace(class_names=class_names)
    return make_dataset(splits, name, likelihood, None, scale)


def without_torch(x: Values | TorchData, y: Values | None, name: str) -> tuple[Values, Values | None, tuple[str, ...]]:
    """Reads x if it is a data set of PyTorch. Returns the examples, their labels and the names of the classes."""
    if not is_torch_data(x):
        return cast("Values", x), y, ()
    if y is not None:
        raise VaezooError(f"{name} is a data set, which has its own labels", f"leave out y{name[1:]}")
    return read_torch_data(cast("TorchData", x), name)


def make_dataset(
    splits: Splits,
    name: str,
    likelihood: str | None,
    source: DataSource | None,
    scale: str | Scaling = "unit",
) -> Dataset:
    """Makes a data set of its splits: holds out validation examples, scales, fills in the default likelihood."""
    classes, test = count_classes(splits), splits.test
    train, valid = train_valid_split(splits.train) if splits.valid is None else (splits.train, splits.valid)
    scaling = scale if isinstance(scale, Scaling) else Scaling()
    if not is_unit(scale):
        assert isinstance(train, TensorSplit) and isinstance(valid, TensorSplit)
        assert test is None or isinstance(test, TensorSplit)
        scaling = scale if isinstance(scale, Scaling) else fit(scale, train.x.numpy())
        train, valid = scale_split(train, scaling), scale_split(valid, scaling)
        test = None if test is None else scale_split(test, scaling)
    spec = DataSpec(
        name=name,
        shape=train.shape,
        likelihood=likelihood or default_likelihood(train, scaling),
        kind=scaling.kind,
        classes=classes,
        class_names=splits.class_names if classes else (),
        label_names=splits.label_names if classes else (),
        column_names=splits.column_names,
        time_column=splits.time_column,
        sample_rate=splits.sample_rate,
        layer=splits.layer,
        label_column=splits.label_column if classes else "",
        offset=scaling.offset,
        factor=scaling.factor,
    )
    for split, what in ((train, "training examples"), (valid, "validation examples"), (test, "test examples")):
        if isinstance(split, TensorSplit):
            check_range(spec, split, what, warn=isinstance(scale, Scaling))
    return Dataset(spec=spec, train=train, valid=valid, test=test, source=source)


def scale_of(kind: str | None, scale: str | Scaling | None) -> str | Scaling:
    """Returns how values of a kind become x. Without `scale` it is the default of the kind.

    Raises:
        VaezooError: If counts are to be scaled.
    """
    if kind == "counts":
        if scale not in (None, "none", COUNT_SCALING):
            raise VaezooError("counts are not scaled: their likelihood is that of whole numbers", "leave out --scale")
        return COUNT_SCALING
    return scale or ("unit" if kind is None else SERIES_SCALE)


def is_unit(scale: str | Scaling) -> bool:
    """Tells whether values are taken by the rule of `convert_values`, without a scaling that is fitted."""
    return (scale.name if isinstance(scale, Scaling) else scale) == "unit"


def default_likelihood(train: Split, scaling: Scaling) -> str:
    """Returns the likelihood of examples for which a user names none.

    Vectors and series of floats are continuous unless all of them are 0 or 1. A Bernoulli takes them for probabilities
    of bits. A column that varies little then has nearly no weight, and the posterior collapses.
    """
    if scaling.kind == "count":
        return COUNTS
    if (len(train.shape) == 3 and train.shape[0] > 1) or scaling.kind == "real":
        return CONTINUOUS
    may_be_bits = len(train.shape) < 3 or scaling.offset
    if may_be_bits and isinstance(train, TensorSplit) and train.x.is_floating_point():
        are_bits = bool(((train.x == 0) | (train.x == 1)).all())
        return "bernoulli" if are_bits else CONTINUOUS
    return "bernoulli"


def count_classes(splits: Splits) -> tuple[int, ...]:
    """Returns how many values each label has. Empty if they are not the numbers 0, 1, 2 ... of equally many labels."""
    parts = (splits.train, splits.test, splits.valid)
    if names := (splits.class_names,) if splits.class_names else splits.label_names:
        classes = tuple(map(len, names))
        return classes if max(classes) <= MAX_CLASSES else ()
    labels = [split.y for split in parts if split is not None and split.y is not None]
    tables = [y.unsqueeze(1) if y.ndim == 1 else y for y in labels]
    if len({table.shape[1] for table in tables}) != 1:
        return ()
    columns = torch.cat(tables)
    classes = tuple(int(n) + 1 for n in columns.max(0).values)
    return classes if int(columns.min()) >= 0 and max(classes) <= MAX_CLASSES else ()


def to_splits(
    x: Values,
    y: Values | None,
    x_test: Values | None,
    y_test: Values | None,
    origin: str,
    scale: str | Scaling = "unit",
    layout: Layout | None = None,
) -> Splits:
    """Converts arrays as `from_arrays` describes. Errors append `origin` to the names of arrays.

    The axes are those of vectors and images, unless `layout` brings them into others.

    With a `scale` other than "unit", the splits hold values as they are, float32 or float64. `make_dataset` scales
    them.
    """
    if not isinstance(scale, Scaling):
        check_scale(scale)
    columns = column_names(x, f"x{origin}")
    arrays = {f"x{origin}": to_array(x, f"x{origin}")}
    if x_test is not None:
        arrays[f"x_test{origin}"] = to_columns(x_test, columns, f"x_test{origin}")
    elif y_test is not None:
        raise InputError(f"there is y_test{origin} but no x_test", "give both")
    # Train and test decide together, because a test split may happen to be dark.
    bits = are_bits(arrays.values())
    if not bits and is_unit(scale):
        _warn_of_dark(arrays)
    arrays = {label: (layout or channels_first)(array, label) for label, array in arrays.items()}
    if is_unit(scale):
        examples = [convert_values(array, label, bits, columns) for label, array in arrays.items()]
    else:
        examples = [torch.from_numpy(as_numbers(array, label, columns)) for label, array in arrays.items()]
    shapes = [tuple(tensor.shape[1:]) for tensor in examples]
    if len(set(shapes)) > 1:
        raise InputError(
            f"x{origin} has examples of shape {shapes[0]}, but x_test of shape {shapes[1]}", "give both the same shape"
        )
    names = (f"y{origin}", f"y_test{origin}")
    both = zip((y, y_test), names, strict=True)
    given = [None if values is None else to_array(values, label, texts=True) for values, label in both]
    labels, label_names = convert_labels(given[: len(examples)], names, [len(tensor) for tensor in examples])
    splits = [TensorSplit(tensor, values) for tensor, values in zip(examples, labels, strict=True)]
    test = splits[1] if x_test is not None else None
    return Splits(splits[0], test, column_names=columns).named(label_names)


def _warn_of_dark(arrays: Mapping[str, Array]) -> None:
    """Warns of integers that are nearly black if 255 is white. They may be categories, or levels of fewer bits."""
    for name, array in arrays.items():
        if array.dtype.kind in "iu" and array.min(initial=0) >= 0 and array.max(initial=0) <= MAX_DARK:
            warnings.warn(
                f"{name} has integers from {array.min()} to {array.max()}, which are nearly black where 255 is white; "
                "--scale minmax maps them to [0, 1] (in Python scale='minmax')",
                VaezooWarning,
                stacklevel=4,
            )


def are_bits(arrays: Iterable[Array]) -> bool:
    """Returns whether the integers of arrays are bits, because all are 0 or 1."""
    return all(array.max(initial=0) <= 1 for array in arrays if array.dtype.kind in "iu")


def convert_values(array: Array, name: str, are_bits: bool, columns: Sequence[str] = ()) -> Tensor:
    """Converts the values of examples.

    Args:
        array: `(N, ...)`.
        name: What errors call it.
        are_bits: Whether the brightest integer is 1 and not 255.
        columns: The names of its columns, or none.

    Raises:
        InputError: If they are not numbers in the range of `from_arrays`.
    """
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {array.dtype}, not numbers", "give floats in [0, 1] or integers in 0..255")
    is_float = array.dtype.kind == "f"
    tolerance = TOLERANCE if is_float else 0
    low, high = float(array.min()), float(array.max())
    if not math.isfinite(low + high):
        require_finite(array, name, columns)
    if low < -tolerance or high > (1 + tolerance if is_float else 255):
        are_levels = is_float and low >= 0 and 1 < high <= 255
        raise InputError(f"{name} has values from {low:.9g} to {high:.9g}", GREY_HINT if are_levels else SCALE_HINT)
    # "W" copies read-only arrays, because PyTorch warns when it gets one.
    values = np.require(array, np.float32 if is_float else np.uint8, ["C", "W"])
    if low < 0 or (is_float and high > 1):
        values = np.clip(values, 0, 1)
    if array.dtype.kind == "b" or (are_bits and not is_float):
        values = values * np.uint8(255)
    return torch.from_numpy(values)


def as_numbers(array: Array, name: str, columns: Sequence[str] = ()) -> Array:
    """Returns values that will be scaled: float32 if it holds them exactly, else float64. Bits are 0 and 1."""
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {array.dtype}, not numbers", "give floats or integers")
    require_finite(array, name, columns)
    dtype = np.float32 if np.can_cast(array.dtype, np.float32) else np.float64
    with np.errstate(over="ignore"):  # of longdouble
        return np.require(array, dtype, ["C", "W"])


def require_finite(array: Array, name: str, columns: Sequence[str] = ()) -> None:
    """Raises InputError if values are NaN or infinite. It says how many there are, and where the first one is."""
    bad = ~np.isfinite(array)
    if not bad.any():
        return
    row, *others = (int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
    where = f"row {row}" if len(others) == 1 else f"example {row}"
    if len(others) == 1:
        where += f", column {others[0]}" + (f" '{columns[others[0]]}'" if columns else "")
    raise InputError(
        f"{name} has values that are NaN or infinite: {int(bad.sum()):,}, the first in {where}",
        "remove or replace them; rows and columns are counted from 0",
    )


def channels_first(array: Array, name: str) -> Array:
    """Returns vectors unchanged and images as `(N, channels, height, width)`."""
    shape = array.shape
    if array.size > 0:
        if array.ndim == 2:
            return array
        if array.ndim == 3:
            return array[:, None]
        if array.ndim == 4 and shape[1] in CHANNELS:
            return array
        if array.ndim == 4 and shape[3] in CHANNELS:
            return array.transpose(0, 3, 1, 2)
    hint = "give (N, dimensions), (N, height, width) or (N, 1 or 3, height, width)"
    if array.ndim == 4 and 4 in (shape[1], shape[3]):
        hint = "leave out the alpha channel, which is x[..., :3] or x[:, :3]"
    raise InputError(f"{name} has the shape {shape}", hint)
