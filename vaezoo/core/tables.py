"""Columns of tables: what they are called, and how cells become numbers. `table_cells` has the way back.

It needs numpy alone, because exports are used without torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from vaezoo.errors import InputError, UnsupportedDataError, safe_repr

MODELLED = ("continuous", "integer", "category", "boolean", "date")
LEFT_OUT = ("constant", "identifier")
KINDS = (*MODELLED, *LEFT_OUT)
MISSING = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "NULL"})  # texts of cells without a value
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
WHOLE = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
MODEL_COLUMN = re.compile(r":(?:(real)|([0-9]{1,5}))(\?)?\Z")
EPOCH = datetime(1970, 1, 1)
MAX_CATEGORIES = 10_000
MAX_SHOWN = 8  # categories or columns in an error

Array: TypeAlias = npt.NDArray[Any]
Where: TypeAlias = Callable[[int], str]  # row -> "line 3 of 'people.csv'"


class ModelColumn(NamedTuple):
    """A column as a model sees it.

    Attributes:
        name: Its name.
        size: Number of categories. 0: real numbers.
        may_miss: Whether cells may be missing.
    """

    name: str
    size: int
    may_miss: bool


def parse_model_column(text: str) -> ModelColumn | None:
    """Parses `name:real` or `name:k`, with `?` at the end where cells may be missing. None for any other text."""
    match = MODEL_COLUMN.search(text)
    if match is None or (match[2] and not 2 <= int(match[2]) <= MAX_CATEGORIES):
        return None
    return ModelColumn(text[: match.start()], int(match[2] or 0), match[3] is not None)


class Column(NamedTuple):
    """A column of a table as a user sees it.

    Attributes:
        name: Its name.
        kind: One of `MODELLED`.
        detail: The format of a date, as `strftime` has it. The decimals of a number; empty: as many as it needs.
        categories: The texts of the categories, in the order of their numbers. Empty for other kinds.
    """

    name: str
    kind: str
    detail: str = ""
    categories: tuple[str, ...] = ()

    @property
    def notation(self) -> str:
        """The kind with its detail, such as `date:%d.%m.%Y`, as `parse_kind` reads it."""
        return f"{self.kind}:{self.detail}" if self.detail else self.kind


def parse_kind(text: str) -> tuple[str, str] | None:
    """Parses a kind with its detail, such as `continuous:2`. Returns None if there is no such kind or detail."""
    kind, _, detail = text.partition(":")
    if kind not in KINDS or (detail and not _detail_fits(kind, detail)):
        return None
    return kind, detail


def _detail_fits(kind: str, detail: str) -> bool:
    if kind == "date":
        return "%Y" in detail and len(detail) < 40 and detail.isprintable()
    return kind in ("continuous", "integer") and detail.isascii() and detail.isdigit() and len(detail) == 1


def columns_of(columns: Sequence[str], formats: Sequence[str], categories: Sequence[Sequence[str]]) -> list[Column]:
    """Returns the columns that a model's data describe; see `vaezoo.DataSpec`.

    Raises:
        ValueError: If the descriptions do not fit each other.
    """
    result = []
    for text, notation, names in zip(columns, formats, categories, strict=True):
        column, kind = parse_model_column(text), parse_kind(notation)
        if column is None or kind is None or kind[0] not in MODELLED or column.size != len(set(names)):
            raise ValueError(f"column {safe_repr(text)} is not {safe_repr(notation)} of {len(names)} categories")
        result.append(Column(column.name, *kind, tuple(names)))
    return result


def is_missing(cell: object) -> bool:
    """Tells whether a cell of a file or a frame has no value."""
    if cell is None or isinstance(cell, str):
        return cell is None or cell.strip() in MISSING
    return type(cell).__name__ in ("NAType", "NaTType") or (
        isinstance(cell, float | np.floating) and bool(cell != cell)
    )


def to_numbers(column: Column, cells: Sequence[str | None], where: Where) -> Array:
    """Returns the numbers of a column's cells, `(N,)`, float64: NaN where a cell is None, and categories by number.

    Args:
        column: The column.
        cells: Texts; None where a value is missing.
        where: Names a row in errors.

    Raises:
        InputError: If a cell does not fit the column. The message names the row and the column.
    """
    read, numbers = _reader(column), np.full(len(cells), np.nan)
    known: dict[str, float] = {}
    for row, cell in enumerate(cells):
        if cell is None:
            continue
        if cell not in known:
            value = read(cell)
            if value is None or not np.isfinite(value):
                raise _misfit(column, cell, where(row))
            known[cell] = value
        numbers[row] = known[cell]
    return numbers


def _reader(column: Column) -> Callable[[str], float | None]:
    if column.categories:
        return _category_reader(column)
    return (lambda text: parse_date(text, column.detail)) if column.kind == "date" else parse_number


def _category_reader(column: Column) -> Callable[[str], float | None]:
    """Returns the number of a category. Equal numbers are one category, as 1 and 1.0 are, and so are True and true."""
    exact = {name: float(i) for i, name in enumerate(column.categories)}
    alike = {_key(column, name): float(i) for i, name in enumerate(column.categories)}
    if len(alike) < len(exact):
        return exact.get
    return lambda text: alike.get(_key(column, text))


def _key(column: Column, text: str) -> str:
    if (number := parse_number(text)) is not None:
        return repr(number)
    return text.strip().lower() if column.kind == "boolean" else text


def parse_number(text: str) -> float | None:
    """Returns the number that a text is, or None."""
    return float(text) if NUMBER.fullmatch(text.strip()) else None


def parse_date(text: str, date_format: str) -> float | None:
    """Returns the days from 1970-01-01 to a date, or None if the text has another format."""
    try:
        return (datetime.strptime(text.strip(), date_format) - EPOCH) / timedelta(days=1)
    except (ValueError, OverflowError, TypeError):  # a time zone makes a TypeError
        return None


def _misfit(column: Column, cell: str, where: str) -> InputError:
    what = f"{where}, column '{safe_repr(column.name)}': '{safe_repr(cell)}'"
    if column.categories:
        return InputError(f"{what} is not a category of the training", f"use {some_names(column.categories)}")
    kind = f"a date of the form {column.detail}" if column.kind == "date" else "a finite number"
    return InputError(f"{what} is not {kind}", "correct the cell, or leave it empty if its value is not known")


def select_columns(
    table: Mapping[str, Sequence[str | None]], columns: Sequence[Column], left_out: Sequence[str], name: str
) -> list[Sequence[str | None]]:
    """Returns the cells of a model's columns, which are found by their names.

    Args:
        table: The cells of all columns of a table.
        columns: The columns of the model.
        left_out: The columns that the training left out. A table may have them.
        name: What errors call the table.

    Raises:
        UnsupportedDataError: If the table lacks a column, or has one that the training did not have.
    """
    wanted = [column.name for column in columns]
    missing = [n for n in wanted if n not in table]
    unknown = [n for n in table if n not in wanted and n not in left_out]
    if missing or unknown:
        parts = ((missing, "lacks the columns"), (unknown, "has the unknown columns"))
        raise UnsupportedDataError(
            f"{name} {' and '.join(f'{what} {some_names(names)}' for names, what in parts if names)}",
            f"give the columns of the training: {some_names(wanted)}" if missing else "leave the unknown columns out",
        )
    return [table[n] for n in wanted]


def some_names(names: Sequence[str]) -> str:
    """Returns the first names of columns or categories, and how many more there are."""
    more = f" and {len(names) - MAX_SHOWN:,} more" if len(names) > MAX_SHOWN else ""
    shown = [f"'{safe_repr(name)}'" for name in names[:MAX_SHOWN]]
    return f"{', '.join(shown)}{more}"


def rows_of(
    table: Mapping[str, Sequence[str | None]],
    columns: Sequence[Column],
    may_miss: Sequence[bool],
    left_out: Sequence[str],
    name: str,
    where: Where,
) -> Array:
    """Returns the rows of a table as numbers, `(N, columns)`, float64, in the order of a model's columns.

    For the arguments see `select_columns` and `to_numbers`. `may_miss` says which columns may have missing cells.

    Raises:
        InputError: If a cell does not fit its column, or is missing where the training had none missing.
        UnsupportedDataError: As `select_columns` does.
    """
    parts = []
    for column, may, cells in zip(columns, may_miss, select_columns(table, columns, left_out, name), strict=True):
        numbers = to_numbers(column, cells, where)
        if not may and (empty := np.isnan(numbers)).any():
            raise InputError(
                f"{where(int(empty.argmax()))}, column '{safe_repr(column.name)}': the cell has no value",
                "fill it, or leave out the row: no cell of this column was missing in the training",
            )
        parts.append(numbers)
    return np.stack(parts, 1)
