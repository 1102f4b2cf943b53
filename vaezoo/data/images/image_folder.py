"""Reads the images of a folder: flat or with one folder for each class, as one split or with folders for splits."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from vaezoo.core.memory import available_memory
from vaezoo.data.base import ImageSize, Split, Splits, TensorSplit, even_indices
from vaezoo.data.folder_layout import Classes, class_numbers, find_splits, require_same_classes
from vaezoo.data.folder_scan import FileKind, Folder, scan
from vaezoo.data.images.decode import decoded_shape, read_images, try_decode
from vaezoo.data.images.image_headers import (
    FORMATS,
    SUFFIXES,
    BadImagesError,
    Shape,
    common_shape,
    first_shape,
    has_16_bits,
    ignore_pillow_warnings,
    read_shape,
    try_read,
)
from vaezoo.data.images.streamed import stream_images
from vaezoo.data.labels import name_classes
from vaezoo.errors import InputError, VaezooWarning

IMAGES = FileKind("images", FORMATS, SUFFIXES)
DARK_SAMPLE = 64  # images whose levels are looked at
MAX_DARK = 16  # the level of 255 that the level 4,095 of 65,535 becomes


def load(
    root: Path,
    image_size: ImageSize | None,
    stream: bool | None = None,
    skip: bool = False,
    channels: int | None = None,
    *,
    find: Callable[[Folder], dict[str, Classes]] = find_splits,
) -> Splits:
    """Reads an image folder into memory, or only its headers.

    Args:
        root: A folder with folders for the splits train, valid and test, as `find_splits` finds them, or a folder
            that is the training split itself. A split contains images, or a folder of images for each class,
            which may have subfolders. Hidden files are ignored, and `folder_scan.scan` counts other files.
        image_size: Height and width to resize the images to, in pixels. None if all have the same size.
        stream: Whether images stay in their files. None streams them if the decoded images would fill more than half of
            the available memory.
        skip: Whether unreadable images are left out, with a warning. If images are streamed, all of them are decoded
            once to find those.
        channels: 1 to convert all images to grey levels, 3 to convert them to colour. None keeps what they have.
        find: Finds the splits and classes: `find_splits` for a training, `find_files` for a trained model.

    Returns:
        The splits. x is `(N, channels, height, width)`, uint8, in the order of the sorted classes and paths. It has one
        channel if all images are grey, else three. y is `(N,)`, the index of the class among the names that
        `order_names` sorts, or None if there are no classes. `class_names` has the names of their folders.

    Raises:
        BadImagesError: If images cannot be read and `skip` is False, or if `skip` would leave a split empty. For
            streamed images only their headers count.
        InputError: If the folder is missing, empty or has another layout, or if the classes of the splits differ. Also
            the errors of `read_images`.
    """
    tree = scan(root, IMAGES)
    found = find(tree)
    require_same_classes(found, tree)
    splits = list(found.values())
    try:
        result = _read(splits, root, image_size, stream, channels, decode=skip)
    except BadImagesError as error:
        if not skip:
            error.hint += ", or pass --on-bad-image skip to leave them out"
            raise
        splits = _without_bad_files(splits, error)
        warnings.warn(f"{error.message}; they are left out", VaezooWarning, stacklevel=4)
        result = _read(splits, root, image_size, stream, channels)
    _refuse_dark_levels([path for paths in splits[0].values() for path in paths], root, image_size)
    named = dict(zip(found, result, strict=True))
    return Splits(named["train"], named.get("test"), named.get("valid"), name_classes(splits[0]))


def _read(
    splits: Sequence[Classes],
    root: Path,
    image_size: ImageSize | None,
    stream: bool | None,
    channels: int | None,
    decode: bool = False,
) -> Sequence[Split]:
    """Reads all splits together, so that they have the same channels and one error names all bad files."""
    files = [path for split in splits for paths in split.values() for path in paths]
    labels = [class_numbers(split) for split in splits]
    ends = list(accumulate(sum(map(len, split.values())) for split in splits))
    slices = [slice(start, end) for start, end in pairwise([0, *ends])]
    if shape := _shape_to_stream(files, root, image_size, stream, decode):
        shape = (channels or shape[0], *shape[1:])
        return [
            stream_images(files[s], root, shape, image_size, y, channels) for s, y in zip(slices, labels, strict=True)
        ]
    x = read_images(files, root, image_size, channels)
    names = tuple(path.relative_to(root).as_posix() for path in files)
    return [TensorSplit(x[s], y, names[s]) for s, y in zip(slices, labels, strict=True)]


def _without_bad_files(splits: Sequence[Classes], error: BadImagesError) -> list[Classes]:
    """Returns the splits without the files of an error. Keeps empty classes. Raises the error if a split is empty."""
    bad = {path for path, _ in error.files}
    kept = [{name: [path for path in paths if path not in bad] for name, paths in split.items()} for split in splits]
    if not all(any(split.values()) for split in kept):
        raise error
    return kept


def _refuse_dark_levels(paths: Sequence[Path], root: Path, image_size: ImageSize | None) -> None:
    """Raises InputError if 16-bit images use 12 bits only, as many cameras write them. They would be nearly black.

    Evenly spaced images stand for all.
    """
    with ignore_pillow_warnings():
        sample = [paths[i] for i in even_indices(DARK_SAMPLE, len(paths)).tolist()]
        deep = [path for path in sample if try_read(has_16_bits, path) is True]
        images = [try_decode(path, image_size) for path in deep]
    if 0 < max((int(image.max()) for image in images if not isinstance(image, str)), default=0) <= MAX_DARK:
        raise InputError(
            f"the 16-bit images in '{root}' have no level above 4,095 of 65,535, so they are nearly black",
            "multiply their levels by 16, or save them with 8 bits",
        )


def _shape_to_stream(
    paths: Sequence[Path], root: Path, image_size: ImageSize | None, stream: bool | None, decode: bool
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
