"""The packaged data set: 12,000 of the MNIST digits, so that a first run needs no network."""

from __future__ import annotations

from importlib import resources

import numpy as np
import torch

from vaezoo.data.base import TensorSplit
from vaezoo.data.images.decode import resize

FILE = "digits.npz"


def load(size: int | None = None) -> tuple[TensorSplit, TensorSplit]:
    """Reads the packaged digits: 1,000 of each class to train with and 200 of each to test with.

    Args:
        size: Height and width to bring them to, in pixels; None leaves them 28.

    Returns:
        The training and the test part: x `(10000, 1, 28, 28)` and `(2000, 1, 28, 28)`, uint8, white
        on black; y `(N,)`, the digit. The classes are mixed, in the order of the official files.
    """
    with (
        resources.as_file(resources.files("vaezoo.data") / "files" / FILE) as path,
        np.load(path, allow_pickle=False) as arrays,
    ):
        parts = [
            TensorSplit(
                torch.from_numpy(arrays[f"x_{part}"]).unsqueeze(1), torch.from_numpy(arrays[f"y_{part}"]).long()
            )
            for part in ("train", "test")
        ]
    train, test = parts if size is None else (TensorSplit(resize(part.x, size), part.y) for part in parts)
    return train, test
