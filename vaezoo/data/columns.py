"""The names of the columns of data frames, by which the columns of new frames are brought into a model's order."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from vaezoo.data.convert import Values, some_columns, to_array
from vaezoo.data.labels import clean_name
from vaezoo.data.npy import Array
from vaezoo.errors import InputError, UnsupportedDataError, VaezooWarning, safe_repr

MAX_BYTES = 1 << 20  # of all names of a frame, because a run records them; see MAX_JSON_BYTES


def column_names(values: object, name: str) -> tuple[str, ...]:
    """Returns the names of the columns of a data frame.

    Args:
        values: Any values.
        name: What errors call them.

    Returns:
        The names as text. Empty for values other than a frame, and for columns that pandas has numbered 0, 1, 2 ...

    Raises:
        InputError: If two columns have one name.
    """
    if isinstance(values, np.ndarray | Tensor) or not hasattr(values, "to_numpy"):
        return ()
    given = list(getattr(values, "columns", ()))
    if given == list(range(len(given))):
        return ()
    return kept_names(given, name)


def kept_names(given: Sequence[object], name: str) -> tuple[str, ...]:
    """Returns the names of columns as text. Empty, with a warning, if a run cannot keep that many.

    Raises:
        InputError: If two columns have one name.
    """
    names = tuple(clean_name(str(column)) for column in given)
    if len(set(names)) < len(names):
        twice = next(column for column, count in Counter(names).items() if count > 1)
        raise InputError(f"{name} has two columns named '{safe_repr(twice)}'", "rename one of them")
    if len(json.dumps(names)) > MAX_BYTES:
        text = f"the names of the {len(names):,} columns of {name} are too long to be kept; their order must not change"
        warnings.warn(text, VaezooWarning, stacklevel=4)
        return ()
    return names


def to_columns(values: Values, names: Sequence[str], name: str) -> Array:
    """Returns values as an array whose columns are in the order of a model's.

    Args:
        values: As in `to_array`. Columns without names are in that order already.
        names: The names of the model's columns, or none.
        name: What errors call the values.

    Raises:
        InputError: As `to_array`.
        UnsupportedDataError: If a frame has other columns.
    """
    given = column_names(values, name) if names else ()
    if not given or given == tuple(names):
        return to_array(values, name)
    places = column_places(given, names, name)  # an error of names says more than one of values
    return to_array(values, name)[:, places]


def column_places(given: Sequence[str], names: Sequence[str], name: str) -> list[int]:
    """Returns where the columns of a model are among given ones.

    Raises:
        UnsupportedDataError: If other columns are given.
    """
    places = {column: i for i, column in enumerate(given)}
    missing, unknown = [n for n in names if n not in places], sorted(places.keys() - set(names), key=places.__getitem__)
    if missing or unknown:
        parts = ((missing, "lacks the columns"), (unknown, "has the unknown columns"))
        raise UnsupportedDataError(
            f"{name} {' and '.join(f'{what} {some_columns(columns)}' for columns, what in parts if columns)}",
            f"give the columns of the training: {some_columns(names)}" if missing else "leave the unknown columns out",
        )
    return [places[column] for column in names]
