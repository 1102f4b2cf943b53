"""CelebA, faces with attributes: a folder of images and two lists, which no program can download."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from vaezoo.data.base import TensorSplit
from vaezoo.data.images.decode import read_images
from vaezoo.errors import InputError

FACE_SIZE = 64  # pixels; CelebA comes as 178 x 218, and papers use 64 x 64
FOLDER, PICTURES = "celeba", "img_align_celeba"
PARTS, ATTRIBUTES = "list_eval_partition.txt", "list_attr_celeba.txt"
MAX_BYTES = 2**26  # of a list; the larger has 27 million
TRAIN, TEST = "0", "2"  # 1 is the official validation part


def load(root: Path, size: int) -> tuple[TensorSplit, TensorSplit]:
    """Reads the folder `celeba` under `root`.

    Args:
        root: The folder that holds it.
        size: Height and width of the result, in pixels: the shorter side, 178 pixels, is kept whole, the crop that
            papers use.

    Returns:
        The training and the test part: x `(N, 3, size, size)`, uint8; y `(N, 40)`, the attributes, 0 or 1.

    Raises:
        InputError: If it is not there, or images cannot be read.
        ValueError: If a list is damaged, among the other errors of `classical.DAMAGE`.
    """
    folder = root / FOLDER
    for name in (PICTURES, PARTS, ATTRIBUTES):
        if not (folder / name).exists():
            raise InputError(
                f"data set 'celeba' is not in '{root}': there is no {FOLDER}/{name}, and it cannot be downloaded",
                f"get {PARTS}, {ATTRIBUTES} and {PICTURES}.zip from mmlab.ie.cuhk.edu.hk/projects/CelebA.html and put "
                f"them, unpacked, into '{folder}'; or pass --data-dir with the folder that holds {FOLDER}",
            )
    part_of = {name: words[0] for name, *words in _rows(folder / PARTS)}
    rows = _rows(folder / ATTRIBUTES)
    next(rows), next(rows)  # how many there are, and what the attributes are called
    attributes = {name: _bits(words) for name, *words in rows}
    if list(part_of) != list(attributes):
        raise ValueError(f"{PARTS} and {ATTRIBUTES} do not list the same images")
    train, test = (_load_part(folder / PICTURES, part_of, attributes, part, size) for part in (TRAIN, TEST))
    return train, test


def _load_part(
    folder: Path, part_of: dict[str, str], attributes: dict[str, list[bool]], part: str, size: int
) -> TensorSplit:
    names = [name for name, its in part_of.items() if its == part]
    if not names:
        raise ValueError(f"{PARTS} lists no images of part {part}")
    if strange := next((name for name in names if Path(name).name != name), None):
        raise ValueError(f"{PARTS} lists {strange!r}, which is no file name")
    x = read_images([folder / name for name in names], folder, size)
    return TensorSplit(x, torch.tensor([attributes[name] for name in names]).long())


def _rows(path: Path) -> Iterator[list[str]]:
    """Yields the words of each line."""
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path.name} is no list")
    return (line.split() for line in path.read_text("utf-8").splitlines() if line.strip())


def _bits(words: list[str]) -> list[bool]:
    if not set(words) <= {"1", "-1"}:
        raise ValueError(f"{ATTRIBUTES} has attributes that are neither 1 nor -1")
    return [word == "1" for word in words]
