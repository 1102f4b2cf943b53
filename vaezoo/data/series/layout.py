"""The axes of arrays of series."""

from __future__ import annotations

import numpy as np

from vaezoo.data.npy import Array
from vaezoo.data.series.windows import Recording
from vaezoo.errors import InputError

MIN_STEPS = 2


def series_first(array: Array, name: str) -> Array:
    """Returns series as `(N, channels, time)`. Those of one channel may be `(N, time)`.

    Raises:
        InputError: If the array has other axes.
    """
    if array.size > 0 and array.ndim in (2, 3) and array.shape[-1] >= MIN_STEPS:
        return array[:, None] if array.ndim == 2 else array
    raise InputError(f"{name} has the shape {array.shape}", "give series as (N, time) or (N, channels, time)")


def as_recording(array: Array, name: str) -> Recording:
    """Returns an array `(steps,)` or `(channels, steps)` as one recording, whose times are the numbers of its steps.

    Raises:
        InputError: If the array has other axes.
    """
    if array.size == 0 or array.ndim not in (1, 2):
        raise InputError(
            f"{name} has the shape {array.shape}, but windows are cut from one recording",
            "give it as (steps,) or (channels, steps), or leave out --window and --stride",
        )
    values = array[None] if array.ndim == 1 else array
    return Recording(values, np.arange(values.shape[1]).astype(str))
