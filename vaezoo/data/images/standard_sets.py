"""The classical data sets, read from where the user keeps them and downloaded where that is possible."""

from __future__ import annotations

import zlib
from pathlib import Path

from vaezoo.data.base import TensorSplit
from vaezoo.data.images import celeba, cifar, idx, svhn
from vaezoo.data.images.decode import resize
from vaezoo.errors import InputError, first_line

# Under the folder of all sets, where each lies.
PLACES = {
    **{name: (folder,) for name, folder in idx.FOLDERS.items()},
    "cifar10": (cifar.FOLDER, cifar.ARCHIVE),
    "svhn": tuple(svhn.FILES),
    "celeba": (celeba.FOLDER,),
}
NAMES = tuple(PLACES)

# What the readers raise on damaged files, by our fuzz tests.
READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    StopIteration,
    MemoryError,
    OverflowError,
    zlib.error,
)


def load(name: str, root: Path, size: int | None) -> tuple[TensorSplit, TensorSplit]:
    """Reads one of the sets from `root`; downloads to there what is missing.

    Args:
        name: One of `NAMES`.
        root: The folder under which the sets lie, where torchvision puts them, too.
        size: Height and width to bring the images to, in pixels. None leaves them as they are; the faces
            of CelebA are cut to their middle and brought to 64.

    Returns:
        The official training and test parts: x `(N, channels, height, width)`, uint8; y `(N,)`, the class,
        or `(N, 40)`, the attributes of CelebA, 0 or 1.

    Raises:
        InputError: If the set is neither there nor can be downloaded, or its files are damaged.
        StorageError: If there is no room or no permission to write it to `root`.
        VaezooError: If a package is missing that it needs.
    """
    try:
        if name == "celeba":
            return celeba.load(root, size or celeba.FACE_SIZE)
        parts = _load(name, root)
    except READ_ERRORS as error:
        there = " and ".join(str(root / place) for place in PLACES[name] if (root / place).exists())
        again = "and put it there anew" if name == "celeba" else "to have it downloaded again"
        raise InputError(
            f"data set '{name}' in '{root}' is damaged: {first_line(error)}", f"delete {there} {again}"
        ) from error
    train, test = parts if size is None else (TensorSplit(resize(part.x, size), part.y) for part in parts)
    return train, test


def _load(name: str, root: Path) -> tuple[TensorSplit, TensorSplit]:
    """Reads a set that is packed in a few files."""
    if name == "cifar10":
        return cifar.load(root)
    if name == "svhn":
        return svhn.load(root)
    return idx.load(name, root)
