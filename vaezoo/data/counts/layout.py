"""The checks of counts: non-negative integers, of which each row has at least one above 0."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vaezoo.core.scaling import Scaling
from vaezoo.errors import InputError

Array: TypeAlias = npt.NDArray[Any]

SCALING = Scaling("count")
MAX_COUNT = 1 << 24  # float32 holds all whole numbers up to it
WHERE_HINT = "rows and columns are counted from 0"


def count_rows(array: Array, name: str) -> Array:
    """Returns counts `(N, columns)` as float32.

    Args:
        array: Numbers of any type.
        name: What errors call them.

    Raises:
        InputError: If they have other axes, or as `check_counts`.
    """
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"{name} has the shape {array.shape}", "give counts as (N, columns)")
    check_counts(array, name)
    return np.require(array, np.float32, ["C", "W"])


def check_counts(array: Array, name: str) -> None:
    """Checks counts `(N, ...)`.

    Raises:
        InputError: If a value is not a count that float32 holds, or the counts of a row are all 0. The library size of
            such a row is 0, so nothing tells its fractions.
    """
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {array.dtype}, not numbers", "give non-negative integers")
    if (place := first_other(array)) is not None:
        where = f"row {place[0]}, column {', '.join(map(str, place[1:]))}" if len(place) > 1 else f"row {place[0]}"
        hint = f"give whole numbers from 0 to {MAX_COUNT:,}, not normalised ones; {WHERE_HINT}"
        raise InputError(f"{name} has the value {array[place]:g} in {where}, which is not a count", hint)
    empty = ~array.reshape(len(array), -1).any(1)
    if empty.any():
        found = f"{name} has {int(empty.sum()):,} rows without a count, the first is row {int(empty.argmax())}"
        raise InputError(found, "leave these rows out; rows are counted from 0")


def first_other(array: Array) -> tuple[int, ...] | None:
    """Returns the place of the first value that is not a count up to MAX_COUNT, or None if all are."""
    low, high = array.min(initial=0), array.max(initial=0)
    is_whole = array.dtype.kind != "f" or bool((np.floor(array) == array).all())
    if is_whole and low >= 0 and high <= MAX_COUNT:
        return None
    is_count = (array >= 0) & (array <= MAX_COUNT)
    if array.dtype.kind == "f":
        is_count &= np.floor(array) == array
    return tuple(int(i) for i in np.unravel_index(int((~is_count).argmax()), array.shape))
