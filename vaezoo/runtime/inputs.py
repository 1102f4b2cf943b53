"""What a user gives a graph: arrays of its shape and type, with values that the data can have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vaezoo.core.tables import parse_model_column
from vaezoo.errors import VaezooError
from vaezoo.runtime.manifest import Array, DataEntry, TensorSignature, example_shape, has_shape
from vaezoo.runtime.ort_session import first_line

MAX_LISTED = 20  # columns in an error
RANGE_TOLERANCE = 0.05  # resampled images may lie outside [0, 1] by this much


def as_array(name: str, values: object) -> Array:
    """Returns an input as an array. Raises VaezooError unless all its rows have one shape."""
    try:
        return np.asarray(values)
    except ValueError as e:
        raise VaezooError(f"{name} is not an array: {first_line(e)}", "give rows of one shape") from e


def by_column(x: object, names: Sequence[str]) -> Array:
    """Returns an input as an array. The columns of a data frame are brought into the order of a model's names.

    Raises:
        VaezooError: If a frame has other columns, or the rows have several shapes.
    """
    given = list(getattr(x, "columns", ()))
    if not names or not given or given == list(range(len(given))):
        return as_array("x", x)
    places = {str(column): i for i, column in enumerate(given)}
    if len(given) != len(names) or places.keys() != set(names):
        other = sorted(places.keys() ^ set(names))[:MAX_LISTED]
        what = f"x has the columns {', '.join(map(str, given[:MAX_LISTED]))}"
        raise VaezooError(f"{what}; these differ: {', '.join(other)}", f"give {', '.join(names[:MAX_LISTED])}")
    values = x.to_numpy() if hasattr(x, "to_numpy") else x
    return as_array("x", values)[:, [places[name] for name in names]]


def check_batch(array: Array, tensor: TensorSignature, *, may_miss: bool = False) -> Array:
    """Returns a batch as a contiguous array of an input's type. NaN may stand for missing cells.

    Raises:
        VaezooError: If it has another shape, or a value that is not finite, or if a free size is not a multiple
            of what it must be.
    """
    shape, multiples = example_shape(tensor), tensor.get("multiples", {})
    if array.dtype.kind not in "biuf":
        raise VaezooError(f"{tensor['name']} holds {array.dtype}, not numbers", "convert it to float32")
    if array.ndim != len(shape) + 1 or not has_shape(array.shape[1:], shape) or 0 in array.shape[1:]:
        wanted = ", ".join(str(n) for n in ("N", *shape))
        raise VaezooError(f"{tensor['name']} has shape {array.shape}", f"give an array of shape ({wanted})")
    for name, size in zip(shape, array.shape[1:], strict=True):
        divisor = multiples.get(str(name), 1)
        if size % divisor:
            raise VaezooError(
                f"{tensor['name']} has {name} {size}",
                f"give a multiple of {divisor}, or --pad reflect (in Python pad='reflect')",
            )
    with np.errstate(over="ignore", invalid="ignore"):  # too large for the type, or NaN where integers are wanted
        converted = np.ascontiguousarray(array, np.dtype(tensor["dtype"]))
    # A float that is too large becomes infinite. An integer made of NaN looks like any other.
    numbers = converted if converted.dtype.kind == "f" else array
    if not (np.isfinite(numbers) | (np.isnan(numbers) if may_miss else False)).all():
        raise VaezooError(f"{tensor['name']} holds NaN or infinite values", "leave out those rows, or fill them in")
    return converted


def check_type(x: Array, dtype: np.dtype[Any], kind: str) -> None:
    """Raises VaezooError unless x can become the input of an encoder, of a type and for data of a kind."""
    if dtype == np.uint8 and x.dtype != np.uint8:
        hint = "give values 0 to 255 as uint8, such as x.astype('uint8')"
        raise VaezooError(f"the encoder accepts uint8 images, not {x.dtype}", hint)
    if dtype.kind == "f" and x.dtype.kind != "f" and not (kind == "count" and x.dtype.kind in "iu"):
        are_bytes = kind == "unit" and x.dtype.kind in "iu"
        hint = "convert it to float32, and divide bytes by 255" if are_bytes else "give numbers as float32"
        values = "floats in [0, 1]" if kind == "unit" else "floats"
        raise VaezooError(f"the encoder accepts {values}, not {x.dtype}", hint)
    if dtype.kind == "i" and x.dtype.kind not in "iu":
        raise VaezooError(f"the encoder accepts token ids, not {x.dtype}", "convert it to int64")


def check_values(x: Array, data: DataEntry) -> None:
    """Raises VaezooError unless x has values of the data's kind. The comparisons are false for NaN as well."""
    low, high, kind = x.min(), x.max(), data["kind"]
    # Data that minmax has scaled lie outside [0, 1] where they lie outside the range of the training.
    is_limited = kind == "unit" and x.dtype != np.uint8 and not data.get("offset")
    if is_limited and not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
        raise VaezooError(f"x has values from {low:g} to {high:g}, the encoder accepts 0 to 1", "scale x to 0..1")
    if kind == "tokens" and not (low >= 0 and high < data["vocabulary"]):
        raise VaezooError(
            f"x has ids from {low} to {high}", f"the ids of the vocabulary are 0 to {data['vocabulary'] - 1}"
        )
    if kind == "count" and not low >= 0:
        raise VaezooError(f"x has the count {low:g}", "give counts of at least 0")
    if kind == "table":
        _check_categories(x, data["columns"])


def _check_categories(x: Array, columns: Sequence[str]) -> None:
    for column, values in zip(map(parse_model_column, columns), x.T, strict=True):
        assert column is not None
        observed = values[~np.isnan(values)]
        if len(observed) < len(values) and not column.may_miss:
            raise VaezooError(f"column '{column.name}' has missing cells, and it had none in the training", "fill them")
        if column.size and len(observed) and not (observed.min() >= 0 and observed.max() < column.size):
            raise VaezooError(
                f"column '{column.name}' has values from {observed.min():g} to {observed.max():g}",
                f"its categories are 0 to {column.size - 1}",
            )


def check_labels(y: Array, data: DataEntry) -> None:
    """Raises VaezooError unless labels are those of the data."""
    for column, count in zip(y.reshape(len(y), -1).T, data["classes"], strict=True):
        if column.min() < 0 or column.max() >= count:
            wrong = column.min() if column.min() < 0 else column.max()
            raise VaezooError(f"unknown label {wrong}", f"the labels of '{data['name']}' are 0 to {count - 1}")
