"""The packaged data set: 12,000 digits of MNIST, so that a first run needs no network."""

from __future__ import annotations

from importlib import resources

import numpy as np
import torch

from vaezoo.data.base import ImageSize, TensorSplit
from vaezoo.data.images.decode import resize

FILE = "digits.npz"


def load(image_size: ImageSize | None = None) -> tuple[TensorSplit, TensorSplit]:
    """Reads the packaged digits: 1,000 of each class for training and 200 of each for testing.

    Args:
        image_size: Height and width to resize them to, in pixels. None keeps 28.

    Returns:
        The training split and the test split. x is `(10000, 1, 28, 28)` and `(2000, 1, 28, 28)`, uint8, white on black.
        y is `(N,)`, the digit. The classes are mixed, in the order of the official files.
    """
    with (
        resources.as_file(resources.files("vaezoo.data") / "files" / FILE) as path,
        np.load(path, allow_pickle=False) as arrays,
    ):
        splits = [
            TensorSplit(
                torch.from_numpy(arrays[f"x_{name}"]).unsqueeze(1), torch.from_numpy(arrays[f"y_{name}"]).long()
            )
            for name in ("train", "test")
        ]
    train, test = splits if image_size is None else (TensorSplit(resize(s.x, image_size), s.y) for s in splits)
    return train, test
