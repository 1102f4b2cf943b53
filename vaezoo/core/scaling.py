"""Scaling: how the values of data become the x of a model, and how x becomes values again.

It needs numpy alone, because exports are used without torch.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from vaezoo.errors import InputError, VaezooError, safe_repr, suggest

SCALES = ("unit", "minmax", "standardize", "none")
MAX_COLUMNS = 100_000  # a run records two numbers of each; see MAX_JSON_BYTES
CHUNK_ELEMENTS = 1 << 22  # numbers that are converted to float64 at a time

Array: TypeAlias = npt.NDArray[Any]


class Scaling(NamedTuple):
    """The map x = (value - offset) / factor along the first axis of an example.

    That is the axis of the columns of vectors, and of the channels of images and series. Nothing is clipped: a value
    beyond those of the training part becomes an x beyond theirs.

    Attributes:
        kind: The kind of x: unit, real, count or table; see `vaezoo.data.kinds`.
        offset: One number per column or channel. Empty if values are not mapped.
        factor: Likewise, each above 0.
    """

    kind: str = "unit"
    offset: tuple[float, ...] = ()
    factor: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The name of the method, one of `SCALES`."""
        if self.kind == "unit":
            return "minmax" if self.offset else "unit"
        return "standardize" if self.offset else "none"

    def apply(self, values: Array) -> Array:
        """Returns x, float32, for values `(N, *shape)`.

        Raises:
            InputError: If there are other columns or channels, or x is too large for float32.
        """
        x = np.empty(values.shape, np.float32)
        for rows in self._chunks(values):
            offset, factor = self._column(self.offset, 0.0, x.ndim), self._column(self.factor, 1.0, x.ndim)
            with np.errstate(over="ignore"):
                x[rows] = (values[rows].astype(np.float64) - offset) / factor
        # NaN is a missing cell of a table.
        if not (np.isfinite(x) | (np.isnan(values) if self.kind == "table" else False)).all():
            raise InputError("there are values that float32 cannot hold", "give --scale standardize or minmax")
        return x

    def invert(self, x: Array) -> Array:
        """Returns the values for x `(N, *shape)`, float64. If values are not mapped, it returns x itself.

        Raises:
            InputError: If there are other columns or channels.
        """
        if not self.offset:
            return x
        values = np.empty(x.shape, np.float64)
        for rows in self._chunks(x):
            factor, offset = self._column(self.factor, 1.0, x.ndim), self._column(self.offset, 0.0, x.ndim)
            values[rows] = x[rows] * factor + offset
        return values

    def _chunks(self, values: Array) -> list[slice]:
        """Returns the rows of arrays in parts, so that float64 takes little memory. Checks the number of columns."""
        if self.offset and (values.ndim < 2 or values.shape[1] != len(self.offset)):
            raise InputError(
                f"the examples have shape {values.shape[1:]}, but the scaling is that of {len(self.offset)} columns "
                "or channels",
                "give examples with the columns or channels of the training",
            )
        rows = max(1, CHUNK_ELEMENTS // max(1, values[:1].size))
        return [slice(start, start + rows) for start in range(0, len(values), rows)]

    @staticmethod
    def _column(numbers: tuple[float, ...], default: float, dimensions: int) -> Array:
        """Returns numbers in the shape in which they apply to examples of so many dimensions."""
        return np.array(numbers or [default], np.float64).reshape(-1, *[1] * (dimensions - 2))


def check_scale(scale: str) -> None:
    """Raises VaezooError unless this is one of `SCALES`."""
    if scale not in SCALES:
        hint = suggest(scale, SCALES, f"use {', '.join(SCALES)}")
        raise VaezooError(f"no scaling named '{safe_repr(scale)}'", hint)


def scale_kind(scale: str) -> str:
    """Returns the kind of data that a scaling gives: values in [0, 1], or real ones."""
    return "unit" if scale in ("unit", "minmax") else "real"


def fit(scale: str, values: Array) -> Scaling:
    """Fits a scaling to the examples of the training part. Everything is computed in float64.

    "minmax" maps the smallest and the largest value of a column or channel to 0 and 1. "standardize" maps mean and
    standard deviation to 0 and 1. A constant column has the factor 1, and so becomes 0.

    Args:
        scale: One of `SCALES`.
        values: `(N, *shape)`, finite numbers.

    Raises:
        InputError: If a range is too large for float64, or there are too many columns.
    """
    if scale in ("unit", "none"):
        return Scaling(scale_kind(scale))
    if values.shape[1] > MAX_COLUMNS:
        raise InputError(
            f"{values.shape[1]:,} columns are too many to scale", f"give at most {MAX_COLUMNS:,}, or --scale none"
        )
    axes = (0, *range(2, values.ndim))
    low, high = values.min(axes).astype(np.float64), values.max(axes).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        offset, factor = (low, high - low) if scale == "minmax" else _mean_and_deviation(values, low)
    if not (np.isfinite(offset).all() and np.isfinite(factor).all()):
        raise InputError("there are values whose range float64 cannot hold", "remove or replace them")
    factor = np.where(factor == 0, 1.0, factor)
    return Scaling(scale_kind(scale), tuple(offset.tolist()), tuple(factor.tolist()))


def _mean_and_deviation(values: Array, low: Array) -> tuple[Array, Array]:
    """Returns mean and standard deviation of each column or channel.

    They are computed from distances to the smallest value. So a large mean does not take the digits of the deviation,
    and that of a constant column is exactly 0.
    """
    columns = low.reshape(-1, *[1] * (values.ndim - 2))
    rows = max(1, CHUNK_ELEMENTS // max(1, values[:1].size))
    chunks = [slice(start, start + rows) for start in range(0, len(values), rows)]
    axes, count = (0, *range(2, values.ndim)), values.size // values.shape[1]
    shift = sum((values[part].astype(np.float64) - columns).sum(axes) for part in chunks) / count
    centre = columns + np.asarray(shift).reshape(columns.shape)
    square = sum(((values[part].astype(np.float64) - centre) ** 2).sum(axes) for part in chunks) / count
    return low + shift, np.sqrt(square)
