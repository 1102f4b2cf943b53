"""CelebA, faces with attributes: a folder of images and two lists. It cannot be downloaded automatically."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from vaezoo.data.base import ImageSize, TensorSplit
from vaezoo.data.images.decode import read_images
from vaezoo.errors import InputError

DEFAULT_IMAGE_SIZE = 64  # pixels; the files have 178 x 218, and papers use 64 x 64
FOLDER, IMAGES = "celeba", "img_align_celeba"
PARTITION, ATTRIBUTES = "list_eval_partition.txt", "list_attr_celeba.txt"
MAX_BYTES = 2**26  # of a list; the larger one has 27 million
TRAIN, TEST = "0", "2"  # 1 is the official validation split


def load(root: Path, image_size: ImageSize) -> tuple[TensorSplit, TensorSplit]:
    """Reads the folder `celeba` under `root`.

    Args:
        root: The folder that contains it.
        image_size: Height and width of the result, in pixels. The crop keeps the whole shorter side of 178 pixels, as
            papers do.

    Returns:
        The training split and the test split. x is `(N, 3, height, width)`, uint8. y is `(N, 40)`, the
        attributes, 0 or 1.

    Raises:
        InputError: If files are missing, or images cannot be read.
        ValueError: If a list is damaged. Also the other errors of `standard_sets.READ_ERRORS`.
    """
    folder = root / FOLDER
    for name in (IMAGES, PARTITION, ATTRIBUTES):
        if not (folder / name).exists():
            raise InputError(
                f"data set 'celeba' is not in '{root}': there is no {FOLDER}/{name}, and it cannot be downloaded",
                f"get {PARTITION}, {ATTRIBUTES} and {IMAGES}.zip from mmlab.ie.cuhk.edu.hk/projects/CelebA.html and "
                f"unpack them into '{folder}', or pass --data-dir with the folder that contains {FOLDER}",
            )
    partition = {name: words[0] for name, *words in _rows(folder / PARTITION)}
    rows = _rows(folder / ATTRIBUTES)
    next(rows), next(rows)  # the number of images and the names of the attributes
    attributes = {name: _bits(words) for name, *words in rows}
    if list(partition) != list(attributes):
        raise ValueError(f"{PARTITION} and {ATTRIBUTES} do not list the same images")
    train, test = (_load_split(folder / IMAGES, partition, attributes, split, image_size) for split in (TRAIN, TEST))
    return train, test


def _load_split(
    folder: Path, partition: dict[str, str], attributes: dict[str, list[bool]], split: str, image_size: ImageSize
) -> TensorSplit:
    names = [name for name, number in partition.items() if number == split]
    if not names:
        raise ValueError(f"{PARTITION} lists no images of partition {split}")
    if bad := next((name for name in names if Path(name).name != name), None):
        raise ValueError(f"{PARTITION} lists {bad!r}, which is not a file name")
    x = read_images([folder / name for name in names], folder, image_size)
    return TensorSplit(x, torch.tensor([attributes[name] for name in names]).long())


def _rows(path: Path) -> Iterator[list[str]]:
    """Yields the words of each line."""
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path.name} is not a list")
    return (line.split() for line in path.read_text("utf-8").splitlines() if line.strip())


def _bits(words: list[str]) -> list[bool]:
    if not set(words) <= {"1", "-1"}:
        raise ValueError(f"{ATTRIBUTES} has attributes that are neither 1 nor -1")
    return [word == "1" for word in words]
