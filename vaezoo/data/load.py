"""`load_data`: finds a data set by its name or path and loads it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType

from vaezoo.core.scaling import Scaling, check_scale, scale_kind
from vaezoo.data import arrays, npy
from vaezoo.data.arrays import from_arrays, is_unit, make_dataset
from vaezoo.data.base import Dataset, DataSource, ImageSize, Splits, TensorSplit, train_valid_split
from vaezoo.data.catalog import DATASETS
from vaezoo.data.convert import TorchData, Values
from vaezoo.data.counts import cells
from vaezoo.data.counts import files as counts
from vaezoo.data.counts.annotated import SUFFIX as ANNOTATED
from vaezoo.data.images import digits, image_folder, sprites, standard_sets
from vaezoo.data.images.decode import to_channels
from vaezoo.data.images.image_headers import SUFFIXES
from vaezoo.data.series import files, sines
from vaezoo.data.series.options import SOUND, SeriesOptions
from vaezoo.data.sound import folders
from vaezoo.data.spec import DataSpec
from vaezoo.data.tables import load as tables
from vaezoo.data.tables import penguins
from vaezoo.data.tables.reading import SUFFIXES as TABLES
from vaezoo.data.text import corpus, lines, names
from vaezoo.data.text.corpus import TextOptions
from vaezoo.errors import InputError, VaezooError, suggest
from vaezoo.likelihoods.make import make_likelihood

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 4, 1024  # pixels
ON_BAD_IMAGE = ("error", "skip")
CHANNELS = MappingProxyType({"grey": 1, "colour": 3})

# Texts, tables, series and counts. They describe themselves, because their kind does not follow from the shape.
OTHER_KINDS: Mapping[str, Callable[[], tuple[DataSpec, TensorSplit, TensorSplit]]] = MappingProxyType(
    {"names": names.load, "penguins": penguins.load, "cells": cells.load, "sines": sines.load}
)


def load_data(
    data: str | os.PathLike[str] = "digits",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: ImageSize | None = None,
    likelihood: str | None = None,
    stream: bool | None = None,
    on_bad_image: str = "error",
    channels: str | None = None,
    scale: str | Scaling | None = None,
    columns: Mapping[str, str] | None = None,
    kind: str | None = None,
    time_column: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    sample_rate: int | None = None,
    layer: str | None = None,
    label_column: str | None = None,
    label_pattern: str | None = None,
    text: TextOptions | None = None,
) -> Dataset:
    """Loads a data set into memory. An image folder that is too large for memory is streamed.

    Args:
        data: A name from `DATASETS`, or the path of an image folder, a .npy, .npz, .csv or .parquet file, of series
            (see `vaezoo.data.series.files.load`), of counts (see `vaezoo.data.counts.files.load`), or of texts: a .txt
            file or a folder of them, one example a line, or a .csv file with `text.column`. If a folder has the name of
            a data set, give its path with a slash: `./digits`.
        data_dir: The folder that contains the standard data sets and to which they are downloaded. The default is
            `vaezoo/data` in the user's cache folder.
        image_size: Height and width to resize images to, 4 to 1024 pixels. One number means both. Other data cannot be
            resized.
        likelihood: As in `vaezoo.likelihoods.make.make_likelihood`. The default is that of `from_arrays`: "bernoulli"
            for bits and grey images, "gaussian:optimal" for colour and vectors of floats. Texts, tables and series have
            defaults of their own.
        stream: Whether the images of an image folder stay in their files until a batch needs them. By default they do
            if they would fill more than half of the available memory.
        on_bad_image: What to do with unreadable images of an image folder. "error" raises an error that names them.
            "skip" leaves them out with a VaezooWarning. If images are streamed, "skip" decodes all of them first.
        channels: "grey" or "colour" to convert images. None keeps what they have.
        scale: How the values of an array file or of series become x, as in `from_arrays`. Images of files are always
            "unit".
        columns: Kinds of columns of a .csv or .parquet file that differ from those that are found; see `from_table`.
        kind: "series" for array files and folders of series, "sound" or "waveform" for a folder of sound files, as
            spectrograms or as they are, "counts" for array files of counts. None: the kind follows from the source.
        time_column: The column of a .csv file that holds the times of one recording.
        window: Cuts one recording into windows of so many steps, or sound into windows of so many frames,
            or samples of a waveform.
        stride: Steps between the starts of two windows. The default is `window`: they do not overlap.
        sample_rate: Samples in a second to which sound is resampled. The default is that of the files.
        layer: The layer of a .h5ad file that holds counts. By default they are in X.
        label_column: The column of the observations of a .h5ad file that holds labels.
        label_pattern: A regular expression that is searched in the name of each sound file, relative to the folder.
            Each of its groups is a label.
        text: How the lines of text files become examples.

    Returns:
        The data set. Its `source` holds these arguments with absolute paths.

    Raises:
        InputError: If a file or folder is missing or cannot be used, or a data set cannot be downloaded.
        StorageError: If a download cannot be written.
        VaezooError: If the data set, likelihood or scaling does not exist, one does not fit the data, or
            `image_size` is out of range. Also if `image_size` or `channels` is given for data without images, or
            `stream` or "skip" for data other than an image folder.
    """
    image_size = checked_image_size(image_size)
    if channels is not None and channels not in CHANNELS:
        raise VaezooError(f"channels '{channels}' are not known", suggest(channels, CHANNELS, "use grey or colour"))
    if kind is None and Path(data).suffix.lower() == ANNOTATED:
        kind = "counts"
    series = SeriesOptions(
        kind=kind,
        time_column=time_column,
        window=window,
        stride=stride,
        sample_rate=sample_rate,
        layer=layer,
        label_column=label_column,
        label_pattern=label_pattern,
    )
    scale = arrays.scale_of(kind or ("series" if series.names else None), scale)
    if not isinstance(scale, Scaling):
        check_scale(scale)
    scale_name = scale.name if isinstance(scale, Scaling) else scale
    text = text or TextOptions()
    path = None if isinstance(data, str) and data in DATASETS else find_path(data)
    are_texts = path is not None and not series.names and is_text(path, text.column)
    is_table = path is not None and not (series.names or are_texts) and is_table_file(path)
    if columns and not is_table:
        raise VaezooError(f"'{os.fspath(data)}' is not read as a table", "leave out --columns, or give a .csv file")
    if likelihood is not None and data not in OTHER_KINDS and not are_texts and not is_table:
        # It raises for an unknown name now, because reading the images may take minutes.
        make_likelihood(likelihood, scale.kind if isinstance(scale, Scaling) else scale_kind(scale))
    if on_bad_image not in ON_BAD_IMAGE:
        raise VaezooError(
            f"on_bad_image '{on_bad_image}' is not known", suggest(on_bad_image, ON_BAD_IMAGE, "use error or skip")
        )
    skip = on_bad_image == "skip"
    data_path = None if data_dir is None else _absolute(data_dir)
    if not are_texts:
        _require_texts(f"'{os.fspath(data)}'", text)
    if series.names or are_texts or is_table:
        _require_images(f"'{path}' has no images: it", image_size, channels)
        require_image_folder(str(path), stream, skip)
    if isinstance(data, str) and data in DATASETS:
        series.refuse(data)
        _require_unit(data, scale)
        require_image_folder(data, stream, skip)
        if data in OTHER_KINDS:
            return _load_other(data, data_path, image_size, likelihood, channels)
        name = location = data
        train, test = load_images(data, data_path, image_size, channels)
        splits = Splits(train, test, class_names=standard_sets.CLASS_NAMES.get(data, ()))
    else:
        assert path is not None
        name, location = slug(path), str(path)
        if series.names:
            readers = {**dict.fromkeys(SOUND, folders), "counts": counts}
            splits = readers.get(str(kind), files).load(path, series, scale)
        elif are_texts:
            _require_unit(str(path), scale)
            folder = None if data_path is None else str(data_path)
            own = DataSource(data=location, data_dir=folder, likelihood=likelihood)
            return corpus.load(path, name, text, own)
        elif is_table:
            return tables.load(path, name, columns=columns, likelihood=likelihood, scale=scale, data_dir=data_path)
        else:
            splits = _load_path(path, image_size, stream, skip, channels, scale)
    source = DataSource(
        data=location,
        data_dir=None if data_path is None else str(data_path),
        image_size=image_size,
        likelihood=likelihood,
        on_bad_image=on_bad_image,
        channels=channels,
        scale=scale_name,
        **asdict(series),
    )
    return make_dataset(splits, name, likelihood, source, scale)


def to_dataset(data: Dataset | str | os.PathLike[str] | Values | TorchData) -> Dataset:
    """Returns the data set that a program means: itself, that of a name or path, or that of arrays.

    Raises:
        VaezooError: Those of `load_data` and `from_arrays`.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | os.PathLike):
        return load_data(data)
    return tables.from_table(data) if tables.is_mixed_frame(data) else from_arrays(data)


