"""Image folders: flat or with one folder for each class, as one split or with the folders train and test."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from vaezoo.core.memory import available_memory
from vaezoo.data.base import Split, TensorSplit
from vaezoo.data.images.decode import decoded_shape, read_images
from vaezoo.data.images.image_headers import (
    FORMATS,
    SUFFIXES,
    BadImagesError,
    Shape,
    common_shape,
    first_shape,
    read_shape,
)
from vaezoo.data.images.streamed import stream_images
from vaezoo.errors import InputError, VaezooWarning

# A folder `train` beside one of these, or alone, is a split and not a class.
OTHER_SPLITS = ("test", "val", "valid", "validation")

Classes: TypeAlias = dict[str, list[Path]]


def load(
    root: Path, image_size: int | None, stream: bool | None = None, skip: bool = False
) -> tuple[Split, Split | None]:
    """Reads an image folder into memory, or only its headers.

    Args:
        root: A folder with the folders `train` and optionally `test`, or a folder that is the training split itself. A
            split contains images, or a folder of images for each class, which may have subfolders. A folder `val` or
            `valid` is ignored, because validation examples are taken from the training split. Hidden files and files
            without an image suffix are ignored.
        image_size: Height and width to resize the images to, in pixels. None if all have the same size.
        stream: Whether images stay in their files. None streams them if the decoded images would fill more than half of
            the available memory.
        skip: Whether unreadable images are left out, with a warning. If images are streamed, all of them are decoded
            once to find those.

    Returns:
        The training split and the test split, or None if there is no test split. x is `(N, channels, height, width)`,
        uint8, in the order of the sorted paths. It has one channel if all images are grey, else three. y is `(N,)`, the
        index of the class among the sorted names, or None if there are no classes.

    Raises:
        BadImagesError: If images cannot be read and `skip` is False, or if `skip` would leave a split empty. For
            streamed images only their headers count.
        InputError: If the folder is missing, empty or has another layout, or if the classes of train and test differ.
            Also the errors of `read_images`.
    """
    if not root.is_dir():
        raise InputError(f"no folder '{root}'", "name a folder of images")
    folders = [root / "train", root / "test"] if _has_split_folders(root) else [root]
    splits = [_find_classes(folder) for folder in folders if folder.is_dir()]
    if len(splits) == 2 and sorted(splits[0]) != sorted(splits[1]):
        odd = sorted(splits[0].keys() ^ splits[1].keys())[0]
        where = "train" if odd in splits[0] else "test"
        what = f"class '{odd}'" if odd else "images outside of class folders"
        raise InputError(
            f"train and test in '{root}' have different classes: only {where} has {what}",
            "give both the same class folders",
        )
    try:
        result = _read(splits, root, image_size, stream, decode=skip)
    except BadImagesError as error:
        if not skip:
            error.hint += ", or pass --on-bad-image skip to leave them out"
            raise
        splits = _without_bad_files(splits, error)
        warnings.warn(f"{error.message}; they are left out", VaezooWarning, stacklevel=4)
        result = _read(splits, root, image_size, stream)
    return result[0], result[1] if len(result) == 2 else None


def _read(
    splits: Sequence[Classes], root: Path, image_size: int | None, stream: bool | None, decode: bool = False
) -> Sequence[Split]:
    """Reads all splits together, so that they have the same channels and one error names all bad files."""
    files = [path for split in splits for paths in split.values() for path in paths]
    train_count = sum(map(len, splits[0].values()))
    labels = [_labels(split) for split in splits]
    slices = [slice(0, train_count), slice(train_count, None)][: len(splits)]
    if shape := _shape_to_stream(files, root, image_size, stream, decode):
        return [stream_images(files[s], root, shape, image_size, y) for s, y in zip(slices, labels, strict=True)]
    x = read_images(files, root, image_size)
    return [TensorSplit(x[s], y) for s, y in zip(slices, labels, strict=True)]


def _without_bad_files(splits: Sequence[Classes], error: BadImagesError) -> list[Classes]:
    """Returns the splits without the files of an error. Keeps empty classes. Raises the error if a split is empty."""
    bad = {path for path, _ in error.files}
    kept = [{name: [path for path in paths if path not in bad] for name, paths in split.items()} for split in splits]
    if not all(any(split.values()) for split in kept):
        raise error
    return kept


def _labels(split: Classes) -> Tensor | None:
    """Returns the class of each image of a split, or None if there are no classes."""
    counts = torch.tensor([len(paths) for paths in split.values()])
    return None if "" in split else torch.arange(len(counts)).repeat_interleave(counts)


def _shape_to_stream(
    paths: Sequence[Path], root: Path, image_size: int | None, stream: bool | None, decode: bool
) -> Shape | None:
    """Returns the shape of the images if they are to be streamed, or None if they are to be read into memory."""
    read = decoded_shape if decode else read_shape
    if stream is None:
        # Half, because the validation split is copied. One header gives the largest possible size, that of three
        # channels. So folders that fit need no scan. If no header can be read, reading the images raises the error.
        max_bytes = available_memory() / 2
        first = first_shape(paths, image_size)
        if first is None or len(paths) * 3 * math.prod(first[1:]) <= max_bytes:
            return None
        shape = common_shape(paths, root, image_size, read)
        return shape if len(paths) * math.prod(shape) > max_bytes else None
    return common_shape(paths, root, image_size, read) if stream else None


def _has_split_folders(root: Path) -> bool:
    """Returns whether the folders are splits. If not, they are classes, one of which may be called `train`."""
    names = _list(root)[0]
    return "train" in names and not any(
        next(_images(root / name), None) for name in names if name not in ("train", *OTHER_SPLITS)
    )


def _find_classes(folder: Path) -> Classes:
    """Lists the images of each class, both sorted. Without classes they are under the name "".

    Raises:
        InputError: If there are no images, or some are in class folders and some are not.
    """
    names, loose = _list(folder)
    classes = {name: sorted(_images(folder / name), key=Path.as_posix) for name in sorted(names)}
    classes = {name: paths for name, paths in classes.items() if paths}
    if loose and classes:
        raise InputError(
            f"'{folder}' has images of its own and also folders of images, such as '{next(iter(classes))}'",
            "keep only images, or only one folder for each class",
        )
    if not loose and not classes:
        raise InputError(f"no images in folder '{folder}'", f"add images of the formats {', '.join(FORMATS)}")
    return classes or {"": sorted(loose, key=Path.as_posix)}


def _list(folder: Path) -> tuple[list[str], list[Path]]:
    """Returns the names of the folders and the paths of the images directly in `folder`."""
    _, names, files = next(_walk(folder))
    return names, [folder / name for name in files]


def _images(folder: Path) -> Iterator[Path]:
    """Yields the images in `folder` and all folders below it."""
    return (Path(parent, name) for parent, _, files in _walk(folder) for name in files)


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields the path, folders and images of `folder` and each folder below it, without hidden ones.

    Raises:
        InputError: If a folder cannot be listed. `os.walk` alone would ignore it.
    """

    def fail(error: OSError) -> None:
        raise InputError(f"folder '{error.filename}' cannot be listed: {error.strerror}", "make it readable")

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield parent, list(folders), [f for f in files if f.lower().endswith(SUFFIXES) and not f.startswith(".")]
