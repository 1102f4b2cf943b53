"""CIFAR-10 in its binary version: raw records, unlike the Python version, which is pickled."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from vaezoo.data.base import TensorSplit
from vaezoo.data.download import Remote, fetch
from vaezoo.errors import InputError

FOLDER, ARCHIVE = "cifar-10-batches-bin", "cifar-10-binary.tar.gz"
PICKLED = ("cifar-10-batches-py", "cifar-10-python.tar.gz")
TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = ("test_batch.bin",)
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32  # bytes: the class, then the image
CLASSES = 10
WANTED = {f"{FOLDER}/{name}".encode(): name for name in TRAIN + TEST}  # by their names in the archive
BLOCK = 512  # bytes, the unit of an archive
MAX_BYTES = 2**28  # of all that the archive unpacks to; its files have 184 million

# From tensorflow/datasets, url_checksums/cifar10.txt.
REMOTE = Remote(
    (f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}",),
    170052171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)


def load(root: Path) -> tuple[TensorSplit, TensorSplit]:
    """Reads the folder or the archive of the binary version under `root`; downloads the archive if there is neither.

    Returns:
        The training and the test part: x `(N, 3, 32, 32)`, uint8; y `(N,)`.

    Raises:
        InputError: If only the pickled version is there.
        ValueError: If a file is damaged, among the other errors of `classical.DAMAGE`.
    """
    if (root / FOLDER).exists():
        files: Mapping[str, bytes] = {name: _read_file(root / FOLDER / name) for name in TRAIN + TEST}
    else:
        if not (root / ARCHIVE).exists():
            _refuse_pickles(root)
            fetch(REMOTE, root, ARCHIVE)
        files = _read_archive(root / ARCHIVE)
    return _part(files, TRAIN), _part(files, TEST)


def _refuse_pickles(root: Path) -> None:
    for name in PICKLED:
        if (root / name).exists():
            raise InputError(
                f"'{root / name}' is the version of CIFAR-10 that is pickled, which can run code",
                f"put the binary version, {ARCHIVE}, beside it; or move it away to have that downloaded",
            )


def _part(files: Mapping[str, bytes], names: Sequence[str]) -> TensorSplit:
    """Puts the records of several files together."""
    for name in names:
        if not files.get(name) or len(files[name]) % RECORD:
            raise ValueError(f"{name} has {len(files.get(name, b'')):,} bytes, which are not records of {RECORD:,}")
    records = np.concatenate([np.frombuffer(files[name], np.uint8).reshape(-1, RECORD) for name in names])
    if records[:, 0].max() >= CLASSES:
        raise ValueError(f"{names[0]} or one like it has a class above {CLASSES - 1}")
    x = np.ascontiguousarray(records[:, 1:]).reshape(-1, *SHAPE)
    return TensorSplit(torch.from_numpy(x), torch.from_numpy(records[:, 0].astype(np.int64)))


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"there is no file {path.name}")
    with path.open("rb") as file:
        return file.read(MAX_BYTES)


def _read_archive(path: Path) -> dict[str, bytes]:
    """Reads the files with examples out of the archive, without unpacking any to the disk.

    The format: a block with name, size and type, the file in whole blocks, and so on. tarfile knows more than that
    (long names, sparse files, seeking), and can be kept busy for ever by a header that claims an immense size.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is no file")
    files, left = {}, MAX_BYTES
    with gzip.open(path) as archive:
        while head := archive.read(BLOCK):
            size = int(head[124:136].strip(b"\0 ") or b"0", 8)
            blocks = -(-size // BLOCK)
            left -= BLOCK * (1 + blocks)
            if size < 0 or left < 0:
                raise ValueError(f"{path.name} unpacks to more than {MAX_BYTES:,} bytes")
            content = archive.read(BLOCK * blocks)[:size]
            if len(content) < size:
                raise ValueError(f"{path.name} ends early")
            name = WANTED.get(head[:100].rstrip(b"\0").removeprefix(b"./"))
            if name and head[156:157] in (b"0", b"\0"):  # links and devices are no regular files
                files[name] = content
    return files
