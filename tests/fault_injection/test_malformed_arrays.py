"""Damaged and forged array files: each is read, or raises an InputError that names it."""

from __future__ import annotations

import io
import os
import pickle
import re
import resource
import socket
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from vaezoo.data import npy
from vaezoo.data.load import load_data
from vaezoo.errors import InputError, VaezooError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (20, 5, 5), dtype=np.uint8)
CANARY = Path("/tmp/vaezoo-evil")


class Canary:
    """An object whose unpickling makes a file."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(CANARY), "w")


OBJECTS = np.array([Canary(), Canary()], dtype=object)


def saved(x: npt.NDArray[np.generic], version: tuple[int, int] = (1, 0)) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns about format 2.0
        np.lib.format.write_array(stream, x, version=version)
    return stream.getvalue()


def forged(shape: str, data: bytes = b"", dtype: str = "'<f4'", order: str = "False", more: str = "") -> bytes:
    """Returns an array file with any header."""
    header = f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, {more}}}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def declaring(size: int) -> bytes:
    """Returns a .npz file whose directory and header declare an array of `size` bytes. It has 8."""
    content = bytearray(zipped({"x.npy": forged(f"({size - 128},)", b"\0" * 8, "'|u1'")}, zipfile.ZIP_STORED))
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = struct.pack("<I", size)
    return bytes(content)


def same_name_twice(first: bytes, second: bytes) -> bytes:
    """Returns a .npz file with two members of the same name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("x.npy", first)
        archive.writestr("x.npy", second)
    return stream.getvalue()


def with_header_byte(offset: int, value: int) -> bytes:
    """Returns a .npz file with one byte of the member's header changed, also in the directory."""
    content = bytearray(zipped({"x.npy": saved(X)}))
    content[offset] = value
    content[content.index(b"PK\x01\x02") + offset + 2] = value
    return bytes(content)


GOOD, LABELS = saved(X), saved(np.arange(20))
READ = "read"
CALL = "__import__('builtins').open('/tmp/vaezoo-evil', 'w')"

