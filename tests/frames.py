"""Data frames as pandas makes them, without pandas."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


class Column:
    """A column of a data frame."""

    def __init__(self, values: Array) -> None:
        self.values = values

    def to_numpy(self) -> Array:
        return self.values


class Frame:
    """A data frame. Columns of several types become objects."""

    def __init__(self, **columns: Array) -> None:
        self.columns: list[object] = list(columns)
        self.arrays = columns

    def to_numpy(self) -> Array:
        kinds = {array.dtype.kind for array in self.arrays.values()}
        return np.stack([a.astype(object) if len(kinds) > 1 else a for a in self.arrays.values()], axis=1)

    def __getitem__(self, name: str) -> Column:
        return Column(self.arrays[name])
