"""The data sets in the IDX format: MNIST, Fashion-MNIST and KMNIST."""

from __future__ import annotations

import gzip
import io
import math
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from vaezoo.data.base import TensorSplit
from vaezoo.data.download import Remote, fetch

PREFIXES = ("train", "t10k")
LABEL_DIMS, IMAGE_DIMS = 1, 3
MAX_BYTES = 2**30  # in one unpacked file; MNIST's largest has 47 million

# The sizes and hashes are from tensorflow/datasets (url_checksums/mnist.txt, fashion_mnist.txt, kmnist.txt). The https
# URLs are from the same lists, torchvision, Keras (datasets/fashion_mnist.py) and torch.rb.
FOLDERS = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw", "kmnist": "KMNIST/raw"}
HOSTS = {
    "mnist": ("https://storage.googleapis.com/cvdf-datasets/mnist", "https://ossci-datasets.s3.amazonaws.com/mnist"),
    "fashion-mnist": ("https://storage.googleapis.com/tensorflow/tf-keras-datasets",),
    "kmnist": ("https://codh.rois.ac.jp/kmnist/dataset/kmnist",),
}
FILES = {
    "mnist": {
        "train-images-idx3-ubyte": (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        "train-labels-idx1-ubyte": (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        "t10k-images-idx3-ubyte": (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        "t10k-labels-idx1-ubyte": (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        "train-labels-idx1-ubyte": (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        "t10k-images-idx3-ubyte": (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        "t10k-labels-idx1-ubyte": (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    },
    "kmnist": {
        "train-images-idx3-ubyte": (18165135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
        "train-labels-idx1-ubyte": (29497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
        "t10k-images-idx3-ubyte": (3041136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
        "t10k-labels-idx1-ubyte": (5120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
    },
}


def load(name: str, root: Path) -> tuple[TensorSplit, TensorSplit]:
    """Reads one of the data sets from its folder in `FOLDERS`. Each file may be compressed with gzip.

    Missing files are downloaded.

    Args:
        name: mnist, fashion-mnist or kmnist.
        root: The folder that contains the folder of the data set.

    Returns:
        The training split and the test split. x is `(N, 1, height, width)`, uint8. y is `(N,)`.

    Raises:
        ValueError: If a file is damaged. Also the other errors of `standard_sets.READ_ERRORS`.
    """
    train, test = (_load_split(name, root, prefix) for prefix in PREFIXES)
    return train, test


def _load_split(name: str, root: Path, prefix: str) -> TensorSplit:
    x = read(_find(name, root, f"{prefix}-images-idx3-ubyte"), IMAGE_DIMS)
    y = read(_find(name, root, f"{prefix}-labels-idx1-ubyte"), LABEL_DIMS)
    if len(x) != len(y):
        raise ValueError(f"{len(x):,} images and {len(y):,} labels")
    return TensorSplit(torch.from_numpy(x).unsqueeze(1), torch.from_numpy(y).long())


def _find(name: str, root: Path, file: str) -> Path:
    """Returns the path of a file of a data set. Downloads it if it is missing."""
    plain, packed = root / FOLDERS[name] / file, root / FOLDERS[name] / f"{file}.gz"
    if plain.exists():
        return plain
    if not packed.exists():
        size, sha256 = FILES[name][file]
        remote = Remote(tuple(f"{host}/{file}.gz" for host in HOSTS[name]), size, sha256)
        fetch(remote, root, f"{FOLDERS[name]}/{file}.gz")
    return packed


def read(path: Path, dims: int) -> npt.NDArray[np.uint8]:
    """Reads a file of bytes in the IDX format. A file with the suffix .gz is decompressed.

    The format: two zeros, the type, the number of dimensions, each dimension in 4 bytes, then the numbers.

    Raises:
        ValueError: If it is damaged or has another format. Also the errors of the decompressor.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is not a file")
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            return _read(file, dims)
        except (EOFError, ValueError, OSError) as error:
            raise ValueError(f"{path.name}: {error}") from error


def _read(file: io.BufferedIOBase, dims: int) -> npt.NDArray[np.uint8]:
    header = file.read(4 * (1 + dims))
    if len(header) < 4 * (1 + dims) or header[:4] != bytes([0, 0, 8, dims]):
        raise ValueError("not in the IDX format")
    shape = struct.unpack(f">{dims}I", header[4:])
    count = math.prod(shape)
    if not 0 < count <= MAX_BYTES:
        raise ValueError(f"its header declares the shape {shape}")
    numbers = np.empty(count, dtype=np.uint8)
    actual = file.readinto(numbers.data)
    if actual < count or file.read(1):  # reads at most one byte more than declared, however much the file unpacks to
        raise ValueError(f"it has {'fewer' if actual < count else 'more'} than the {count:,} numbers of its header")
    return numbers.reshape(shape)
