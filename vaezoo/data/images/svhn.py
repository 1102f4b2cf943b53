"""SVHN, house numbers: two files in MATLAB's format, which scipy reads."""

from __future__ import annotations

import hashlib
import importlib
import io
from pathlib import Path

import numpy as np
import torch

from vaezoo.data.base import TensorSplit
from vaezoo.data.download import Remote, fetch
from vaezoo.errors import VaezooError, first_line

SHAPE = (32, 32, 3)

# From tensorflow/datasets, url_checksums/svhn_cropped.txt. The URLs there are the same, but without https.
FILES = {
    "train_32x32.mat": Remote(
        ("https://ufldl.stanford.edu/housenumbers/train_32x32.mat",),
        182040794,
        "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    ),
    "test_32x32.mat": Remote(
        ("https://ufldl.stanford.edu/housenumbers/test_32x32.mat",),
        64275384,
        "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    ),
}


def load(root: Path) -> tuple[TensorSplit, TensorSplit]:
    """Reads the two files under `root`. Downloads those that are missing.

    Returns:
        The training split and the test split. x is `(N, 3, 32, 32)`, uint8. y is `(N,)`, the digit.

    Raises:
        VaezooError: If scipy is missing.
        ValueError: If a file is not the official one. Other files are rejected, because scipy's reader is not safe for
            untrusted input.
    """
    try:
        importlib.import_module("scipy.io")
    except ImportError as error:
        raise VaezooError(
            f"data set 'svhn' needs the package scipy: {first_line(error)}", "pip install scipy"
        ) from error
    train, test = (_load_split(root, name, remote) for name, remote in FILES.items())
    return train, test


def _load_split(root: Path, name: str, remote: Remote) -> TensorSplit:
    path = root / name
    if not path.exists():
        fetch(remote, root, name)
    if not path.is_file() or path.stat().st_size != remote.size:
        raise ValueError(f"{name} does not have the {remote.size:,} bytes of the official file")
    data = path.read_bytes()  # read once, so that the bytes with the right hash are the ones that are parsed
    if hashlib.sha256(data).hexdigest() != remote.sha256:
        raise ValueError(f"{name} is not the official file: its SHA-256 differs")
    arrays = importlib.import_module("scipy.io").loadmat(io.BytesIO(data), variable_names=("X", "y"))
    x, y = arrays["X"], arrays["y"].reshape(-1).astype(np.int64)
    if x.dtype != np.uint8 or x.shape != (*SHAPE, len(y)):
        raise ValueError(f"{name} has images of shape {x.shape} for {len(y):,} labels")
    # The digit 0 has the label 10.
    return TensorSplit(torch.from_numpy(np.ascontiguousarray(x.transpose(3, 2, 0, 1))), torch.from_numpy(y % 10))
