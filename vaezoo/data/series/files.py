"""Reads series from files: arrays of many series, folders of short ones, and windows of one long recording."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch

from vaezoo.core.counts import whole_number
from vaezoo.core.scaling import Scaling
from vaezoo.data import arrays, npy
from vaezoo.data.base import Splits, TensorSplit
from vaezoo.data.npy import Array
from vaezoo.data.series.layout import as_recording, series_first
from vaezoo.data.series.options import SeriesOptions
from vaezoo.data.series.recordings import read_csv
from vaezoo.data.series.windows import Recording, Windows, cut, part_borders, require_window, window_starts
from vaezoo.data.spec import DataSpec
from vaezoo.errors import InputError, UnsupportedDataError, VaezooError

CSV = ".csv"


def load(path: Path, options: SeriesOptions, scale: str | Scaling) -> Splits:
    """Reads series to train on.

    The windows of a recording are split by time: the last tenth of the steps is the test part, the tenth before it the
    validation part. No window crosses a border, so no step is in two parts.

    Args:
        path: A .npy or .npz file with series `(N, channels, time)` or `(N, time)`, a folder of .npy files with one
            series each, or, with a window, one recording: a .csv file or an array `(steps,)` or `(channels, steps)`.
        options: The options.
        scale: As in `from_arrays`.

    Raises:
        InputError: If a file cannot be read, or does not hold series.
        VaezooError: If an option is missing or does not fit the file.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        if options.time_column is not None or options.window is not None:
            raise VaezooError(f"'{path}' is a folder and not one recording", f"leave out {options.names[-1]}")
        array, names = _read_folder(path)
        splits = arrays.to_splits(array, None, None, None, f" of '{path}'", scale, series_first)
        return splits._replace(train=replace(cast("TensorSplit", splits.train), names=names))
    if suffix != CSV and suffix not in npy.SUFFIXES:
        raise InputError(f"'{path}' holds no series that can be read", "name a folder, a .csv, a .npy or a .npz file")
    if suffix == CSV:
        if options.time_column is None or options.window is None:
            missing = "--time-column NAME" if options.time_column is None else "--window N"
            raise VaezooError(f"'{path}' is a recording, which needs {missing}", f"give {missing}")
        return _recording_splits(read_csv(path, options.time_column), f"'{path}'", options, scale)
    if options.time_column is not None:
        raise VaezooError(f"array file '{path}' has no columns", "leave out --time-column")
    if options.window is None:
        return arrays.load(path, scale, series_first)
    return _recording_splits(_array_recording(path), f"'{path}'", options, scale)


class Series(NamedTuple):
    """Series that a trained model is applied to.

    Attributes:
        x: `(N, channels, time)`.
        names: The file of each series, or the time of the first step of each window.
        windows: Where they lie in their recording. None if they are not windows.
    """

    x: Array
    names: tuple[str, ...]
    windows: Windows | None = None


def is_series(spec: DataSpec) -> bool:
    """Tells whether the examples of data are series `(channels, time)`."""
    return len(spec.shape) == 2


def read_series(path: Path, spec: DataSpec, stride: int | None) -> Series | None:
    """Reads series for a trained model from a folder of .npy files, or all windows of a recording.

    Args:
        path: A folder, a .csv file with the columns of the training, or an array file.
        spec: The data of the model.
        stride: Steps between the starts of two windows. None: as many as a window has. An array is one recording only
            if there is a stride.

    Returns:
        The series. None if the path is another file, or an array with many series.

    Raises:
        InputError: If a file cannot be read, or does not hold such series.
        UnsupportedDataError: If the model was not trained on a recording with a column of times, or on other columns.
        VaezooError: If the stride is out of range.
    """
    if stride is not None:
        whole_number("stride", stride, 1)
    suffix, length = path.suffix.lower(), spec.shape[1]
    if path.is_dir():
        return Series(*_read_folder(path))
    if suffix == CSV:
        recording = _with_columns(path, read_csv(path, _time_column(path, spec)), spec)
    elif stride is not None and suffix in npy.SUFFIXES:
        recording = _array_recording(path)
    else:
        return None
    steps = recording.values.shape[1]
    require_window(f"'{path}'", steps, length)
    starts = window_starts(0, steps, length, stride or length)
    windows = Windows(starts, length, recording.times, recording.time_column)
    return Series(cut(recording.values, starts, length), windows.names, windows)


