"""Reads tables as text: .csv and .parquet files, which may be damaged or forged, and frames of pandas and polars."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from vaezoo.core.dependencies import install_hint
from vaezoo.core.tables import is_missing, some_names
from vaezoo.data.labels import clean_name
from vaezoo.errors import InputError, VaezooError, first_line, safe_repr

SUFFIXES = (".csv", ".parquet")
MAX_COLUMNS = 1_000
MAX_CELLS = 50_000_000
MAX_LINE_BYTES = 1 << 24
MAX_PARQUET_BYTES = 4 << 30  # of all columns, unpacked
MAX_TEXT = 1_000  # characters of a cell
DELIMITERS = (";", "\t", "|")  # of files that are not comma-separated
ROWS_HINT = "rows are counted from 0"

Cells = list[str | None]


class Table(NamedTuple):
    """The cells of a table as text.

    Attributes:
        name: What errors call it.
        columns: Name -> the cells, None where a value is missing.
        lines: The line of each row in its file. None if the rows have no lines.
    """

    name: str
    columns: Mapping[str, Cells]
    lines: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def where(self, row: int) -> str:
        """Names a row in an error."""
        return f"row {row} of {self.name}" if self.lines is None else f"line {self.lines[row]} of {self.name}"


def read_table(path: Path) -> Table:
    """Reads a .csv or a .parquet file.

    Raises:
        InputError: If the file is missing, damaged, no table, or too large.
        VaezooError: If pyarrow is needed and missing.
    """
    if not path.is_file():
        raise InputError(f"no file '{path}'", "name a .csv or a .parquet file")
    return _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)


def from_frame(frame: Any, name: str) -> Table:
    """Reads a frame of pandas or polars, or anything with `columns` and `frame[column].to_numpy()`."""
    labels = list(frame.columns)
    names = _column_names([str(label) for label in labels], name)
    _check_size(len(names), len(frame[labels[0]].to_numpy()), name)
    return Table(name, {n: _texts(frame[label], name, n) for n, label in zip(names, labels, strict=True)})


def _texts(column: Any, name: str, column_name: str) -> Cells:
    values = column.to_list() if hasattr(column, "to_list") else column.to_numpy().tolist()
    return as_texts(values, name, column_name)


def as_texts(values: Sequence[object], name: str, column_name: str) -> Cells:
    """Returns the cells of a column as text, None where they have no value.

    Raises:
        InputError: If a cell is neither text, number nor date.
    """
    texts: dict[str, str] = {}  # equal cells share their memory
    cells: Cells = []
    for row, value in enumerate(values):
        if is_missing(value):
            cells.append(None)
            continue
        if isinstance(value, bytes | list | dict | tuple | set) or not hasattr(value, "__str__"):
            what = f"row {row} of {name}, column '{safe_repr(column_name)}' holds a {type(value).__name__}"
            raise InputError(what, "give cells of text, numbers or dates")
        text = str(value)
        cells.append(texts.setdefault(text, text))
    return cells


def _read_csv(path: Path) -> Table:
    name, lines = f"'{path}'", []
    with path.open("rb") as file, _csv_errors(name) as position:
        reader = csv.reader(_lines(file, position), strict=True)
        header = next((row for row in reader if row), None)
        if header is None:
            raise InputError(f"{name} is empty", "give a file with a line of column names and a line for each row")
        names = _header(header, name, position[0])
        columns: list[Cells] = [[] for _ in names]
        texts: dict[str, str] = {}
        for row in reader:
            if not row:  # an empty line
                continue
            if len(row) != len(names):
                raise InputError(
                    f"line {position[0]} of {name} has {len(row):,} cells, but line 1 names {len(names):,} columns",
                    "correct the line, or put quotes around a cell that holds a comma",
                )
            lines.append(position[0])
            for cells, text in zip(columns, row, strict=True):
                cells.append(None if is_missing(text) else texts.setdefault(text, text))
            if len(lines) * len(names) > MAX_CELLS:
                _check_size(len(names), len(lines), name)
    if not lines:
        raise InputError(f"{name} has a header but no rows", "give a line for each row")
    return Table(name, dict(zip(names, columns, strict=True)), lines)


@contextmanager
def _csv_errors(name: str) -> Iterator[list[int]]:
    """Yields a list that holds the number of the line that is being read, and names it in errors."""
    position = [0]
    try:
        yield position
    except csv.Error as e:
        hint = "save the file as comma-separated values"
        raise InputError(f"line {position[0]} of {name} is not valid CSV: {first_line(e)}", hint) from e
    except UnicodeDecodeError as e:
        raise InputError(f"line {position[0]} of {name} is not UTF-8", "save the file with the encoding UTF-8") from e
    except OSError as e:
        raise InputError(f"{name} cannot be read: {e.strerror}", "check the path and its permissions") from e


def _lines(file: Any, position: list[int]) -> Iterator[str]:
    """Yields the lines of a file. Each has a bounded length, because a file may be a single line of gigabytes."""
    while line := file.readline(MAX_LINE_BYTES):
        position[0] += 1
        if len(line) == MAX_LINE_BYTES:
            raise csv.Error(f"it has more than {MAX_LINE_BYTES >> 20} MiB")
        text = line.decode("utf-8-sig" if position[0] == 1 else "utf-8")
        if "\0" in text:
            raise csv.Error("it holds zero bytes")
        yield text


def _header(header: list[str], name: str, line: int) -> list[str]:
    if len(header) == 1 and (found := [d for d in DELIMITERS if d in header[0]]):
        raise InputError(
            f"line {line} of {name} has one column, whose name holds {found[0]!r}: the file has another delimiter",
            "save it with commas between the cells",
        )
    return _column_names(header, name, f"line {line} of ")


def _column_names(given: list[str], name: str, line: str = "") -> list[str]:
    """Returns the names of columns as text that can be stored and printed.

    Raises:
        InputError: If there are too many, or one is empty, too long or there twice.
    """
    if not given:
        raise InputError(f"{name} has no columns", "give a table with a name for each column")
    if len(given) > MAX_COLUMNS:
        raise InputError(f"{name} has {len(given):,} columns", f"give at most {MAX_COLUMNS:,}")
    names = [clean_name(text) for text in given]
    for i, column in enumerate(names):
        if not column or len(column) > MAX_TEXT:
            what = "no name" if not column else f"a name of {len(column):,} characters"
            raise InputError(f"{line}{name}: column {i + 1} has {what}", "give each column a short name of its own")
    if twice := [column for column, count in Counter(names).items() if count > 1]:
        raise InputError(f"{line}{name} has two columns named {some_names(twice)}", "rename one of them")
    return names


def _check_size(columns: int, rows: int, name: str) -> None:
    if columns * rows > MAX_CELLS:
        what = f"{name} has more than {MAX_CELLS:,} cells"
        raise InputError(what, f"give at most {MAX_CELLS // columns:,} rows of {columns:,} columns")
    if not rows:
        raise InputError(f"{name} has no rows", "give a table with rows")


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise VaezooError("a .parquet file needs pyarrow, which is not installed", install_hint("tables")) from None
    name = f"'{path}'"
    try:
        file = parquet.ParquetFile(path, memory_map=False)
        names = _column_names([str(n) for n in file.schema_arrow.names], name)
        _check_size(len(names), file.metadata.num_rows, name)
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        if (size := sum(group.total_byte_size for group in groups)) > MAX_PARQUET_BYTES:
            raise InputError(f"{name} has {size / 2**30:.1f} GiB of cells", "give a table of at most 4 GiB")
        table = file.read()
        columns = {n: as_texts(table.column(i).to_pylist(), name, n) for i, n in enumerate(names)}
    except (pa.ArrowException, OSError, ValueError, OverflowError) as e:
        raise InputError(f"{name} is not a Parquet file, or is damaged: {first_line(e)}", "write the file again") from e
    return Table(name, columns)