def checked_image_size(image_size: ImageSize | None) -> ImageSize | None:
    """Returns an image size, that of a square as one number.

    Raises:
        VaezooError: If it is out of range.
    """
    if image_size is None:
        return None
    sides = (image_size,) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) not in (1, 2) or not all(side in range(MIN_IMAGE_SIZE, MAX_IMAGE_SIZE + 1) for side in sides):
        raise VaezooError(
            f"image size {'x'.join(map(str, sides))} is out of range",
            f"use {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} pixels, or a height and a width such as 24x32",
        )
    return sides[0] if len(set(sides)) == 1 else (sides[0], sides[1])


def load_images(
    name: str, data_dir: Path | None, image_size: ImageSize | None, channels: str | None
) -> tuple[TensorSplit, TensorSplit]:
    """Loads the training split and the test split of the image data set `name`, converted as in `load_data`."""
    train, test = _load_named(name, data_dir or _default_data_dir(), image_size)
    if channels is not None:
        count = CHANNELS[channels]
        train, test = (TensorSplit(to_channels(s.x, count), s.y) for s in (train, test))
    return train, test


def _load_named(name: str, data_dir: Path, image_size: ImageSize | None) -> tuple[TensorSplit, TensorSplit]:
    """Loads the data set `name`."""
    if name == "digits":
        return digits.load(image_size)
    if name == "shapes":
        if isinstance(image_size, tuple):
            raise VaezooError("the images of 'shapes' are square", "give --image-size one number")
        return sprites.load() if image_size is None else sprites.load(image_size)
    return standard_sets.load(name, data_dir, image_size)