# The content of a .npy file and the reason why it is refused, or READ. Each is tried as a .npy file, as a member of a
# .npz file and as a .npz file itself.
FORGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "."),
    "text": (b"hello, this is no array at all", "."),
    "zeros": (bytes(1000), "."),
    "pickle": (pickle.dumps(Canary()), "."),
    "pickled array": (OBJECTS.dumps(), "."),
    "objects": (b"\x93NUMPY\x01\x00" + b"v\0" + b"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }".ljust(118)
                + pickle.dumps(Canary()), "Python objects"),
    "cut magic": (GOOD[:5], "."),
    "cut header": (GOOD[:50], "."),
    "only a header": (GOOD[:128], "500 bytes of numbers and it has 0"),
    "version 0": (GOOD[:6] + b"\0\0" + GOOD[8:], "."),
    "version 3": (saved(X, (3, 0)), "format version 3.0"),
    "version 255": (GOOD[:6] + b"\xff\xff" + GOOD[8:], "format version 255"),
    "terabytes": (forged("(1000000, 1000000)"), "4,000,000,000,000 bytes of numbers and it has 0"),
    "more than there are numbers": (forged("(9999999999999999999999, 9999999999999999999999)"), "."),
    "negative shape": (forged("(-1, -4)", bytes(16)), "."),
    "negative and nothing": (forged("(-1, 0)"), "."),
    "shape of fractions": (forged("(2.0, 2)", bytes(16)), "."),
    "shape of text": (forged("('2', 2)", bytes(16)), "."),
    "shape is no tuple": (forged("4", bytes(16)), "."),
    "shape of truths": (forged("(True, 4)", bytes(16)), "."),
    "a hundred dimensions": (forged(str((1,) * 99), bytes(4)), "."),
    "none of an immense size": (forged("(0, 10000000000)"), r"shape \(0, 10000000000\)"),
    "short by one byte": (forged("(4, 2)", bytes(31)), "32 bytes of numbers and it has 31"),
    "long by one byte": (forged("(4, 2)", bytes(33)), "32 bytes of numbers and it has 33"),
    "text array": (forged("(2, 2)", bytes(16), "'<U1'"), "not numbers"),
    "void array": (forged("(2, 2)", bytes(16), "'|V4'"), "not numbers"),
    "dates": (forged("(2, 1)", bytes(16), "'<M8[s]'"), "not numbers"),
    "complex": (forged("(2, 1)", bytes(16), "'<c8'"), "not numbers"),
    "records": (saved(np.zeros(3, dtype=[("a", "f4")])), "not numbers"),
    "records of objects": (forged("(2,)", bytes(16), "[('a', '|O')]"), "Python objects"),
    "arrays in an array": (forged("(2,)", bytes(16), "('<f4', (2,))"), "."),
    "unknown type": (forged("(2, 2)", bytes(16), "'<q9'"), "."),
    "type is a call": (forged("(2, 2)", bytes(16), CALL), "."),
    "shape is a call": (forged(CALL, bytes(16)), "."),
    "a word too many": (forged("(2, 2)", bytes(16), more="'more': 1"), "."),
    "order is text": (forged("(2, 2)", bytes(16), order="'no'"), "."),
    "endless header": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 100_000, "."),
    "header of 60,000 spaces": (b"\x93NUMPY\x01\x00" + (60_000).to_bytes(2, "little") + b" " * 60_000, "."),
    "deep header": (b"\x93NUMPY\x01\x00" + (9000).to_bytes(2, "little") + b"(" * 9000, "."),
    "header of minus signs": (b"\x93NUMPY\x01\x00" + (9000).to_bytes(2, "little") + b"-" * 8999 + b"1", "."),
    "header is no text": (b"\x93NUMPY\x01\x00" + (100).to_bytes(2, "little") + bytes(range(100, 200)), "."),
    "NaN": (saved(np.full((4, 4), np.nan)), "NaN or infinite"),
    "infinity": (saved(np.array([[0, 1], [np.inf, 0.5]])), "NaN or infinite"),
    "NaN in halves": (saved(np.full((4, 4), np.nan, "f2")), "NaN or infinite"),
    "out of range": (saved(np.full((4, 4), 1e300)), "values from 1e"),
    "no dimension": (saved(np.array(0.5)), r"shape \(\)"),
    "one dimension": (saved(np.zeros(20)), r"shape \(20,\)"),
    "five dimensions": (saved(np.zeros((4, 1, 1, 4, 4))), r"shape \(4, 1, 1, 4, 4\)"),
    "no examples": (saved(np.zeros((0, 8, 8))), r"shape \(0, 8, 8\)"),
    "no pixels": (saved(np.zeros((8, 0))), r"shape \(8, 0\)"),
    "one example": (saved(np.zeros((1, 8))), "1 training examples"),
    "columns first": (saved(np.asfortranarray(X)), READ),
    "columns first, short": (forged("(4, 2)", bytes(31), order="True"), "32 bytes of numbers and it has 31"),
    "other byte order": (saved(X.astype(">f8") / 255), READ),
    "version 2": (saved(X, (2, 0)), READ),
}  # fmt: skip

# The content of a .npz file and the reason why it is refused, or READ.
PACKED: dict[str, tuple[bytes, str]] = {
    "no members": (zipped({}), "holds nothing"),
    "others": (zipped({"a.npy": GOOD, "b.npy": GOOD}), "holds 'a', 'b'"),
    "folders": (zipped({"a/b/c/x.npy": GOOD}), READ),  # the only array, whatever its name
    "outside": (zipped({"../../../tmp/vaezoo-evil": GOOD}), READ),
    "absolute": (zipped({"/tmp/vaezoo-evil": GOOD}), READ),
    "strange names": (zipped({"new\nline\0.npy": GOOD, "'.npy": GOOD}), "it is not clear"),
    "a zip in a zip": (zipped({"x.npy": zipped({"x.npy": GOOD})}), "."),
    "objects beside numbers": (
        zipped({"x.npy": GOOD, "y.npy": LABELS, "more.npy": OBJECTS.dumps()}),
        READ,
    ),
    "labels that are a pickle": (zipped({"x.npy": GOOD, "y.npy": pickle.dumps(Canary())}), "."),
    "labels of another length": (zipped({"x.npy": GOOD, "y.npy": saved(np.arange(3))}), "y of .* for 20 examples"),
    "damaged test split": (zipped({"x.npy": GOOD, "x_test.npy": GOOD[:-1]}), "."),
    "several members": (
        zipped({"x_train.npy": GOOD, "y_train.npy": LABELS, "x_test.npy": GOOD}),
        READ,
    ),
    "bzip2": (zipped({"x.npy": GOOD}, zipfile.ZIP_BZIP2), READ),
    "LZMA": (zipped({"x.npy": GOOD}, zipfile.ZIP_LZMA), READ),
    "unknown compression": (with_header_byte(8, 77), "."),
    "encrypted": (with_header_byte(6, 1), "."),
    "one name, twice": (same_name_twice(GOOD, pickle.dumps(Canary())), "."),
    "declares 2 GB": (declaring(2**31), "."),
    "declares 4 GB": (declaring(2**32 - 2), "."),
    "other checksum": (zipped({"x.npy": GOOD}).replace(struct.pack("<I", zlib.crc32(GOOD)), b"\0\0\0\0"), "."),
    "cut off": (zipped({"x.npy": GOOD})[:-30], "."),
    "text before it": (b"#!/bin/sh\n" + zipped({"x.npy": GOOD}), READ),
    "text behind it": (zipped({"x.npy": GOOD}) + b"x" * 100, READ),
    "100,000 bytes behind it": (zipped({"x.npy": GOOD}) + b"x" * 100_000, "."),
    "bomb": (zipped({"x.npy": saved(np.zeros((3, 700_000), np.uint8))}), "GiB do not fit in memory"),
}


