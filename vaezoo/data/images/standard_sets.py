"""The standard data sets: read from the user's folder, and downloaded where that is possible."""

from __future__ import annotations

import zlib
from pathlib import Path

from vaezoo.data.base import ImageSize, TensorSplit
from vaezoo.data.images import celeba, cifar, idx, svhn
from vaezoo.data.images.decode import resize
from vaezoo.errors import InputError, first_line

# The paths of each data set, relative to the folder of all data sets.
PATHS = {
    **{name: (folder,) for name, folder in idx.FOLDERS.items()},
    "cifar10": (cifar.FOLDER, cifar.ARCHIVE),
    "svhn": tuple(svhn.FILES),
    "celeba": (celeba.FOLDER,),
}
NAMES = tuple(PATHS)

# The names of the classes, in the order of their numbers, where they are not digits or characters.
CLASS_NAMES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "fashion-mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}

# The errors that the readers raise for damaged files, by our fuzz tests.
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


def load(name: str, root: Path, image_size: ImageSize | None) -> tuple[TensorSplit, TensorSplit]:
    """Reads one of the data sets from `root` and downloads missing files to it.

    Args:
        name: One of `NAMES`.
        root: The folder of all data sets, with the layout of torchvision, or the folder of this data set in it.
        image_size: Height and width to resize the images to, in pixels. None keeps their size, but CelebA is cropped
            to the centre and resized to 64.

    Returns:
        The official training split and test split. x is `(N, channels, height, width)`, uint8. y is `(N,)`, the class,
        or `(N, 40)`, the attributes of CelebA, 0 or 1.

    Raises:
        InputError: If the data set is missing and cannot be downloaded, or its files are damaged.
        StorageError: If `root` has no space or cannot be written.
        VaezooError: If a required package is missing.
    """
    root = _root_of(name, root)
    try:
        if name == "celeba":
            return celeba.load(root, image_size or celeba.DEFAULT_IMAGE_SIZE)
        splits = _load(name, root)
    except READ_ERRORS as error:
        present = " and ".join(str(root / path) for path in PATHS[name] if (root / path).exists())
        action = "and put it there again" if name == "celeba" else "to download it again"
        raise InputError(
            f"data set '{name}' in '{root}' is damaged: {first_line(error)}", f"delete {present} {action}"
        ) from error
    train, test = splits if image_size is None else (TensorSplit(resize(s.x, image_size), s.y) for s in splits)
    return train, test


def _root_of(name: str, root: Path) -> Path:
    """Returns the folder of all data sets, where `root` may be that of one, such as MNIST/raw or MNIST."""
    for path in map(Path, PATHS[name]):
        if (root / path).exists():
            return root
        for part in (path, *path.parents[:-1]):
            if root.parts[-len(part.parts) :] == part.parts and root.is_dir():
                return root.parents[len(part.parts) - 1]
    return root


def _load(name: str, root: Path) -> tuple[TensorSplit, TensorSplit]:
    """Reads a data set of a few packed files."""
    if name == "cifar10":
        return cifar.load(root)
    if name == "svhn":
        return svhn.load(root)
    return idx.load(name, root)