def _load_other(
    name: str, data_dir: Path | None, image_size: ImageSize | None, likelihood: str | None, channels: str | None
) -> Dataset:
    """Loads the data set `name`, which has no images. Its source holds the arguments of `load_data`."""
    _require_images(f"'{name}' has no images: it", image_size, channels)
    data, train, test = OTHER_KINDS[name]()
    source = DataSource(data=name, data_dir=None if data_dir is None else str(data_dir), likelihood=likelihood)
    train, valid = train_valid_split(train)
    spec = replace(data, likelihood=likelihood or data.likelihood)
    return Dataset(spec=spec, train=train, valid=valid, test=test, source=source)


def _load_path(
    path: Path,
    image_size: ImageSize | None,
    stream: bool | None,
    skip: bool,
    channels: str | None,
    scale: str | Scaling,
) -> Splits:
    """Loads the image folder or array file at `path`."""
    if path.is_dir():
        _require_unit(str(path), scale)
        return image_folder.load(path, image_size, stream, skip, None if channels is None else CHANNELS[channels])
    if path.suffix.lower() not in npy.SUFFIXES:
        hint = "name an image folder, or a .npy, .npz, .csv, .parquet or .txt file"
        raise InputError(f"'{path}' is neither a folder, an array file nor a table", hint)
    _require_images(f"array file '{path}'", image_size, channels)
    require_image_folder(str(path), stream, skip)
    return arrays.load(path, scale)


def is_text(path: Path, column: str | None) -> bool:
    """Tells whether a path holds texts: a .txt file, a folder of them without images, or a column of a .csv file."""
    if path.is_dir():
        return lines.is_text_folder(path, SUFFIXES)
    return path.suffix.lower() == lines.TEXT or (path.suffix.lower() == lines.CSV and column is not None)


def is_table_file(path: Path) -> bool:
    """Tells whether a path is that of a .csv or .parquet file."""
    return path.suffix.lower() in TABLES and not path.is_dir()


def _require_texts(data: str, text: TextOptions) -> None:
    """Raises an error if an option was given that only files of texts support."""
    if text.given is not None:
        option = f"--{text.given.replace('_', '-')}"
        raise VaezooError(f"{option} is for files of texts, and {data} is none", f"leave out {option}")


def _require_unit(data: str, scale: str | Scaling) -> None:
    """Raises an error if a scaling was given that only arrays support."""
    if not is_unit(scale):
        raise VaezooError(f"'{data}' is scaled already: --scale is for array files", "leave out --scale")


def _require_images(data: str, image_size: ImageSize | None, channels: str | None) -> None:
    """Raises an error if an option was given that only images support."""
    if image_size is not None:
        size = image_size if isinstance(image_size, int) else "x".join(map(str, image_size))
        raise VaezooError(f"{data} cannot be resized to image size {size}", "leave out --image-size")
    if channels is not None:
        raise VaezooError(f"{data} cannot be converted to {channels}", "leave out --channels")


def require_image_folder(data: str, stream: bool | None, skip: bool) -> None:
    """Raises an error if an option was given that only image folders support."""
    if stream:
        raise VaezooError(f"'{data}' cannot be streamed: it is not an image folder", "leave out --stream")
    if skip:
        raise VaezooError(f"'{data}' has no images to skip: it is not an image folder", "leave out --on-bad-image")


def find_path(data: str | os.PathLike[str]) -> Path:
    """Returns the absolute path of `data`. Raises an error if it does not exist."""
    text = os.fspath(data)
    path = _absolute(data)
    if text and os.path.exists(path):
        return path
    if not isinstance(data, str) or "/" in text or os.sep in text or path.suffix:
        raise InputError(f"no file or folder '{text}'", "check the path")
    choices = f"use one of {', '.join(DATASETS)}, or the path of an image folder, an array file, a table or a .txt file"
    raise VaezooError(f"no data set named '{text}'", suggest(text, DATASETS, choices))


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Returns the absolute path, with `~` expanded."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def _default_data_dir() -> Path:
    """Returns the folder of downloaded data sets, by the XDG base directory specification."""
    return _absolute(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vaezoo" / "data"


def slug(path: Path) -> str:
    """Returns the name of a file or folder in the style of the data sets' names."""
    name = path.name if path.is_dir() else path.stem
    return re.sub(r"[\W_]+", "-", name.lower()).strip("-") or "data"
