"""Arrays from what programs hold: tensors, lists, masked arrays, data frames, and data sets of PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from vaezoo.core.memory import machine_memory
from vaezoo.data.images.decode import to_pixels
from vaezoo.data.labels import clean_name
from vaezoo.data.npy import Array
from vaezoo.errors import (
    InputError,
    VaezooError,
    first_line,
    format_error,
    safe_repr,
)

SAME_SHAPE = "give all examples the same shape"
MAX_NAMES = 3  # of columns in an error


class Frame(Protocol):
    """A data frame or a column of one, of pandas or polars."""

    def to_numpy(self) -> Array:
        """Returns the values."""


Values: TypeAlias = npt.ArrayLike | Tensor | Frame
TorchData: TypeAlias = "TorchDataset[Any] | DataLoader[Any]"


class TorchExamples(NamedTuple):
    """The examples of a data set of PyTorch.

    Attributes:
        x: The examples, `(N, ...)`.
        y: The labels, `(N,)` or `(N, factors)`, or None.
        class_names: The names of the classes, or none.
    """

    x: Array
    y: Array | None
    class_names: tuple[str, ...]


def to_array(values: Values, name: str, texts: bool = False) -> Array:
    """Returns values as an array.

    Args:
        values: An array, a tensor, nested lists, or a data frame.
        name: What errors call it.
        texts: Whether texts are allowed, as in labels. Lists of texts and other values then become objects.

    Raises:
        InputError: If the values have no single shape, are sparse or masked, or a frame has columns without numbers.
    """
    if isinstance(values, np.ma.MaskedArray):
        if masked := int(np.ma.count_masked(values)):  # type: ignore[no-untyped-call]
            raise InputError(
                f"{name} has {masked:,} masked values", "fill them with x.filled(VALUE), or leave out their examples"
            )
        return np.asarray(values.data)
    if isinstance(values, Tensor):
        return _tensor_to_array(values, name)
    if hasattr(values, "toarray") and hasattr(values, "nnz"):
        raise InputError(f"{name} is a sparse matrix", "give x.toarray()")
    if not isinstance(values, np.ndarray) and hasattr(values, "to_numpy"):
        return _frame_to_array(values, name, texts)
    try:
        array = np.asarray(values)
        if texts and array.dtype.kind == "U" and not isinstance(values, np.ndarray):
            # NumPy makes texts of all values if one of them is a text.
            return np.asarray(values, dtype=object)
        return array
    except (ValueError, TypeError, RuntimeError) as error:
        if "inhomogeneous" in str(error):
            raise InputError(f"{name} is ragged: its rows differ in length", SAME_SHAPE) from error
        raise InputError(f"{name} is not an array: {first_line(error)}", "give an array or a tensor") from error


def _tensor_to_array(tensor: Tensor, name: str) -> Array:
    if tensor.is_nested:
        raise InputError(f"{name} is a nested tensor, whose rows differ in length", SAME_SHAPE)
    if tensor.layout is not torch.strided:
        raise InputError(f"{name} is a sparse tensor", "give x.to_dense()")
    if tensor.is_quantized:
        raise InputError(f"{name} is a quantized tensor", "give x.dequantize()")
    values = tensor.detach().cpu().resolve_conj().resolve_neg()
    is_known = values.dtype in (torch.float16, torch.float32, torch.float64) or not values.is_floating_point()
    return (values if is_known else values.float()).numpy()  # NumPy has no bfloat16


def _frame_to_array(frame: Any, name: str, texts: bool) -> Array:
    array = np.asarray(frame.to_numpy())
    columns = list(getattr(frame, "columns", ()))
    if texts or array.dtype.kind != "O" or not columns:
        return array
    # A frame of several types becomes an array of objects.
    arrays = [np.asarray(frame[column].to_numpy()) for column in columns]
    if odd := [column for column, values in zip(columns, arrays, strict=True) if values.dtype.kind not in "biuf"]:
        raise InputError(
            f"{name} has columns that are not numbers: {some_columns(odd)}",
            "give the frame to vaezoo.from_table, which takes columns of any kind",
        )
    return np.stack(arrays, axis=1)


def some_columns(columns: Iterable[object]) -> str:
    """Returns the first names of columns, and how many more there are."""
    names = [f"'{safe_repr(column)}'" for column in columns]
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return f"{', '.join(names[:MAX_NAMES])}{more}"


def is_torch_data(values: object) -> bool:
    """Tells whether values are a data set or a data loader of PyTorch."""
    return isinstance(values, TorchDataset | DataLoader)


def read_torch_data(data: TorchData, name: str) -> TorchExamples:
    """Reads all examples of a map-style data set of PyTorch, once. A DataLoader stands for its data set.

    An example is x, or a pair of x and its label. x is a tensor, an array or an image of Pillow.

    Args:
        data: The data set.
        name: What errors call it.

    Raises:
        VaezooError: If it has no index, as an IterableDataset.
        InputError: If it is empty, an example cannot be read or has another form or shape, or all need too much memory.
    """
    source: Any = data.dataset if isinstance(data, DataLoader) else data
    if isinstance(source, IterableDataset) or not hasattr(source, "__len__"):
        raise VaezooError(
            f"{name} is of type {type(source).__name__}, whose examples have no index",
            "give a map-style data set, or collect the examples in an array",
        )
    if not len(source):
        raise InputError(f"{name} has no examples", "give at least two examples")
    if isinstance(source, TensorDataset):
        pair = _pair(source.tensors, name)
        x, y = (None if values is None else to_array(values, name) for values in pair)
        assert x is not None
    else:
        x, y = _read_examples(source, name)
    return TorchExamples(x, y, _class_names(source, y))


def _read_examples(source: Any, name: str) -> tuple[Array, Array | None]:
    """Reads one example after the other."""
    stack: Array | None = None
    labels: list[Any] = []
    for i in range(len(source)):
        try:
            item = source[i]
        except Exception as error:  # a data set may raise anything
            raise InputError(f"{name}[{i}] cannot be read: {format_error(error)}", "repair the data set") from error
        x, y = _pair(item if isinstance(item, tuple | list) else (item,), f"{name}[{i}]")
        array = to_pixels(x) if isinstance(x, Image.Image) else to_array(x, f"{name}[{i}]")
        if stack is None:
            stack = _allocate(len(source), array, name)
        if array.shape != stack.shape[1:] or array.dtype != stack.dtype:
            raise InputError(
                f"{name}[0] is {stack.dtype} of shape {stack.shape[1:]}, but {name}[{i}] is {array.dtype} of shape "
                f"{array.shape}",
                "give all examples the same type and shape, with a transform",
            )
        stack[i] = array
        labels.append(to_array(y, f"the label of {name}[{i}]") if isinstance(y, Tensor) else y)
    assert stack is not None
    if all(label is None for label in labels):
        return stack, None
    return stack, to_array(labels, f"the labels of {name}", texts=True)


def _pair(item: Sequence[Any], name: str) -> tuple[Any, Any]:
    """Returns x and its label or None."""
    if len(item) not in (1, 2) or isinstance(item[0], dict | str):
        what = f"{len(item)} values" if len(item) not in (1, 2) else f"a {type(item[0]).__name__}"
        raise InputError(
            f"{name} gives {what}, not x or a pair of x and its label", "wrap the data set in one that does"
        )
    return item[0], item[1] if len(item) == 2 else None


def _allocate(count: int, first: Array, name: str) -> Array:
    nbytes = count * math.prod(first.shape) * first.dtype.itemsize
    if nbytes > machine_memory():
        raise InputError(
            f"the {count:,} examples of {name} need {nbytes / 2**30:.1f} GiB of memory", "give a Subset of them"
        )
    return np.empty((count, *first.shape), first.dtype)


def _class_names(source: Any, y: Array | None) -> tuple[str, ...]:
    """Returns the attribute `classes`, as data sets of torchvision have it, if the labels are its indices."""
    while isinstance(source, Subset):
        source = source.dataset
    names = getattr(source, "classes", None)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return ()
    cleaned = tuple(clean_name(name) for name in names)
    fits = y is not None and y.ndim == 1 and y.dtype.kind in "iu" and y.min() >= 0 and y.max() < len(cleaned)
    return cleaned if fits and len(set(cleaned)) == len(cleaned) else ()
