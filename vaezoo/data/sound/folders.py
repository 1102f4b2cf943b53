"""Reads folders of sound files as windows of log-mel spectrograms."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vaezoo.core.scaling import Scaling
from vaezoo.data import arrays
from vaezoo.data.base import DataSpec, Splits, TensorSplit, valid_mask
from vaezoo.data.series.options import SeriesOptions
from vaezoo.data.series.windows import window_starts
from vaezoo.data.sound.resample import resample
from vaezoo.data.sound.sound_files import SUFFIXES, Values, read_sound
from vaezoo.data.sound.spectrogram import FLOOR, frame_size, log_mel
from vaezoo.errors import InputError, VaezooError, VaezooWarning

WINDOW = 32  # frames of an example by default, about half a second


class Sound(NamedTuple):
    """The sound of a file.

    Attributes:
        samples: One channel, `(n,)`, at the rate that was asked for.
        rate: The rate of the file.
        channels: The channels of the file.
    """

    samples: Values
    rate: int
    channels: int


class Spectrograms(NamedTuple):
    """Windows of spectrograms.

    Attributes:
        x: `(N, 1, MELS, frames)`.
        names: The file of each window relative to the folder, with the second at which it begins unless that is 0.
        file: The index of the file of each window, `(N,)`.
    """

    x: Values
    names: tuple[str, ...]
    file: Values


def load(path: Path, options: SeriesOptions, scale: str | Scaling) -> Splits:
    """Reads the sound files of a folder and of the folders in it. Every tenth file is held out, with all its windows.

    Args:
        path: The folder.
        options: The sample rate, by default that of the files, and the frames of a window, by default 32.
        scale: As in `from_arrays`, but not "unit".

    Raises:
        InputError: If there are fewer than two files, one cannot be read, or they have several rates.
        VaezooError: If an option does not fit sound.
    """
    if options.time_column is not None:
        raise VaezooError(f"'{path}' holds sound, which has no columns", "leave out --time-column")
    if arrays.is_unit(scale):
        raise VaezooError("spectrograms do not lie in [0, 1]", "leave out --scale, or give --scale minmax")
    if not path.is_dir():
        raise InputError(f"'{path}' is not a folder of sound files", "name a folder")
    files = find_sounds(path)
    if len(files) < 2:
        raise InputError(f"'{path}' has {len(files)} sound files", f"give a folder with more {' or '.join(SUFFIXES)}")
    sounds = read_sounds(path, files, options.sample_rate)
    rate = options.sample_rate or sounds[0].rate
    window = options.window or WINDOW
    data = spectrograms(sounds, files, rate, window, options.stride or window)
    values, held_out = torch.from_numpy(arrays.as_numbers(data.x, f"'{path}'")), valid_mask(len(files))[data.file]
    train, valid = (
        TensorSplit(values[mask], None, tuple(compress(data.names, mask.tolist()))) for mask in (~held_out, held_out)
    )
    return Splits(train, None, valid, sample_rate=rate)


def read_for_model(path: Path, spec: DataSpec, stride: int | None) -> Spectrograms:
    """Reads a sound file, or all files of a folder, as examples of a model that was trained on sound.

    Raises:
        InputError: If there is no file, or one cannot be read.
    """
    files = find_sounds(path) if path.is_dir() else [path.name]
    if not files:
        raise InputError(f"'{path}' has no sound files", f"give a folder with {' or '.join(SUFFIXES)}")
    folder, frames = path if path.is_dir() else path.parent, spec.shape[2]
    sounds = read_sounds(folder, files, spec.sample_rate)
    return spectrograms(sounds, files, spec.sample_rate, frames, stride or frames)


def find_sounds(folder: Path) -> list[str]:
    """Returns the sound files in a folder and below, relative to it, in the order of their names."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                found.append(os.path.relpath(os.path.join(place, name), folder))
    return sorted(found)


def read_sounds(folder: Path, files: Sequence[str], rate: int | None) -> list[Sound]:
    """Reads files as one channel at one rate. A warning says what was changed.

    Raises:
        InputError: If a file cannot be read, or the files have several rates and there is none to choose.
    """
    sounds: list[Sound] = []
    for name in files:
        samples, own_rate = read_sound(folder / name)
        if rate is None and sounds and own_rate != sounds[0].rate:
            raise InputError(
                f"'{folder / name}' has {own_rate:,} samples in a second, but '{files[0]}' has {sounds[0].rate:,}",
                f"give --sample-rate {min(own_rate, sounds[0].rate)}",
            )
        one = resample(samples.mean(1), own_rate, rate or own_rate)
        sounds.append(Sound(one, own_rate, samples.shape[1]))
    _say_changes(sounds, rate)
    return sounds


def _say_changes(sounds: Sequence[Sound], rate: int | None) -> None:
    """Warns of files that were resampled, or whose channels were averaged."""
    rates = Counter(sound.rate for sound in sounds if rate is not None and sound.rate != rate)
    several = sum(sound.channels > 1 for sound in sounds)
    changes = [f"{n:,} from {old:,} to {rate:,} samples in a second" for old, n in sorted(rates.items())]
    changes += [f"{several:,} from several channels to their mean"] if several else []
    if changes:
        text = f"of {len(sounds):,} sound files, {' and '.join(changes)} were changed"
        warnings.warn(text, VaezooWarning, stacklevel=4)


def spectrograms(sounds: Sequence[Sound], files: Sequence[str], rate: int, frames: int, stride: int) -> Spectrograms:
    """Returns the windows of all sounds. Short sounds are filled up with silence at their end."""
    windows, names, places = [], [], []
    for i, (sound, name) in enumerate(zip(sounds, files, strict=True)):
        values = log_mel(sound.samples, rate)
        short = max(0, frames - values.shape[1])
        values = np.pad(values, ((0, 0), (0, short)), constant_values=math.log(FLOOR))
        for start in window_starts(0, values.shape[1], frames, stride).tolist():
            windows.append(values[None, :, start : start + frames])
            names.append(name if not start else f"{name}@{start * frame_size(rate) / 4 / rate:.2f}")
            places.append(i)
    return Spectrograms(np.stack(windows), tuple(names), np.array(places))
