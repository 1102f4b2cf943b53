"""The classical data sets that torchvision reads and downloads."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import queue
import socket
import tempfile
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Protocol

import numpy.typing as npt
import torch
from torch import Tensor

from vaezoo.data.base import Split
from vaezoo.data.pictures import read_pictures, resize
from vaezoo.errors import InputError, StorageError, VaezooError

TIMEOUT = 15.0  # seconds without an answer after which a download fails
FACE_SIZE = 64  # pixels; CelebA comes as 178 x 218, and papers use 64 x 64


@dataclass(frozen=True, slots=True)
class _Source:
    """A class of torchvision.datasets, the files or folders it keeps under its root, and where it gets them."""

    kind: str
    entries: tuple[str, ...]
    url: str


class _Found(Protocol):
    """What torchvision's data sets hold, untyped there; each class has some of it."""

    data: npt.ArrayLike
    targets: npt.ArrayLike
    labels: npt.ArrayLike
    base_folder: str
    filename: Sequence[str]
    attr: Tensor


_SOURCES = {
    "mnist": _Source("MNIST", ("MNIST/raw",), "https://ossci-datasets.s3.amazonaws.com"),
    "fashion-mnist": _Source(
        "FashionMNIST", ("FashionMNIST/raw",), "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
    ),
    "kmnist": _Source("KMNIST", ("KMNIST/raw",), "http://codh.rois.ac.jp"),
    "cifar10": _Source("CIFAR10", ("cifar-10-batches-py",), "https://www.cs.toronto.edu"),
    "svhn": _Source("SVHN", ("train_32x32.mat", "test_32x32.mat"), "http://ufldl.stanford.edu"),
    "celeba": _Source("CelebA", ("celeba",), "https://drive.google.com"),
}
NAMES = tuple(_SOURCES)


def load(name: str, root: Path, size: int | None) -> tuple[Split, Split]:
    """Reads one of the sets from `root`; downloads it to there first if it is not there.

    Args:
        name: One of `NAMES`.
        root: The folder under which torchvision keeps the set.
        size: Height and width to bring the pictures to, in pixels. None leaves them as they are; the faces
            of CelebA are cut to their middle and brought to 64.

    Returns:
        The official training and test parts: x `(N, channels, height, width)`, uint8; y `(N,)`, the class,
        or `(N, 40)`, the attributes of CelebA, 0 or 1.

    Raises:
        InputError: If the set is neither there nor can be downloaded, or its files are damaged.
        StorageError: If there is no room or no permission to write it to `root`.
        VaezooError: If a package is missing that it needs.
    """
    source = _SOURCES[name]
    for package in ("torchvision", "scipy") if name == "svhn" else ("torchvision",):
        _require(package, name)
    missing = [entry for entry in source.entries if not (root / entry).exists()]
    if missing:
        _download(name, root, missing)
    return _read(name, root, "train", size), _read(name, root, "test", size)


def _require(package: str, name: str) -> None:
    """Imports a package that the data set `name` needs."""
    try:
        importlib.import_module(package)
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: torchvision was built for another PyTorch
        raise VaezooError(
            f"data set '{name}' needs the package {package}: {_reason(error)}", f"pip install {package}"
        ) from error


def _read(name: str, root: Path, part: str, size: int | None) -> Split:
    """Reads one part of a set that lies under `root`."""
    source = _SOURCES[name]
    where = [str(root / entry) for entry in source.entries]
    try:
        x, y = _examples(source.kind, root, part, size)
        if len(x) != len(y) or len(x) == 0:
            raise ValueError(f"{len(x)} pictures and {len(y)} labels")
    except VaezooError:
        raise
    except Exception as error:  # torchvision's readers index, assert and unpack what they find: any error means damage
        raise InputError(
            f"data set '{name}' in '{root}' is damaged or incomplete: {_reason(error)}",
            f"delete {' and '.join(where)} to have it downloaded again",
        ) from error
    return Split(x if size is None else resize(x, size), y)


def _examples(kind: str, root: Path, part: str, size: int | None) -> tuple[Tensor, Tensor]:
    """Returns the pictures, `(N, channels, height, width)`, uint8, and the labels, int64, of one part."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of the old format of CIFAR-10
        found = _open(kind, root, part, download=False)
    if kind == "CelebA":
        # The shorter side of 178 pixels is kept whole: the crop that papers use.
        folder = root / found.base_folder / "img_align_celeba"
        return read_pictures([folder / name for name in found.filename], folder, size or FACE_SIZE), found.attr.long()
    x = torch.as_tensor(found.data).contiguous()
    y = torch.as_tensor(found.labels if kind == "SVHN" else found.targets).long()
    if x.ndim == 3:
        x = x.unsqueeze(1)
    return x.permute(0, 3, 1, 2).contiguous() if kind == "CIFAR10" else x, y


def _open(kind: str, root: Path, part: str, download: bool) -> _Found:
    """Returns torchvision's data set. It checks MD5 sums, of CIFAR-10 before it unpickles."""
    make = getattr(importlib.import_module("torchvision.datasets"), kind)
    split = {"split": part} if kind in ("SVHN", "CelebA") else {"train": part == "train"}
    found: _Found = make(root, download=download, **split)
    return found


def _download(name: str, root: Path, missing: list[str]) -> None:
    """Downloads a set into a temporary folder in `root` and moves what was missing to its place when all is there."""
    source = _SOURCES[name]
    try:
        _check_network(source.url)
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root, ignore_cleanup_errors=True) as folder:
            with _silence():
                for part in ("train", "test"):
                    _open(source.kind, Path(folder), part, download=True)
            for entry in missing:
                _move(Path(folder) / entry, root / entry)
    except Exception as error:  # urllib, gdown, zipfile, tarfile and torchvision each raise their own
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise StorageError(
                f"data set '{name}' cannot be written to '{root}': {os.strerror(error.errno)}",
                "pass --data-dir with a folder that has room and can be written to",
            ) from error
        raise InputError(
            f"data set '{name}' is not in '{root}' and cannot be downloaded: {_reason(error)}",
            f"pass --data-dir with the folder that holds {missing[0]}, or connect to a network",
        ) from error


def _check_network(url: str) -> None:
    """Waits until `url` answers, with whatever, or raises within `TIMEOUT` seconds.

    In a thread, because a name may stand for eight addresses that are each waited for where a firewall
    swallows what is sent; and gdown, which fetches CelebA, would wait without end.
    """
    outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT).close()
        except urllib.error.HTTPError:
            outcome.put(None)
        except (OSError, HTTPException) as error:
            outcome.put(error)
        else:
            outcome.put(None)

    threading.Thread(target=ask, daemon=True).start()
    try:
        error = outcome.get(timeout=TIMEOUT)
    except queue.Empty:
        error = TimeoutError(f"no answer from {url}")
    if error is not None:
        raise error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Swallows torchvision's progress and bounds its waiting, for which it has no settings."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _move(source: Path, target: Path) -> None:
    """Renames within a file system; done too if another process has put the same there in the meantime."""
    target.parent.mkdir(exist_ok=True)
    try:
        source.rename(target)
    except OSError:
        if not target.exists():
            raise


def _reason(error: Exception) -> str:
    """Returns the last line of an error: torchvision lists what it tried and ends with why it failed."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return line.removesuffix(". You can use download=True to download it")
