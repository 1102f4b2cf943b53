"""Results as files: arrays and tables that are written in chunks, and images.

A file is complete or absent under its name. Memory does not grow with the number of rows.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, TypeAlias

import numpy as np
import numpy.typing as npt

from vaezoo.core.atomic import atomic_dir, atomic_file
from vaezoo.core.dependencies import install_hint
from vaezoo.errors import StorageError, VaezooError

if TYPE_CHECKING:
    import pyarrow as pa

Values: TypeAlias = npt.NDArray[Any]
Chunks: TypeAlias = Iterable[Mapping[str, Values]]


def write_arrays(path: Path, chunks: Chunks, count: int, main: str = "") -> None:
    """Writes arrays of equal length to a file.

    Args:
        path: The file. Its suffix is one of `WRITERS`: .npz holds all arrays by name, .npy the array `main`. Tables,
            .csv and .parquet, have a column for each number of a row: `mu_0`, `mu_1` and so on for an array `mu` that
            has several numbers in each row.
        chunks: Some rows of each array at a time.
        count: The number of rows of all chunks.
        main: The only array that a .npy file holds.

    Raises:
        StorageError: If the file cannot be written.
        VaezooError: If pyarrow is needed and missing.
    """
    write = WRITERS[path.suffix.lower()]
    with atomic_file(path) as temporary:
        write(temporary, chunks if path.suffix.lower() != ".npy" else ({main: c[main]} for c in chunks), count)


def write_images(folder: Path, images: Iterable[tuple[str, Values]]) -> None:
    """Writes images as PNG files into a new or empty folder.

    Args:
        folder: The folder.
        images: Names of files, relative to the folder, and uint8 images `(height, width, channels)`.

    Raises:
        StorageError: If the folder holds files already, or cannot be written.
    """
    from PIL import Image

    def encoded() -> Iterator[tuple[str, bytes]]:
        for name, pixels in images:
            buffer = io.BytesIO()
            Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, format="PNG")
            yield name, buffer.getvalue()

    write_folder(folder, encoded())


def write_folder(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Writes files, by their names relative to a folder, into that folder, which must be new or empty.

    Raises:
        StorageError: If the folder holds files already, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"'{folder}' is not an empty folder", "name a new folder for the files")
    with atomic_dir(folder, replace=True) as temporary:
        for name, content in files:
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def image_name(name: str, taken: set[str]) -> str:
    """Returns the name of a PNG file for an example. Two examples whose names differ in the suffix get a number."""
    stem = os.path.splitext(name)[0]
    unique, number = stem, 1
    while unique in taken:
        unique, number = f"{stem}-{number}", number + 1
    taken.add(unique)
    return f"{unique}.png"


def write_csv(file: TextIO, chunks: Chunks) -> None:
    """Writes a table with a header as CSV. Numbers have as many digits as their type needs."""
    writer, header = csv.writer(file, lineterminator="\n"), False
    for chunk in chunks:
        columns = as_columns(chunk)
        if not header:
            writer.writerow(columns)
            header = True
        writer.writerows(zip(*(values.astype(str).tolist() for values in columns.values()), strict=True))


def as_columns(arrays: Mapping[str, Values]) -> dict[str, Values]:
    """Returns arrays as columns: `name` for one number in a row, `name_0`, `name_1` ... for several."""
    columns: dict[str, Values] = {}
    for name, values in arrays.items():
        if values.ndim == 1:
            columns[name] = values
        else:
            flat = values.reshape(len(values), -1)
            columns |= {f"{name}_{i}": flat[:, i] for i in range(flat.shape[1])}
    return columns


def require_pyarrow() -> None:
    """Raises VaezooError unless pyarrow is installed, which writes .parquet files."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise VaezooError("a .parquet file needs pyarrow, which is not installed", install_hint("parquet")) from None


def _write_csv_file(path: Path, chunks: Chunks, count: int) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        write_csv(file, chunks)


def _write_parquet(path: Path, chunks: Chunks, count: int) -> None:
    require_pyarrow()
    import pyarrow as pa
    from pyarrow import parquet

    tables = (pa.table({name: _arrow(values) for name, values in as_columns(chunk).items()}) for chunk in chunks)
    first = next(tables)
    with parquet.ParquetWriter(path, first.schema) as writer:
        for table in _chain(first, tables):
            writer.write_table(table)


def _chain(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


def _arrow(values: Values) -> Sequence[str] | Values:
    """Returns a column as pyarrow takes it. In names of files, bytes that are not valid text become question marks."""
    if values.dtype.kind != "U":
        return values
    return [text.encode("utf-8", "replace").decode("utf-8") for text in values.tolist()]


def _write_npy(path: Path, chunks: Chunks, count: int) -> None:
    with path.open("wb") as file:
        for i, chunk in enumerate(chunks):
            ((_, values),) = chunk.items()
            _append(file, values, count if i == 0 else None)


def _write_npz(path: Path, chunks: Chunks, count: int) -> None:
    """Writes each array to a temporary file first, because the members of an archive are written one after another."""
    with tempfile.TemporaryDirectory(prefix=f"{path.name}-", dir=path.parent) as folder, ExitStack() as stack:
        files: dict[str, BinaryIO] = {}
        for chunk in chunks:
            for name, values in chunk.items():
                new = name not in files
                if new:
                    files[name] = stack.enter_context((Path(folder) / f"{len(files)}.npy").open("w+b"))
                _append(files[name], values, count if new else None)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            for name, file in files.items():
                file.flush()
                archive.write(file.name, f"{name}.npy")


def _append(file: BinaryIO, values: Values, count: int | None) -> None:
    """Appends rows to a .npy file, behind a header for `count` rows if it is given."""
    values = np.ascontiguousarray(values)
    if count is not None:
        header = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, header | {"shape": (count, *values.shape[1:])})
    file.write(values.data if values.dtype.kind != "U" else values.tobytes())


WRITERS: Mapping[str, Callable[[Path, Chunks, int], None]] = MappingProxyType(
    {".npz": _write_npz, ".npy": _write_npy, ".csv": _write_csv_file, ".parquet": _write_parquet}
)