def outcome(path: Path) -> str:
    """Loads an array file. Returns READ or the error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = load_data(path)
        assert len(data.train) > 0
        return READ
    except InputError as error:
        assert str(path) in error.message or "training examples" in error.message
        return error.message
    finally:
        assert not CANARY.exists()


def matches(expected: str, actual: str) -> bool:
    return actual == READ if expected == READ else actual != READ and re.search(expected, actual) is not None


@pytest.mark.parametrize(("content", "expected"), FORGED.values(), ids=FORGED.keys())
def test_malformed_arrays(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    (tmp_path / "b.npz").write_bytes(zipped({"x.npy": content}))
    (tmp_path / "c.npz").write_bytes(content)
    assert matches(expected, outcome(tmp_path / "a.npy"))
    assert matches(expected, outcome(tmp_path / "b.npz"))
    assert matches("cannot be read", outcome(tmp_path / "c.npz"))


@pytest.mark.parametrize(("content", "expected"), PACKED.values(), ids=PACKED.keys())
def test_malformed_archives(tmp_path: Path, content: bytes, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "GiB" in expected:
        monkeypatch.setattr(npy, "MAX_BYTES", 2_000_000)
    (tmp_path / "a.npz").write_bytes(content)
    assert matches(expected, outcome(tmp_path / "a.npz"))
    assert [path.name for path in tmp_path.rglob("*")] == ["a.npz"]


@pytest.mark.parametrize("make", [np.save, np.savez, np.savez_compressed])
def test_objects_are_not_unpickled(tmp_path: Path, make: Callable[..., None]) -> None:
    path = tmp_path / ("a.npy" if make is np.save else "a.npz")
    make(path, OBJECTS)
    assert "Python objects, which could run code" in outcome(path)


def test_arrays_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", X)
    monkeypatch.setattr(npy, "machine_memory", lambda: 400)
    assert "do not fit in memory" in outcome(tmp_path / "a.npy")


def test_declared_size_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(declaring(2**31))
    (tmp_path / "b.npy").write_bytes(forged("(2147483648,)", b"\0" * 8, "'|u1'"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert outcome(tmp_path / "a.npz") != READ and outcome(tmp_path / "b.npy") != READ
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB: an eighth of the declared size


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def unix_socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("make", [os.mkfifo, link_to_itself, link_to_zeros, unix_socket])
def test_special_files(inside: Path, make: Callable[[Path], None], suffix: str) -> None:
    make(Path(f"x{suffix}"))
    with pytest.raises(VaezooError, match="no file"):
        load_data(f"x{suffix}")


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    content = GOOD if suffix == "npy" else zipped({"x.npy": GOOD, "y.npy": LABELS})
    for end in range(0, len(content), 3):
        path.write_bytes(content[:end])
        assert outcome(path) != READ


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_random_damage(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(2)
    path = tmp_path / f"a.{suffix}"
    content = GOOD if suffix == "npy" else zipped({"x.npy": GOOD, "y.npy": LABELS})
    for _ in range(1500):
        changed = bytearray(content)
        for _ in range(rng.integers(1, 6)):
            changed[rng.integers(min(len(changed), 400))] = rng.integers(256)
        path.write_bytes(changed)
        outcome(path)
