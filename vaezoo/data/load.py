"""`load_data`: finds a data set by its name or path and loads it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from vaezoo.core.scaling import Scaling, check_scale, scale_kind
from vaezoo.data import arrays, npy
from vaezoo.data.arrays import from_arrays, is_unit, make_dataset
from vaezoo.data.base import Dataset, DataSource, DataSpec, Splits, TensorSplit, train_valid_split
from vaezoo.data.catalog import DATASETS
from vaezoo.data.convert import TorchData, Values
from vaezoo.data.images import digits, image_folder, sprites, standard_sets
from vaezoo.data.series import sines
from vaezoo.data.tables import penguins
from vaezoo.data.text import names
from vaezoo.errors import InputError, VaezooError, suggest
from vaezoo.likelihoods.make import make_likelihood

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 4, 1024  # pixels
ON_BAD_IMAGE = ("error", "skip")

# Texts, tables and series. They describe themselves, because their kind does not follow from the shape.
OTHER_KINDS: Mapping[str, Callable[[], tuple[DataSpec, TensorSplit, TensorSplit]]] = MappingProxyType(
    {"names": names.load, "penguins": penguins.load, "sines": sines.load}
)


def load_data(
    data: str | os.PathLike[str] = "digits",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    likelihood: str | None = None,
    stream: bool | None = None,
    on_bad_image: str = "error",
    scale: str | Scaling = "unit",
) -> Dataset:
    """Loads a data set into memory. An image folder that is too large for memory is streamed.

    Args:
        data: A name from `DATASETS`, or the path of an image folder, a .npy or a .npz file. If a folder has the name of
            a data set, give its path with a slash: `./digits`.
        data_dir: The folder that contains the standard data sets and to which they are downloaded. The default is
            `vaezoo/data` in the user's cache folder.
        image_size: Height and width to resize images to, 4 to 1024 pixels. Other data cannot be resized.
        likelihood: As in `vaezoo.likelihoods.make.make_likelihood`. The default is that of `from_arrays`: "bernoulli"
            for bits and grey images, "gaussian:optimal" for colour and vectors of floats. Texts, tables and series have
            defaults of their own.
        stream: Whether the images of an image folder stay in their files until a batch needs them. By default they do
            if they would fill more than half of the available memory.
        on_bad_image: What to do with unreadable images of an image folder. "error" raises an error that names them.
            "skip" leaves them out with a VaezooWarning. If images are streamed, "skip" decodes all of them first.
        scale: How the values of an array file become x, as in `from_arrays`. Images of files are always "unit".

    Returns:
        The data set. Its `source` holds these arguments with absolute paths.

    Raises:
        InputError: If a file or folder is missing or cannot be used, or a data set cannot be downloaded.
        StorageError: If a download cannot be written.
        VaezooError: If the data set, likelihood or scaling does not exist, one does not fit the data, or
            `image_size` is out of range. Also if `image_size` is given for data without images, or `stream` or "skip"
            for data other than an image folder.
    """
    if image_size is not None and not MIN_IMAGE_SIZE <= image_size <= MAX_IMAGE_SIZE:
        raise VaezooError(
            f"image size {image_size} is out of range", f"use {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} pixels"
        )
    if not isinstance(scale, Scaling):
        check_scale(scale)
    scale_name = scale.name if isinstance(scale, Scaling) else scale
    if likelihood is not None and data not in OTHER_KINDS:
        # It raises for an unknown name now, because reading the images may take minutes.
        make_likelihood(likelihood, scale_kind(scale_name))
    if on_bad_image not in ON_BAD_IMAGE:
        raise VaezooError(
            f"on_bad_image '{on_bad_image}' is not known", suggest(on_bad_image, ON_BAD_IMAGE, "use error or skip")
        )
    skip = on_bad_image == "skip"
    data_path = None if data_dir is None else _absolute(data_dir)
    if isinstance(data, str) and data in DATASETS:
        _require_unit(data, scale)
    if isinstance(data, str) and data in OTHER_KINDS:
        _require_image_folder(data, stream, skip)
        return _load_other(data, data_path, image_size, likelihood)
    if isinstance(data, str) and data in DATASETS:
        _require_image_folder(data, stream, skip)
        name = location = data
        train, test = _load_named(data, data_path or _default_data_dir(), image_size)
        splits = Splits(train, test, class_names=standard_sets.CLASS_NAMES.get(data, ()))
    else:
        path = _find_path(data)
        name, location = _slug(path), str(path)
        splits = _load_path(path, image_size, stream, skip, scale)
    source = DataSource(
        data=location,
        data_dir=None if data_path is None else str(data_path),
        image_size=image_size,
        likelihood=likelihood,
        on_bad_image=on_bad_image,
        scale=scale_name,
    )
    return make_dataset(splits, name, likelihood, source, scale)


def to_dataset(data: Dataset | str | os.PathLike[str] | Values | TorchData) -> Dataset:
    """Returns the data set that a program means: itself, that of a name or path, or that of arrays.

    Raises:
        VaezooError: Those of `load_data` and `from_arrays`.
    """
    if isinstance(data, Dataset):
        return data
    return load_data(data) if isinstance(data, str | os.PathLike) else from_arrays(data)


def _load_named(name: str, data_dir: Path, image_size: int | None) -> tuple[TensorSplit, TensorSplit]:
    """Loads the data set `name`."""
    if name == "digits":
        return digits.load(image_size)
    if name == "shapes":
        return sprites.load() if image_size is None else sprites.load(image_size)
    return standard_sets.load(name, data_dir, image_size)


def _load_other(name: str, data_dir: Path | None, image_size: int | None, likelihood: str | None) -> Dataset:
    """Loads the data set `name`, which has no images. Its source holds the arguments of `load_data`."""
    if image_size is not None:
        raise VaezooError(f"'{name}' has no images to resize to image size {image_size}", "leave out --image-size")
    data, train, test = OTHER_KINDS[name]()
    source = DataSource(data=name, data_dir=None if data_dir is None else str(data_dir), likelihood=likelihood)
    train, valid = train_valid_split(train)
    spec = replace(data, likelihood=likelihood or data.likelihood)
    return Dataset(spec=spec, train=train, valid=valid, test=test, source=source)


def _load_path(path: Path, image_size: int | None, stream: bool | None, skip: bool, scale: str | Scaling) -> Splits:
    """Loads the image folder or array file at `path`."""
    if path.is_dir():
        _require_unit(str(path), scale)
        return image_folder.load(path, image_size, stream, skip)
    if path.suffix.lower() not in npy.SUFFIXES:
        raise InputError(
            f"'{path}' is neither a folder nor an array file", "name an image folder, a .npy or a .npz file"
        )
    if image_size is not None:
        raise VaezooError(f"array file '{path}' cannot be resized to image size {image_size}", "leave out --image-size")
    _require_image_folder(str(path), stream, skip)
    return arrays.load(path, scale)


def _require_unit(data: str, scale: str | Scaling) -> None:
    """Raises an error if a scaling was given that only arrays support."""
    if not is_unit(scale):
        raise VaezooError(f"'{data}' is scaled already: --scale is for array files", "leave out --scale")


def _require_image_folder(data: str, stream: bool | None, skip: bool) -> None:
    """Raises an error if an option was given that only image folders support."""
    if stream:
        raise VaezooError(f"'{data}' cannot be streamed: it is not an image folder", "leave out --stream")
    if skip:
        raise VaezooError(f"'{data}' has no images to skip: it is not an image folder", "leave out --on-bad-image")


def _find_path(data: str | os.PathLike[str]) -> Path:
    """Returns the absolute path of `data`. Raises an error if it does not exist."""
    text = os.fspath(data)
    path = _absolute(data)
    if text and os.path.exists(path):
        return path
    if not isinstance(data, str) or "/" in text or os.sep in text or path.suffix.lower() in npy.SUFFIXES:
        raise InputError(f"no file or folder '{text}'", "check the path")
    choices = f"use one of {', '.join(DATASETS)}, or the path of an image folder, a .npy or a .npz file"
    raise VaezooError(f"no data set named '{text}'", suggest(text, DATASETS, choices))


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Returns the absolute path, with `~` expanded."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def _default_data_dir() -> Path:
    """Returns the folder of downloaded data sets, by the XDG base directory specification."""
    return _absolute(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vaezoo" / "data"


def _slug(path: Path) -> str:
    """Returns the name of a file or folder in the style of the data sets' names."""
    name = path.name if path.is_dir() else path.stem
    return re.sub(r"[\W_]+", "-", name.lower()).strip("-") or "data"
