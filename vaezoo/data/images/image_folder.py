"""Image folders: flat or one folder a class, as one set or in the parts train and test."""

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
from vaezoo.data.images.image_headers import FORMATS, SUFFIXES, BadImagesError, Shape, first_shape, read_shape, scan
from vaezoo.data.images.streamed import streamed
from vaezoo.errors import InputError, VaezooWarning

# Folders beside `train` that do not make `train` the name of a class.
PARTS = ("test", "val", "valid", "validation")

Classes: TypeAlias = dict[str, list[Path]]


def load(root: Path, size: int | None, stream: bool | None = None, skip: bool = False) -> tuple[Split, Split | None]:
    """Reads an image folder into memory, or its headers alone.

    Args:
        root: A folder with the folders `train` and, if you like, `test`; or one that is the training part
            itself. A part holds images, or a folder of images (nested as you like) for each class.
            A folder `val` or `valid` is left alone: validation examples are carved from the training part.
            Files without the suffix of an image and hidden ones are ignored.
        size: Height and width to bring the images to, in pixels; None if they are all of one size.
        stream: Whether images stay in their files until a batch asks for them; None if they are to where, decoded,
            they would fill more than half of the memory that is available now.
        skip: Whether images that cannot be read are left out, with a warning. If they are streamed, all are then
            decoded once to find them.

    Returns:
        The training and the test part, None where there is none: x `(N, channels, height, width)`,
        uint8, one channel if all images are grey, else three, in the order of the sorted paths;
        y `(N,)`, the index of the class among the sorted names, or None if there are no classes.

    Raises:
        BadImagesError: If images cannot be read and are not to be skipped, or no others are left; if they are
            streamed, their headers.
        InputError: If the folder is missing, empty or laid out in another way, or the classes of train and
            test differ, or as `read_images` does.
    """
    if not root.is_dir():
        raise InputError(f"no folder '{root}'", "name a folder of images")
    folders = [root / "train", root / "test"] if _has_parts(root) else [root]
    parts = [_by_class(folder) for folder in folders if folder.is_dir()]
    if len(parts) == 2 and sorted(parts[0]) != sorted(parts[1]):
        odd = sorted(parts[0].keys() ^ parts[1].keys())[0]
        where = "train" if odd in parts[0] else "test"
        what = f"class '{odd}'" if odd else "images outside of class folders"
        raise InputError(
            f"train and test in '{root}' have different classes: only {where} has {what}",
            "give both the same class folders",
        )
    try:
        made = _read(parts, root, size, stream, decode=skip)
    except BadImagesError as error:
        if not skip:
            error.hint += ", or pass --on-bad-image skip to go on without them"
            raise
        parts = _without(parts, error)
        warnings.warn(f"{error.message}; they are left out", VaezooWarning, stacklevel=4)
        made = _read(parts, root, size, stream)
    return made[0], made[1] if len(made) == 2 else None


def _read(
    parts: Sequence[Classes], root: Path, size: int | None, stream: bool | None, decode: bool = False
) -> Sequence[Split]:
    """Reads the parts of a set in one go: they get the same number of channels, and one error names all bad files."""
    files = [path for part in parts for paths in part.values() for path in paths]
    border = sum(map(len, parts[0].values()))
    labels = [_labels(part) for part in parts]
    cuts = [slice(0, border), slice(border, None)][: len(parts)]
    if shape := _shape_to_stream(files, root, size, stream, decode):
        return [streamed(files[cut], root, shape, size, y) for cut, y in zip(cuts, labels, strict=True)]
    x = read_images(files, root, size)
    return [TensorSplit(x[cut], y) for cut, y in zip(cuts, labels, strict=True)]


def _without(parts: Sequence[Classes], error: BadImagesError) -> list[Classes]:
    """Returns the parts without the files of an error, which is raised if one has no others; classes stay."""
    bad = {path for path, _ in error.files}
    rest = [{name: [path for path in paths if path not in bad] for name, paths in part.items()} for part in parts]
    if not all(any(part.values()) for part in rest):
        raise error
    return rest


def _labels(part: Classes) -> Tensor | None:
    """Returns the class of each image of a part; None if there are no classes."""
    counts = torch.tensor([len(paths) for paths in part.values()])
    return None if "" in part else torch.arange(len(counts)).repeat_interleave(counts)


def _shape_to_stream(
    paths: Sequence[Path], root: Path, size: int | None, stream: bool | None, decode: bool
) -> Shape | None:
    """Returns the shape of the images if they are to be streamed; None if they are to be read into memory."""
    read = decoded_shape if decode else read_shape
    if stream is None:
        # Half: the validation part is copied out. One header tells the most there can be, so that folders which fit
        # need no scan; if it cannot be read, the error will name it.
        most = available_memory() / 2
        first = first_shape(paths, size)
        if first is None or len(paths) * 3 * math.prod(first[1:]) <= most:
            return None
        shape = scan(paths, root, size, read)
        return shape if len(paths) * math.prod(shape) > most else None
    return scan(paths, root, size, read) if stream else None


def _has_parts(root: Path) -> bool:
    """Tells the parts train and test from classes, one of which may be called `train`."""
    names = _list(root)[0]
    return "train" in names and not any(
        next(_images(root / name), None) for name in names if name not in ("train", *PARTS)
    )


def _by_class(folder: Path) -> Classes:
    """Lists the images of each class, both sorted; under the name "" if there are no classes.

    Raises:
        InputError: If there are none, or some lie in class folders and some do not.
    """
    names, loose = _list(folder)
    classes = {name: sorted(_images(folder / name), key=Path.as_posix) for name in sorted(names)}
    classes = {name: paths for name, paths in classes.items() if paths}
    if loose and classes:
        raise InputError(
            f"'{folder}' has images of its own and also folders of images, such as '{next(iter(classes))}'",
            "keep one kind: images only, or one folder for each class",
        )
    if not loose and not classes:
        raise InputError(f"no images in folder '{folder}'", f"put some there, of the formats {', '.join(FORMATS)}")
    return classes or {"": sorted(loose, key=Path.as_posix)}


def _list(folder: Path) -> tuple[list[str], list[Path]]:
    """Returns the names of the folders, and the images, that lie directly in `folder`."""
    _, names, files = next(_walk(folder))
    return names, [folder / name for name in files]


def _images(folder: Path) -> Iterator[Path]:
    """Yields the images in `folder` and in the folders under it."""
    return (Path(here, name) for here, _, files in _walk(folder) for name in files)


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walks over all folders from `folder` down: yields its path, folders and images, hidden ones left out.

    Raises:
        InputError: If a folder cannot be listed; `os.walk` alone would pass over it.
    """

    def fail(error: OSError) -> None:
        raise InputError(f"folder '{error.filename}' cannot be listed: {error.strerror}", "make it readable")

    for here, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield here, list(folders), [f for f in files if f.lower().endswith(SUFFIXES) and not f.startswith(".")]
