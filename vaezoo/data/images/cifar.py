"""CIFAR-10 in its binary version of raw records. The Python version is pickled."""

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
RECORD_BYTES = 1 + 3 * 32 * 32  # the class, then the image
CLASSES = 10
MEMBERS = {f"{FOLDER}/{name}".encode(): name for name in TRAIN + TEST}  # by their names in the archive
BLOCK_SIZE = 512  # bytes, the unit of a tar archive
MAX_BYTES = 2**28  # of the unpacked archive; its files have 184 million

# From tensorflow/datasets, url_checksums/cifar10.txt.
REMOTE = Remote(
    (f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}",),
    170052171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)


def load(root: Path) -> tuple[TensorSplit, TensorSplit]:
    """Reads the folder or the archive of the binary version under `root`. Downloads the archive if both are missing.

    Returns:
        The training split and the test split. x is `(N, 3, 32, 32)`, uint8. y is `(N,)`.

    Raises:
        InputError: If only the pickled version is there.
        ValueError: If a file is damaged. Also the other errors of `standard_sets.READ_ERRORS`.
    """
    if (root / FOLDER).exists():
        files: Mapping[str, bytes] = {name: _read_file(root / FOLDER / name) for name in TRAIN + TEST}
    else:
        if not (root / ARCHIVE).exists():
            _reject_pickles(root)
            fetch(REMOTE, root, ARCHIVE)
        files = _read_archive(root / ARCHIVE)
    return _to_split(files, TRAIN), _to_split(files, TEST)


def _reject_pickles(root: Path) -> None:
    for name in PICKLED:
        if (root / name).exists():
            raise InputError(
                f"'{root / name}' is the pickled version of CIFAR-10, which can run code",
                f"put the binary version, {ARCHIVE}, beside it, or move it away to download the binary version",
            )


def _to_split(files: Mapping[str, bytes], names: Sequence[str]) -> TensorSplit:
    """Concatenates the records of several files."""
    for name in names:
        size = len(files.get(name, b""))
        if size == 0 or size % RECORD_BYTES:
            raise ValueError(f"{name} has {size:,} bytes, which are not records of {RECORD_BYTES:,} bytes")
    records = np.concatenate([np.frombuffer(files[name], np.uint8).reshape(-1, RECORD_BYTES) for name in names])
    if records[:, 0].max() >= CLASSES:
        raise ValueError(f"one of {', '.join(names)} has a class above {CLASSES - 1}")
    x = np.ascontiguousarray(records[:, 1:]).reshape(-1, *SHAPE)
    return TensorSplit(torch.from_numpy(x), torch.from_numpy(records[:, 0].astype(np.int64)))


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"there is no file {path.name}")
    with path.open("rb") as file:
        return file.read(MAX_BYTES)


def _read_archive(path: Path) -> dict[str, bytes]:
    """Reads the example files from the archive without unpacking to the disk.

    A tar archive is a sequence of members: one block with the name, size and type, then the file in whole blocks. The
    module tarfile supports more (long names, sparse files, seeking). There a header that declares a huge size can keep
    it busy for ever.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is not a file")
    files, remaining = {}, MAX_BYTES
    with gzip.open(path) as archive:
        while header := archive.read(BLOCK_SIZE):
            size = int(header[124:136].strip(b"\0 ") or b"0", 8)
            blocks = -(-size // BLOCK_SIZE)
            remaining -= BLOCK_SIZE * (1 + blocks)
            if size < 0 or remaining < 0:
                raise ValueError(f"{path.name} unpacks to more than {MAX_BYTES:,} bytes")
            content = archive.read(BLOCK_SIZE * blocks)[:size]
            if len(content) < size:
                raise ValueError(f"{path.name} ends early")
            name = MEMBERS.get(header[:100].rstrip(b"\0").removeprefix(b"./"))
            if name and header[156:157] in (b"0", b"\0"):  # regular files; links and devices have other types
                files[name] = content
    return files
