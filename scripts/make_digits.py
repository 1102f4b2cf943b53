"""The script that made files/digits.npz: `python -m scripts.make_digits MNIST_ROOT OUT.npz`."""

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
    parser.add_argument("root", metavar="MNIST_ROOT", type=Path, help="the folder that holds MNIST/raw")
    parser.add_argument("out", metavar="OUT.npz", type=Path)
    args = parser.parse_args()
    make(args.root, args.out)


def make(root: Path, out: Path) -> None:
    """Writes the selection; two runs write the same bytes.

    Args:
        root: A folder as torchvision lays it out, with the decompressed files in `MNIST/raw`.
        out: The file to write, `.npz`.
    """
    arrays: dict[str, npt.NDArray[np.uint8]] = {}
    for part, prefix, per_class in (("train", "train", TRAIN_PER_CLASS), ("test", "t10k", TEST_PER_CLASS)):
        raw = root / "MNIST" / "raw"
        x, y = idx.read(raw / f"{prefix}-images-idx3-ubyte", 3), idx.read(raw / f"{prefix}-labels-idx1-ubyte", 1)
        index = select(y, per_class)
        arrays |= {f"x_{part}": x[index], f"y_{part}": y[index]}
    np.savez_compressed(out, allow_pickle=False, **arrays)


def select(labels: npt.NDArray[np.uint8], per_class: int) -> npt.NDArray[np.int64]:
    """Picks `per_class` examples of each class, evenly spaced over the class, without chance.

    Returns:
        Their indices in ascending order, so that the classes stay mixed as they were.
    """
    picks = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        picks.append(places[np.arange(per_class) * len(places) // per_class])
    return np.sort(np.concatenate(picks))


if __name__ == "__main__":
    main()
