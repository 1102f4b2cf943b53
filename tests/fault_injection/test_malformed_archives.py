"""The archives of the standard data sets: truncated, damaged and malicious. Nothing is unpacked to the disk."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from vaezoo.data import download
from vaezoo.data.base import TensorSplit
from vaezoo.data.images import cifar, standard_sets
from vaezoo.errors import InputError

RNG = np.random.default_rng(0)
GOOD = {f"{cifar.FOLDER}/{name}": bytes([i]) + RNG.bytes(3072) for i, name in enumerate(cifar.TRAIN + cifar.TEST)}
FIRST = f"{cifar.FOLDER}/{cifar.TRAIN[0]}"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "URL_PREFIXES", ("nothing at all",))


class Canary:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def tar(*members: tuple[tarfile.TarInfo, bytes], compressed: bool = True) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(stream.getvalue(), 1) if compressed else stream.getvalue()


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = len(content), kind, link, 0o777
    return info, content


def good_members(without: str = "") -> list[tuple]:
    return [member(name, content) for name, content in GOOD.items() if name != without]


def load(root: Path, content: bytes) -> tuple[TensorSplit, TensorSplit]:
    """Reads CIFAR-10 from an archive. Asserts that no other files appear, with or without an error."""
    folder = root / "a" / "b"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / cifar.ARCHIVE).write_bytes(content)
    try:
        return standard_sets.load("cifar10", folder, None)
    finally:
        assert [path for path in root.rglob("*") if not path.is_dir()] == [folder / cifar.ARCHIVE]


# Members that are ignored beside the expected ones.
EXTRA = {
    "outside": member("../../evil", b"x"),
    "absolute": member("/tmp/vaezoo-evil", b"x"),
    "outside, by the folder": member(f"{cifar.FOLDER}/../../evil", b"x"),
    "link outside": member("link", kind=tarfile.SYMTYPE, link="/etc"),
    "hard link": member("hard", kind=tarfile.LNKTYPE, link="/etc/passwd"),
    "device": member("null", kind=tarfile.CHRTYPE),
    "block device": member("disk", kind=tarfile.BLKTYPE),
    "pipe": member("pipe", kind=tarfile.FIFOTYPE),
    "folder": member("folder", kind=tarfile.DIRTYPE),
    "its own folder as a link": member(cifar.FOLDER, kind=tarfile.SYMTYPE, link="/tmp"),
    "newline": member("new\nline", b"x"),
    "pickle": member(f"{cifar.FOLDER}/data_batch_1", b"cos\nsystem\n."),
}


@pytest.mark.parametrize("extra", EXTRA.values(), ids=EXTRA.keys())
def test_extra_members_are_ignored(tmp_path: Path, extra: tuple) -> None:
    train, test = load(tmp_path, tar(extra, *good_members(), extra))
    assert train.x.numpy().tobytes() == b"".join(GOOD[f"{cifar.FOLDER}/{name}"][1:] for name in cifar.TRAIN)
    assert test.y is not None and test.y.tolist() == [5]
    assert not Path("/tmp/vaezoo-evil").exists()


# Members that are errors in place of an expected one.
REPLACEMENT = {
    "missing": member("nothing"),
    "link": member(FIRST, GOOD[FIRST], kind=tarfile.SYMTYPE, link="/etc/passwd"),
    "hard link": member(FIRST, GOOD[FIRST], kind=tarfile.LNKTYPE, link=f"{cifar.FOLDER}/{cifar.TEST[0]}"),
    "device": member(FIRST, GOOD[FIRST], kind=tarfile.CHRTYPE),
    "pipe": member(FIRST, GOOD[FIRST], kind=tarfile.FIFOTYPE),
    "folder": member(FIRST, GOOD[FIRST], kind=tarfile.DIRTYPE),
    "empty": member(FIRST),
    "no records": member(FIRST, bytes(3072)),
    "another class": member(FIRST, b"\xff" * 3073),
    "pickle": member(FIRST, pickle.dumps(Canary(Path("/tmp/vaezoo-evil")))),
    "other place": member(f"../{FIRST}", GOOD[FIRST]),
}


@pytest.mark.parametrize("replacement", REPLACEMENT.values(), ids=REPLACEMENT.keys())
def test_wrong_members(tmp_path: Path, replacement: tuple) -> None:
    with pytest.raises(InputError, match=r"'cifar10' in .* is damaged: .*data_batch_1.bin"):
        load(tmp_path, tar(replacement, *good_members(FIRST)))
    assert not Path("/tmp/vaezoo-evil").exists()


def zeros(count: int) -> bytes:
    """Returns megabytes of zeros, compressed to a thousandth."""
    return gzip.compress(bytes(2**20)) * count


def declaring(size: int) -> bytes:
    """Returns an archive whose first member declares a size."""
    info, _ = member(FIRST)
    info.size = size
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def chain(kind: bytes) -> bytes:
    """Returns headers that each announce a long name of the next one. tarfile recurses for each."""
    block = member("x", b"name", kind)[0].tobuf(tarfile.GNU_FORMAT) + b"name".ljust(512, b"\0")
    return gzip.compress(block * 3000)


def long_name(size: int) -> bytes:
    """Returns a header that announces a name of gigabytes, and zeros."""
    info, _ = member("x", kind=tarfile.GNUTYPE_LONGNAME)
    info.size = size
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT)) + zeros(300)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"<html>404</html>",
    "not compressed": lambda: tar(*good_members(), compressed=False),
    "compressed nothing": lambda: gzip.compress(b""),
    "compressed text": lambda: gzip.compress(b"hello" * 1000),
    "compressed twice": lambda: gzip.compress(tar(*good_members())),
    "a pickle": lambda: pickle.dumps(Canary(Path("/tmp/vaezoo-evil"))),
    "a compressed pickle": lambda: gzip.compress(pickle.dumps(Canary(Path("/tmp/vaezoo-evil")))),
    "truncated": lambda: tar(*good_members())[:-40],
    "other checksum": lambda: tar(*good_members())[:-8] + bytes(8),
    "declares 8 GB": lambda: declaring(2**33 - 1),
    "declares too much": lambda: declaring(2**62),
    "declares a negative size": lambda: declaring(-(2**20)),
    "bomb": lambda: tar(member("zeros", bytes(512))) + zeros(300),
    "bomb as a member": lambda: declaring(2**33 - 1) + zeros(300),
    "bomb of a name": lambda: long_name(2**32),
    "chain of names": lambda: chain(tarfile.GNUTYPE_LONGNAME),
    "chain of headers": lambda: chain(tarfile.XHDTYPE),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_malformed_archives(tmp_path: Path, make: Callable[[], bytes]) -> None:
    with pytest.raises(InputError, match=r"'cifar10' in .* is damaged"):
        load(tmp_path, make())
    assert not Path("/tmp/vaezoo-evil").exists()


def test_unpacking_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = 0

    class Counting(gzip.GzipFile):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal unpacked
            data = super().read(size)
            unpacked += len(data)
            return data

    monkeypatch.setattr(gzip, "open", lambda path: Counting(path, "rb"))
    monkeypatch.setattr(cifar, "MAX_BYTES", 2**20)
    negative_size = bytearray(member(FIRST)[0].tobuf(tarfile.GNU_FORMAT))
    negative_size[124:136] = b"-0000001000\0"
    for content in (long_name(2**32), declaring(2**33 - 1) + zeros(300), gzip.compress(negative_size) + zeros(300)):
        unpacked = 0
        with pytest.raises(InputError, match="unpacks to more than"):
            load(tmp_path, content)
        assert 0 < unpacked <= 2**20 + 1


def test_truncated_member(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ends early"):
        load(tmp_path, gzip.compress(tar(*good_members(), compressed=False)[:2000]))


def test_idx_bomb(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    head = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (2, 3, 3))
    (raw / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head) + zeros(4096))  # 4 GiB in 4 MB
    with pytest.raises(InputError, match="more than the 18 numbers of its header"):
        standard_sets.load("mnist", tmp_path, None)


# --- truncation and random damage


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A small data set in the IDX format, compressed."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        head = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (9, 5, 5))
        (raw / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + RNG.bytes(225)))
        head = bytes([0, 0, 8, 1]) + (9).to_bytes(4, "big")
        (raw / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + bytes(range(9))))
    return tmp_path


def damaged(content: bytes, count: int) -> Iterator[bytes]:
    rng = np.random.default_rng(3)
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(rng.integers(1, 6)):
            changed[rng.integers(len(changed))] = rng.integers(256)
        yield bytes(changed)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_truncated_at_any_byte(mnist: Path, name: str) -> None:
    path = mnist / "MNIST" / "raw" / name
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(InputError, match="is damaged"):
            standard_sets.load("mnist", mnist, None)
    path.write_bytes(content)
    assert len(standard_sets.load("mnist", mnist, None)[0]) == 9


@pytest.mark.parametrize("compressed", [False, True])
def test_random_damage_in_idx(mnist: Path, compressed: bool) -> None:
    path = mnist / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    for changed in damaged(content if compressed else gzip.decompress(content), 1000):
        path.write_bytes(changed if compressed else gzip.compress(changed, 1))
        try:
            standard_sets.load("mnist", mnist, None)
        except InputError as error:
            assert "is damaged" in error.message


def test_random_damage_in_archive(tmp_path: Path) -> None:
    content = tar(*[member(name, content[:600]) for name, content in GOOD.items()], compressed=False)
    for changed in damaged(content, 2000):
        with pytest.raises(InputError, match="is damaged"):
            load(tmp_path, gzip.compress(changed, 1))
