"""Arrays as data: .npy and .npz files, and NumPy arrays or tensors in a program."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaezoo.data.base import Dataset, DataSource, DataSpec, Split, TensorSplit, train_valid_split
from vaezoo.data.npy import Array, read_arrays
from vaezoo.errors import InputError

CHANNELS = (1, 3)


def load(path: Path) -> tuple[TensorSplit, TensorSplit | None]:
    """Reads an array file into memory.

    Args:
        path: A .npy file with the examples; or a .npz file with `x` and, if there are labels, `y`, or with
            `x_train`, `y_train`, `x_test`, `y_test` (all but the first optional), or with one array of any name.

    Returns:
        The training and the test part, None where there is none, as `from_arrays` describes them.

    Raises:
        InputError: If the file cannot be used, or its arrays are none that `from_arrays` takes.
    """
    arrays = read_arrays(path, ("x", "y", "x_train", "y_train", "x_test", "y_test"))
    train = arrays.get("x_train", arrays.get("x", arrays.get("")))
    if train is None:
        raise InputError(f"array file '{path}' holds no x and no x_train", "save it as numpy.savez(path, x=..., y=...)")
    return to_splits(
        train, arrays.get("y_train", arrays.get("y")), arrays.get("x_test"), arrays.get("y_test"), f" of '{path}'"
    )


def from_arrays(
    x: Array | Tensor,
    y: Array | Tensor | None = None,
    *,
    x_test: Array | Tensor | None = None,
    y_test: Array | Tensor | None = None,
    name: str = "arrays",
    likelihood: str | None = None,
) -> Dataset:
    """Makes a data set of arrays or tensors; one example in ten is kept for validation.

    Args:
        x: The examples: vectors `(N, dimensions)`, grey images `(N, height, width)`, or images with 1 or
            3 channels `(N, channels, height, width)` or `(N, height, width, channels)`. Floats in [0, 1],
            whole numbers in 0..255, or bits: bool, or whole numbers of which none is above 1.
        y: Labels `(N,)` or factors of variation `(N, factors)`, whole numbers.
        x_test: Examples to test with, as x.
        y_test: Their labels.
        name: What the data set is called.
        likelihood: As in `vaezoo.likelihoods.make.make_likelihood`; by default "bernoulli" for vectors and one
            channel, "gaussian:optimal" for colour.

    Returns:
        The data set. Floats become float32, all else uint8 with bits as 0 and 255; images become
        `(N, channels, height, width)`.

    Raises:
        InputError: If an array has another shape, type or range, or the lengths differ.
        VaezooError: If there is no such likelihood.
    """
    train, test = to_splits(x, y, x_test, y_test, "")
    return make_dataset(train, test, name, likelihood, None)


def make_dataset(
    train: Split, test: Split | None, name: str, likelihood: str | None, source: DataSource | None
) -> Dataset:
    """Puts a data set together: carves the validation part and fills in the default likelihood."""
    colour = len(train.shape) == 3 and train.shape[0] > 1
    spec = DataSpec(
        name=name, shape=train.shape, likelihood=likelihood or ("gaussian:optimal" if colour else "bernoulli")
    )
    train, valid = train_valid_split(train)
    return Dataset(spec=spec, train=train, valid=valid, test=test, source=source)


def to_splits(
    x: Array | Tensor,
    y: Array | Tensor | None,
    x_test: Array | Tensor | None,
    y_test: Array | Tensor | None,
    where: str,
) -> tuple[TensorSplit, TensorSplit | None]:
    """Converts arrays as `from_arrays` describes; `where` follows their names in errors."""
    arrays = {f"x{where}": _to_array(x)}
    if x_test is not None:
        arrays[f"x_test{where}"] = _to_array(x_test)
    elif y_test is not None:
        raise InputError(f"there is y_test{where} but no x_test", "give both")
    # Whole numbers that are all 0 or 1 are bits. Train and test decide together: a test part may happen to be dark.
    bits = all(a.max(initial=0) <= 1 for a in arrays.values() if a.dtype.kind in "iu")
    parts = [_examples(array, name, bits) for name, array in arrays.items()]
    shapes = [tuple(part.shape[1:]) for part in parts]
    if len(set(shapes)) > 1:
        raise InputError(
            f"x{where} has examples of shape {shapes[0]} and x_test of {shapes[1]}", "bring them to one shape"
        )
    train = TensorSplit(parts[0], _labels(y, f"y{where}", len(parts[0])))
    return train, TensorSplit(parts[1], _labels(y_test, f"y_test{where}", len(parts[1]))) if len(parts) > 1 else None


def _to_array(values: Array | Tensor) -> Array:
    """Returns a tensor's values as an array."""
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _examples(array: Array, name: str, bits: bool) -> Tensor:
    """Converts examples; `bits` says that of whole numbers 1 is the brightest, not 255."""
    array = _channels_first(array, name)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {array.dtype}, not numbers", "give floats in [0, 1] or whole numbers in 0..255")
    floats = array.dtype.kind == "f"
    low, high = float(array.min()), float(array.max())
    if not math.isfinite(low + high):
        raise InputError(f"{name} has values that are NaN or infinite", "remove or replace them")
    if low < 0 or high > (1 if floats else 255):
        divide = "divide by 255" if low >= 0 and 100 < high <= 255 else "use (x - x.min()) / (x.max() - x.min())"
        raise InputError(f"{name} has values from {low:g} to {high:g}", f"scale them to [0, 1]: {divide}")
    # "W": PyTorch warns when it is given an array that must not be written to.
    values = np.require(array, np.float32 if floats else np.uint8, ["C", "W"])
    if array.dtype.kind == "b" or (bits and not floats):
        values = values * np.uint8(255)
    return torch.from_numpy(values)


def _channels_first(array: Array, name: str) -> Array:
    """Returns vectors as they are and images as `(N, channels, height, width)`."""
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
    raise InputError(
        f"{name} has the shape {shape}", "give (N, dimensions), (N, height, width) or (N, 1 or 3, height, width)"
    )


def _labels(values: Array | Tensor | None, name: str, count: int) -> Tensor | None:
    """Converts labels for `count` examples."""
    if values is None:
        return None
    array = _to_array(values)
    if array.dtype.kind not in "biu":
        raise InputError(
            f"{name} holds {array.dtype}, not whole numbers", f"convert it with {name.split()[0]}.astype(int)"
        )
    if array.ndim not in (1, 2) or len(array) != count or array.size == 0:
        raise InputError(
            f"{name} has the shape {array.shape} for {count:,} examples", f"give ({count},) or ({count}, factors)"
        )
    if array.ndim == 2 and array.shape[1] == 1:  # as Keras gives CIFAR-10's labels
        array = array[:, 0]
    return torch.from_numpy(np.require(array, np.int64, ["C", "W"]))
