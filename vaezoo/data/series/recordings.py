"""Reads a recording from a CSV file with a column of times."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import numpy as np

from vaezoo.data.series.windows import Recording, Values
from vaezoo.errors import InputError, first_line, safe_repr, suggest

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "?"})
GAP = 1.5  # two rows that are further apart than this many usual steps have a gap between them
MAX_TIME = 64  # characters of a time, because all times get the room of the longest
GAP_HINT = "fill in the missing rows, or cut the file there"
Cells = tuple[int, list[str]]  # the number of a line, and its cells


def read_csv(path: Path, time_column: str) -> Recording:
    """Reads a table of which one column holds times and each other one is a channel.

    Times are numbers or ISO dates. They increase, and no step is longer than 1.5 times the median step, because models
    of series take steps as equal. Each other cell is a finite number. Blank lines are skipped.

    Args:
        path: A CSV file in UTF-8 with a header, separated by commas.
        time_column: The name of the column of times.

    Raises:
        InputError: If the file cannot be read, or breaks one of these rules. The error names line and column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = _rows(csv.reader(file, strict=True))
            header = [name.strip() for name in next(rows, (0, []))[1]]
            place = _time_place(path, header, time_column)
            lines, texts, values = _columns(path, header, place, rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"'{path}' cannot be read: {first_line(error)}", "save it as CSV in UTF-8") from error
    if not lines:
        raise InputError(f"'{path}' has a header but no rows", "give a file with rows")
    _check_times(path, time_column, lines, _seconds(path, time_column, lines, texts), texts)
    channels = (*header[:place], *header[place + 1 :])
    table = np.frombuffer(values, np.float64).reshape(len(lines), len(channels))
    return Recording(np.ascontiguousarray(table.T), np.array(texts), time_column, channels)


def _rows(reader: Iterator[list[str]]) -> Iterator[Cells]:
    """Yields the rows that are not blank, with the number of their line."""
    for number, row in enumerate(reader, 1):
        line = getattr(reader, "line_num", number)  # a quoted cell may have several lines
        if row:
            yield line, row


def _time_place(path: Path, header: Sequence[str], time_column: str) -> int:
    """Returns the index of the column of times."""
    if not header:
        raise InputError(f"'{path}' is empty", "give a file with a header and rows")
    twice = [name for i, name in enumerate(header) if name in header[:i]]
    if twice or "" in header:
        what = f"has two columns '{twice[0]}'" if twice else f"has no name for column {header.index('') + 1}"
        raise InputError(f"'{path}' {what}, line 1", "give each column a name of its own")
    if time_column not in header:
        hint = suggest(time_column, header, f"its columns are {', '.join(header[:20])}")
        raise InputError(f"'{path}' has no column '{time_column}'", hint)
    if len(header) < 2:
        raise InputError(f"'{path}' has no column besides '{time_column}'", "give a file with values")
    return header.index(time_column)


def _columns(
    path: Path, header: Sequence[str], place: int, rows: Iterator[Cells]
) -> tuple[list[int], list[str], array[float]]:
    """Returns the line and the time of each row, and all values row by row."""
    lines: list[int] = []
    texts: list[str] = []
    values: array[float] = array("d")
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"'{path}', line {line}: {len(row)} values for {len(header)} columns", "give each row all columns"
            )
        lines.append(line)
        texts.append(row.pop(place).strip())
        numbers = [_number(cell) for cell in row]
        if not all(map(math.isfinite, numbers)):
            names = [*header[:place], *header[place + 1 :]]
            column = next(i for i, number in enumerate(numbers) if not math.isfinite(number))
            _refuse_cell(path, line, names[column], row[column])
        values.extend(numbers)
    return lines, texts, values


def _number(cell: str) -> float:
    """Returns a number, or NaN if a cell holds none. Underscores belong to Python's numbers, not to those of files."""
    try:
        return math.nan if "_" in cell else float(cell)
    except ValueError:
        return math.nan


def _refuse_cell(path: Path, line: int, column: str, cell: str) -> NoReturn:
    """Raises InputError for a cell without a finite number."""
    where, text = f"'{path}', line {line}, column '{column}'", cell.strip()
    if text.lower() in MISSING:
        raise InputError(f"{where}: the value is missing", "fill it in, or cut the file there")
    hint = "remove the column, or write its values as numbers"
    raise InputError(f"{where}: '{safe_repr(text)}' is not a finite number", hint)


def _seconds(path: Path, column: str, lines: Sequence[int], texts: Sequence[str]) -> Values:
    """Returns times as numbers, or dates as seconds since the first of them. The first row decides which they are."""
    dates = not math.isfinite(_number(texts[0]))
    seconds, first = np.empty(len(texts)), None
    for i, text in enumerate(texts):
        try:
            if len(text) > MAX_TIME:
                raise ValueError(text)
            if dates:
                date = datetime.fromisoformat(text)
                first = first or date
                seconds[i] = (date - first).total_seconds()
            else:
                seconds[i] = _number(text)
                if not math.isfinite(seconds[i]):
                    raise ValueError(text)
        except (ValueError, TypeError) as error:
            kind = "an ISO date" if dates and i else "a number" if i else "a number or an ISO date"
            what = "mixes dates with and without a time zone" if isinstance(error, TypeError) else f"is not {kind}"
            raise InputError(
                f"'{path}', line {lines[i]}, column '{column}': '{safe_repr(text)}' {what}",
                "write all times as numbers, or as dates such as 2024-05-31T18:00",
            ) from None
    return seconds


def _check_times(path: Path, column: str, lines: Sequence[int], seconds: Values, texts: Sequence[str]) -> None:
    """Raises InputError unless times increase in steps of about the same length."""
    steps = np.diff(seconds)
    if not len(steps):
        return
    if (wrong := int(np.argmax(steps <= 0))) or steps[0] <= 0:
        raise InputError(
            f"'{path}', line {lines[wrong + 1]}, column '{column}': {texts[wrong + 1]} does not come after "
            f"{texts[wrong]}",
            "sort the rows by time, and keep one row for each time",
        )
    usual = float(np.median(steps))
    gaps = np.flatnonzero(steps > GAP * usual)
    if len(gaps):
        i = int(gaps[0])
        raise InputError(
            f"'{path}', line {lines[i + 1]}, column '{column}': a gap of {steps[i] / usual:.3g} steps between "
            f"{texts[i]} and {texts[i + 1]}",
            GAP_HINT,
        )
