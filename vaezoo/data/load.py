"""Finds a data set by its name or path."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vaezoo.data import arrays, npy
from vaezoo.data.arrays import make_dataset
from vaezoo.data.base import Dataset, DataSource, Split, TensorSplit
from vaezoo.data.catalog import DATASETS
from vaezoo.data.images import digits, image_folder, sprites, standard_sets
from vaezoo.errors import InputError, VaezooError, suggest
from vaezoo.likelihoods.make import make_likelihood

SIZES = (4, 1024)  # pixels, the smallest and the largest
ON_BAD_IMAGE = ("error", "skip")


def load_data(
    data: str | os.PathLike[str] = "digits",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    likelihood: str | None = None,
    stream: bool | None = None,
    on_bad_image: str = "error",
) -> Dataset:
    """Loads a data set into memory; an image folder that is too large for it is streamed.

    Args:
        data: A name from `DATASETS`, or the path of an image folder, a .npy or a .npz file. A folder that is
            called like a data set is meant by a path with a slash, `./digits`.
        data_dir: Where the classical sets lie or are downloaded to; `vaezoo/data` in the user's cache folder
            by default.
        image_size: Height and width to bring images to, 4 to 1024 pixels. Arrays keep theirs.
        likelihood: As in `vaezoo.likelihoods.make.make_likelihood`; by default "bernoulli" for vectors and one
            channel, "gaussian:optimal" for colour.
        stream: Whether the images of an image folder stay in their files until a batch asks for them. By default
            they do where they would fill more than half of the memory that is available now.
        on_bad_image: What to do about images of an image folder that cannot be read: "error" names them; "skip"
            leaves them out with a VaezooWarning, which takes a decoding of all beforehand if they are streamed.

    Returns:
        The data set. Its `source` holds these words with absolute paths.

    Raises:
        InputError: If a file or folder is missing or cannot be used, or a set cannot be downloaded.
        StorageError: If a download cannot be written.
        VaezooError: If there is no such data set or likelihood, the image_size is not possible, or something else than an
            image folder is to be streamed or to be read with gaps.
    """
    if image_size is not None and not SIZES[0] <= image_size <= SIZES[1]:
        raise VaezooError(f"image_size {image_size} is out of range", f"use {SIZES[0]} to {SIZES[1]} pixels")
    if likelihood is not None:
        make_likelihood(likelihood)  # a typing error is told before the data are read, which may take minutes
    if on_bad_image not in ON_BAD_IMAGE:
        raise VaezooError(
            f"on_bad_image '{on_bad_image}' is not known", suggest(on_bad_image, ON_BAD_IMAGE, "use error or skip")
        )
    skip = on_bad_image == "skip"
    where = None if data_dir is None else _absolute(data_dir)
    if isinstance(data, str) and data in DATASETS:
        _refuse_for_folders(data, stream, skip)
        name = words = data
        parts: tuple[Split, Split | None] = _load_named(data, where or _default_data_dir(), image_size)
    else:
        path = _find(data)
        name, words = _slug(path), str(path)
        parts = _load_path(path, image_size, stream, skip)
    source = DataSource(
        data=words,
        data_dir=None if where is None else str(where),
        image_size=image_size,
        likelihood=likelihood,
        on_bad_image=on_bad_image,
    )
    return make_dataset(*parts, name, likelihood, source)


def _load_named(name: str, data_dir: Path, size: int | None) -> tuple[TensorSplit, TensorSplit | None]:
    """Loads the data set `name`."""
    if name == "digits":
        return digits.load(size)
    if name == "shapes":
        return sprites.load() if size is None else sprites.load(size)
    return standard_sets.load(name, data_dir, size)


def _load_path(path: Path, size: int | None, stream: bool | None, skip: bool) -> tuple[Split, Split | None]:
    """Loads the folder or file at `path`."""
    if path.is_dir():
        return image_folder.load(path, size, stream, skip)
    if path.suffix.lower() not in npy.SUFFIXES:
        raise InputError(
            f"'{path}' is neither a folder nor an array file", "name an image folder, a .npy or a .npz file"
        )
    if size is not None:
        raise VaezooError(f"size {size} cannot be had for array file '{path}'", "leave it out: arrays keep their size")
    _refuse_for_folders(str(path), stream, skip)
    return arrays.load(path)


def _refuse_for_folders(data: str, stream: bool | None, skip: bool) -> None:
    """Raises for what only an image folder can be asked, if it is."""
    if stream:
        raise VaezooError(f"'{data}' cannot be streamed: it is no image folder", "leave out --stream")
    if skip:
        raise VaezooError(f"'{data}' has no images to skip: it is no image folder", "leave out --on-bad-image")


def _find(data: str | os.PathLike[str]) -> Path:
    """Returns the absolute path that is meant by `data`, which exists."""
    text = os.fspath(data)
    path = _absolute(data)
    if text and os.path.exists(path):
        return path
    if not isinstance(data, str) or "/" in text or os.sep in text or path.suffix.lower() in npy.SUFFIXES:
        raise InputError(f"no file or folder '{text}'", "check the path")
    otherwise = f"use one of {', '.join(DATASETS)}, or the path of an image folder, a .npy or a .npz file"
    raise VaezooError(f"no data set named '{text}'", suggest(text, DATASETS, otherwise))


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Returns the absolute path, `~` filled in."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def _default_data_dir() -> Path:
    """Returns the folder for downloaded sets, by the XDG base directory specification."""
    return _absolute(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vaezoo" / "data"


def _slug(path: Path) -> str:
    """Returns a file's or folder's name in the manner of the data sets' names."""
    name = path.name if path.is_dir() else path.stem
    return re.sub(r"[\W_]+", "-", name.lower()).strip("-") or "data"
