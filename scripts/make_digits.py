"""Makes vaezoo/data/files/digits.npz: `python -m scripts.make_digits MNIST_ROOT OUT.npz`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vaezoo.data.images import idx

TRAIN_PER_CLASS = 1_000
TEST_PER_CLASS = 200


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.make_digits", description=__doc__)
    parser.add_argument("root", metavar="MNIST_ROOT", type=Path, help="the folder that contains MNIST/raw")
    parser.add_argument("out", metavar="OUT.npz", type=Path, help="the file to write")
    args = parser.parse_args()
    make(args.root, args.out)


def make(root: Path, out: Path) -> None:
    """Writes the selection. Two runs write the same bytes.

    Args:
        root: A folder in torchvision's layout, with the decompressed files in `MNIST/raw`.
        out: The .npz file to write.
    """
    raw = root / "MNIST" / "raw"
    arrays: dict[str, npt.NDArray[np.uint8]] = {}
    for split, prefix, per_class in (("train", "train", TRAIN_PER_CLASS), ("test", "t10k", TEST_PER_CLASS)):
        x = idx.read(raw / f"{prefix}-images-idx3-ubyte", idx.IMAGE_DIMS)
        y = idx.read(raw / f"{prefix}-labels-idx1-ubyte", idx.LABEL_DIMS)
        index = select(y, per_class)
        arrays |= {f"x_{split}": x[index], f"y_{split}": y[index]}
    np.savez_compressed(out, allow_pickle=False, **arrays)


def select(labels: npt.NDArray[np.uint8], per_class: int) -> npt.NDArray[np.int64]:
    """Selects `per_class` examples of each class, evenly spaced over the class and not random.

    Returns:
        Their indices in ascending order, so that the classes stay mixed as in the original.
    """
    selected = []
    for label in np.unique(labels):
        indices = np.flatnonzero(labels == label)
        selected.append(indices[np.arange(per_class) * len(indices) // per_class])
    return np.sort(np.concatenate(selected))


if __name__ == "__main__":
    main()