def _recording_splits(recording: Recording, origin: str, options: SeriesOptions, scale: str | Scaling) -> Splits:
    """Cuts a recording into windows, split by time."""
    assert options.window is not None
    steps, window = recording.values.shape[1], options.window
    borders = (0, *part_borders(origin, steps, window), steps)
    values = _converted(recording.values, origin, scale)
    train, valid, test = (
        _window_split(recording, values, window_starts(begin, end, window, options.stride or window), window)
        for begin, end in pairwise(borders)
    )
    return Splits(train, test, valid, column_names=recording.channels, time_column=recording.time_column)


def _converted(values: Array, origin: str, scale: str | Scaling) -> Array:
    """Returns the values of a recording as `make_dataset` takes them: x itself if nothing is fitted."""
    arrays.require_finite(values.T, origin)
    if arrays.is_unit(scale):
        return arrays.convert_values(values, origin, arrays.are_bits([values])).numpy()
    return arrays.as_numbers(values, origin)


def _window_split(recording: Recording, values: Array, starts: Array, length: int) -> TensorSplit:
    windows = Windows(starts, length, recording.times, recording.time_column)
    return TensorSplit(torch.from_numpy(cut(values, starts, length)), None, windows.names, windows)


def _array_recording(path: Path) -> Recording:
    """Reads an array file that holds one recording."""
    given = npy.read_arrays(path, ("x",))
    return as_recording(given.get("x", given.get("", np.empty(0))), f"array file '{path}'")


def _read_folder(path: Path) -> tuple[Array, tuple[str, ...]]:
    """Reads the .npy files of a folder, in the order of their names, as series `(N, channels, time)`."""
    names = sorted(entry.name for entry in os.scandir(path) if entry.name.lower().endswith(".npy"))
    names = [name for name in names if not name.startswith(".")]
    if not names:
        raise InputError(f"folder '{path}' has no .npy files", "give a folder with one series in each .npy file")
    series: list[Array] = []
    for name in names:
        array = npy.read_arrays(path / name, ())[""]
        if array.ndim not in (1, 2) or array.size == 0:
            raise InputError(f"'{path / name}' has the shape {array.shape}", "save each series as (time,)")
        series.append(array[None] if array.ndim == 1 else array)
        arrays.require_finite(series[-1].T, f"'{path / name}'")
        if series[-1].shape != series[0].shape:
            raise InputError(
                f"'{path / name}' has the shape {array.shape}, but '{names[0]}' has {series[0].shape}",
                "give all series the same length",
            )
    return np.stack(series), tuple(names)


def _time_column(path: Path, spec: DataSpec) -> str:
    """Returns the name of the column of times that a model was trained with."""
    if not spec.time_column:
        raise UnsupportedDataError(
            f"the model was not trained on a file with a column of times, but '{path}' is one",
            "give a .npy or a .npz file",
        )
    return spec.time_column


def _with_columns(path: Path, recording: Recording, spec: DataSpec) -> Recording:
    """Returns a recording with the channels in the order of the training."""
    missing = [name for name in spec.column_names if name not in recording.channels]
    unknown = [name for name in recording.channels if name not in spec.column_names]
    if missing or unknown:
        what = f"lacks the column '{missing[0]}'" if missing else f"has the column '{unknown[0]}'"
        raise UnsupportedDataError(
            f"'{path}' {what} where the model was made for {', '.join(spec.column_names)}",
            "give a file with the columns of the training",
        )
    order = [recording.channels.index(name) for name in spec.column_names]
    return recording._replace(values=recording.values[order], channels=spec.column_names)
