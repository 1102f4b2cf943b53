"""Reads folders of sound files as windows of log-mel spectrograms, or of waveforms."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaezoo.core.scaling import Scaling
from vaezoo.data import arrays
from vaezoo.data.base import Splits, TensorSplit, valid_mask
from vaezoo.data.folder_layout import Classes, class_numbers, find_files, require_same_classes
from vaezoo.data.folder_scan import FileKind, scan
from vaezoo.data.label_patterns import labels_in_names
from vaezoo.data.labels import LabelNames, name_classes
from vaezoo.data.series.options import SeriesOptions
from vaezoo.data.series.windows import window_starts
from vaezoo.data.sound.resample import resample
from vaezoo.data.sound.sound_files import SUFFIXES, Values, read_sound
from vaezoo.data.sound.spectrogram import FLOOR, frame_size, log_mel
from vaezoo.data.spec import DataSpec
from vaezoo.errors import InputError, VaezooError, VaezooWarning

SOUNDS = FileKind("sound files", ("WAV", "FLAC", "MP3", "OGG"), SUFFIXES)
WINDOWS = {"sound": 32, "waveform": 8_192}  # frames or samples of an example by default, half a second or a second


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


class SoundFiles(NamedTuple):
    """The sound files of a folder.

    Attributes:
        names: Their names relative to the folder.
        parts: "train", "valid" or "test" for each, `(n,)`. All are "train" if the folder has no folders of parts.
        y: Their labels, int64 `(n,)` or `(n, factors)`. None if they have none.
        label_names: The names of the values of each label.
    """

    names: list[str]
    parts: Values
    y: Tensor | None = None
    label_names: LabelNames = ()


class SoundWindows(NamedTuple):
    """Windows of spectrograms or waveforms.

    Attributes:
        x: `(N, 1, MELS, frames)` or `(N, 1, samples)`.
        names: The file of each window relative to the folder, with the second at which it begins unless that is 0.
        file: The index of the file of each window, `(N,)`.
    """

    x: Values
    names: tuple[str, ...]
    file: Values


def load(path: Path, options: SeriesOptions, scale: str | Scaling) -> Splits:
    """Reads the sound files of a folder and of the folders in it.

    Folders of parts and of classes are those of image folders; see `folder_layout.find_files`. Without a folder of
    validation files every tenth training file is held out, with all its windows.

    Args:
        path: The folder.
        options: The sample rate, by default that of the files. The length of a window, by default 32 frames or 8,192
            samples. The pattern of labels in names, which goes before folders of classes.
        scale: As in `from_arrays`, but not "unit".

    Raises:
        InputError: If there are fewer than two training files, one cannot be read, or they have several rates. Also if
            the folder has another layout, or a name has no label.
        VaezooError: If an option does not fit sound.
    """
    if options.time_column is not None:
        raise VaezooError(f"'{path}' holds sound, which has no columns", "leave out --time-column")
    if arrays.is_unit(scale):
        raise VaezooError("sound does not lie in [0, 1]", "leave out --scale, or give --scale minmax")
    if not path.is_dir():
        raise InputError(f"'{path}' is not a folder of sound files", "name a folder")
    files = find_sounds(path, options.label_pattern)
    count = int((files.parts == "train").sum())
    if count < 2:
        raise InputError(f"'{path}' has {count} sound files", f"give a folder with more {' or '.join(SUFFIXES)}")
    sounds = read_sounds(path, files.names, options.sample_rate)
    rate = options.sample_rate or sounds[0].rate
    assert options.kind is not None
    window = options.window or WINDOWS[options.kind]
    spectral = options.kind == "sound"
    data = sound_windows(sounds, files.names, rate, window, options.stride or window, spectral=spectral)
    x = torch.from_numpy(arrays.as_numbers(data.x, f"'{path}'"))
    return sound_splits(x, data, _with_valid(files))._replace(sample_rate=rate)


def read_for_model(
    path: Path, spec: DataSpec, stride: int | None, label_pattern: str | None
) -> tuple[SoundWindows, SoundFiles]:
    """Reads a sound file, or all files of a folder, as examples of a model that was trained on sound.

    Raises:
        InputError: If no file is found, one cannot be read, or its name does not match the pattern.
    """
    files = find_sounds(path, label_pattern) if path.is_dir() else _single_file(path, label_pattern)
    folder, window = path if path.is_dir() else path.parent, spec.shape[-1]
    sounds = read_sounds(folder, files.names, spec.sample_rate)
    spectral = len(spec.shape) == 3
    data = sound_windows(sounds, files.names, spec.sample_rate, window, stride or window, spectral=spectral)
    return data, files


def sound_splits(x: Tensor, data: SoundWindows, files: SoundFiles) -> Splits:
    """Returns windows by the parts of their files.

    Args:
        x: The values of the windows, `(N, ...)`.
        data: Their names and files.
        files: The parts and the labels of the files.
    """
    index = torch.from_numpy(data.file)
    y = None if files.y is None else files.y[index]
    splits = {}
    for part in np.unique(files.parts).tolist():
        mask = torch.from_numpy(files.parts[data.file] == part)
        names = tuple(compress(data.names, mask.tolist()))
        splits[part] = TensorSplit(x[mask], None if y is None else y[mask], names)
    return Splits(splits["train"], splits.get("test"), splits.get("valid")).named(files.label_names)


def find_sounds(folder: Path, label_pattern: str | None = None) -> SoundFiles:
    """Finds the sound files in a folder and below, with their parts and labels.

    Raises:
        InputError: If no file is found, the folder has another layout, or a name does not match the pattern.
    """
    tree = scan(folder, SOUNDS)
    found = find_files(tree)
    parts = [part for part, classes in found.items() for files in classes.values() for _ in files]
    paths = [path for classes in found.values() for files in classes.values() for path in files]
    names = [path.relative_to(folder).as_posix() for path in paths]
    if label_pattern is not None:
        return SoundFiles(names, np.array(parts), *labels_in_names(names, label_pattern))
    require_same_classes(found, tree)
    return SoundFiles(names, np.array(parts), *_classes(found))


def _classes(found: dict[str, Classes]) -> tuple[Tensor | None, LabelNames]:
    """Returns the class of each file by its folder, and the names of the classes."""
    numbers = [y for split in found.values() if (y := class_numbers(split)) is not None]
    classes = name_classes(found["train"])
    return (torch.cat(numbers), (classes,) if classes else ()) if numbers else (None, ())


def _single_file(path: Path, label_pattern: str | None) -> SoundFiles:
    labels = labels_in_names([path.name], label_pattern) if label_pattern is not None else (None, ())
    return SoundFiles([path.name], np.array(["train"]), *labels)


def _with_valid(files: SoundFiles) -> SoundFiles:
    """Returns the files with a validation part: every tenth training file, if the folder has none."""
    if "valid" in files.parts:
        return files
    places = np.flatnonzero(files.parts == "train")
    parts = files.parts.copy()
    parts[places[valid_mask(len(places)).numpy()]] = "valid"
    return files._replace(parts=parts)


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


def sound_windows(
    sounds: Sequence[Sound], files: Sequence[str], rate: int, window: int, stride: int, *, spectral: bool
) -> SoundWindows:
    """Returns the windows of all sounds. Short sounds are filled up with silence at their end.

    Args:
        sounds: The sounds.
        files: Their names.
        rate: Samples in a second.
        window: Frames or samples of a window.
        stride: Those between the starts of two windows.
        spectral: Whether they are windows of spectrograms, and not of waveforms.
    """
    seconds, silence = (frame_size(rate) / 4 / rate, math.log(FLOOR)) if spectral else (1 / rate, 0.0)
    digits = 2 if spectral else 4
    windows, names, places = [], [], []
    for i, (sound, name) in enumerate(zip(sounds, files, strict=True)):
        values = log_mel(sound.samples, rate) if spectral else sound.samples
        short = max(0, window - values.shape[-1])
        values = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, short)], constant_values=silence)
        for start in window_starts(0, values.shape[-1], window, stride).tolist():
            windows.append(values[None, ..., start : start + window])
            names.append(name if not start else f"{name}@{start * seconds:.{digits}f}")
            places.append(i)
    return SoundWindows(np.stack(windows), tuple(names), np.array(places))
