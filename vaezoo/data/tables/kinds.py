"""Finds the kind of each column of a table. Users overrule it by name.

| kind | cells | in the model |
|---|---|---|
| continuous | numbers | a real column |
| integer | whole numbers, more than two of them | a real column, rounded when it is written |
| category | a few texts | a category |
| boolean | two texts such as yes and no, or 0 and 1 | a category |
| date | dates of one format | a real column, in days |
| constant | one value | left out |
| identifier | texts that hardly repeat, or the numbers of the rows | left out |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from vaezoo.core.tables import KINDS, NUMBER, WHOLE, Column, parse_date, parse_kind, parse_number
from vaezoo.data.labels import order_names
from vaezoo.data.tables.reading import Cells, Table
from vaezoo.errors import InputError, VaezooError, safe_repr, suggest

MAX_CATEGORIES = 1_000
FEW = 20  # as many texts are categories in a table of any length
MIN_INDEX = 10  # rows from which 0, 1, 2 ... are the numbers of the rows
MAX_DECIMALS = 9
BOOLEANS = (("false", "true"), ("no", "yes"), ("f", "t"), ("n", "y"), ("0", "1"), ("0.0", "1.0"))
LEADING_ZERO = re.compile(r"[+-]?0\d+", re.ASCII)  # a code and no number, such as that of a post office
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T]\d.*)?", re.ASCII)
DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y")
TIMES = ("", " %H:%M:%S", "T%H:%M:%S", " %H:%M", "T%H:%M", "T%H:%M:%SZ", " %H:%M:%S.%f", "T%H:%M:%S.%f")
DATE_FORMATS = tuple(day + time for time in TIMES for day in DAYS)


def find_columns(table: Table, kinds: Mapping[str, str]) -> tuple[list[Column], dict[str, str]]:
    """Returns the columns that a model sees, and the kinds of those that are left out.

    Args:
        table: The table.
        kinds: Name of a column -> its kind, as a user gave it. The others are found.

    Raises:
        InputError: If a column has no values, or values of several kinds, or only left-out columns remain.
        VaezooError: If a name or a kind is unknown.
    """
    _check_kinds(kinds, table)
    columns, left_out = [], {}
    for name, cells in table.columns.items():
        column = make_column(table, name, cells, kinds.get(name))
        if column.kind in ("constant", "identifier"):
            left_out[name] = column.kind
        else:
            columns.append(column)
    if not columns:
        raise InputError(
            f"{table.name} has only constant columns and identifiers",
            "give it other columns, or another kind such as --columns NAME=category",
        )
    return columns, left_out


def _check_kinds(kinds: Mapping[str, str], table: Table) -> None:
    for name, kind in kinds.items():
        if name not in table.columns:
            hint = suggest(name, table.columns, "the first line of the file names the columns")
            raise VaezooError(f"{table.name} has no column '{safe_repr(name)}'", hint)
        if parse_kind(kind) is None:
            hint = suggest(kind, KINDS, f"use {', '.join(KINDS)}, or such as date:%d.%m.%Y")
            raise VaezooError(f"column '{safe_repr(name)}' cannot have the kind '{safe_repr(kind)}'", hint)


def make_column(table: Table, name: str, cells: Cells, given: str | None) -> Column:
    """Returns a column with its kind, that of a user or the one that is found.

    Raises:
        InputError: If it has no values, or cannot have the kind.
    """
    counts = Counter(cell for cell in cells if cell is not None)
    kind, detail = (parse_kind(given) if given is not None else None) or ("", "")
    if kind in ("constant", "identifier"):
        return Column(name, kind)
    if not counts:
        raise InputError(
            f"column '{safe_repr(name)}' of {table.name} has no values",
            f"remove the column, or leave it out with --columns '{safe_repr(name)}=identifier'",
        )
    if not kind:
        kind, detail = _find_kind(table, name, cells, counts)
    if kind == "date" and not detail:
        detail = _date_format(counts) or DAYS[0]
    if kind in ("continuous", "integer") and not detail:
        detail = _decimals(counts)
    categories = _categories(table, name, counts, kind) if kind in ("category", "boolean") else ()
    return Column(name, kind, detail, categories)


def _find_kind(table: Table, name: str, cells: Cells, counts: Mapping[str, int]) -> tuple[str, str]:
    if len(counts) == 1:
        return "constant", ""
    if len(counts) == 2 and tuple(sorted(text.strip().lower() for text in counts)) in BOOLEANS:
        return "boolean", ""
    if any(LEADING_ZERO.fullmatch(text.strip()) for text in counts):
        return _kind_of_texts(cells, counts), ""
    numbers = {text for text in counts if NUMBER.fullmatch(text.strip())}
    if _are_most(numbers, counts):
        _refuse_others(table, name, cells, numbers, "numbers")
        return _kind_of_numbers(cells, counts), ""
    date_format = _date_format(counts)
    if date_format:
        dates = {text for text in counts if parse_date(text, date_format) is not None}
        _refuse_others(table, name, cells, dates, f"dates of the form {date_format}")
        return "date", date_format
    return _kind_of_texts(cells, counts), ""


def _are_most(texts: set[str], counts: Mapping[str, int]) -> bool:
    """Tells whether at least half of the cells have one of these texts."""
    return 2 * sum(counts[text] for text in texts) >= sum(counts.values())


def _refuse_others(table: Table, name: str, cells: Cells, texts: set[str], what: str) -> None:
    """Raises InputError if a cell is none of these texts, though most are."""
    for row, cell in enumerate(cells):
        if cell is not None and cell not in texts:
            raise InputError(
                f"{table.where(row)}, column '{safe_repr(name)}': '{safe_repr(cell)}' is not among the {what} of the "
                "other cells",
                f"correct the cell, or give --columns '{safe_repr(name)}=category' or identifier",
            )


def _kind_of_numbers(cells: Cells, counts: Mapping[str, int]) -> str:
    if len(counts) == 2:
        return "category"
    if not all(WHOLE.fullmatch(text.strip()) for text in counts):
        return "continuous"
    return "identifier" if len(cells) >= MIN_INDEX and _number_rows(cells) else "integer"


def _number_rows(cells: Cells) -> bool:
    """Tells whether the cells are 0, 1, 2 ... or 1, 2, 3 ..., as the index of a frame is."""
    first = cells[0]
    if first is None or parse_number(first) not in (0, 1):
        return False
    start = int(float(first))
    return all(cell is not None and parse_number(cell) == start + row for row, cell in enumerate(cells))


def _kind_of_texts(cells: Cells, counts: Mapping[str, int]) -> str:
    observed = sum(counts.values())
    return "identifier" if len(counts) > min(MAX_CATEGORIES, max(FEW, observed / 2)) else "category"


def _date_format(counts: Mapping[str, int]) -> str:
    """Returns the first format that most cells have, or nothing. A format that all cells have goes first."""
    likely = {text for text in counts if DATE.fullmatch(text.strip())}
    if not _are_most(likely, counts):
        return ""
    found = ""
    for date_format in _formats_of(likely):
        dates = {text for text in counts if parse_date(text, date_format) is not None}
        if len(dates) == len(counts):
            return date_format
        found = found or (date_format if _are_most(dates, counts) else "")
    return found


def _formats_of(texts: set[str]) -> Iterator[str]:
    """Yields the formats that one of a few texts has, because parsing all texts in all formats takes long."""
    some = sorted(texts)[:: max(1, len(texts) // 100)]
    return (f for f in DATE_FORMATS if any(parse_date(text, f) is not None for text in some))


def _decimals(counts: Mapping[str, int]) -> str:
    """Returns the largest number of decimals. Empty if numbers have an exponent, or more digits than float32 holds."""
    texts = [text.strip().lower() for text in counts]
    decimals = max(len(text.partition(".")[2]) for text in texts)
    return "" if decimals > MAX_DECIMALS or any("e" in text for text in texts) else str(decimals)


def _categories(table: Table, name: str, counts: Mapping[str, int], kind: str) -> tuple[str, ...]:
    if len(counts) > MAX_CATEGORIES or len(counts) < 2 or (kind == "boolean" and len(counts) != 2):
        limit = "exactly 2" if kind == "boolean" else f"2 to {MAX_CATEGORIES:,}"
        raise InputError(
            f"column '{safe_repr(name)}' of {table.name} has {len(counts):,} values, and a {kind} has {limit}",
            f"leave it out with --columns '{safe_repr(name)}=identifier'",
        )
    return tuple(order_names(counts))


def parse_columns(texts: Sequence[str]) -> dict[str, str]:
    """Parses `name=kind` for each of some columns, as users type them.

    Raises:
        VaezooError: If a text has another form, or a name is there twice.
    """
    kinds: dict[str, str] = {}
    for text in texts:
        name, equals, kind = text.rpartition("=")
        if not equals or not name or name in kinds:
            problem = "is there twice" if name in kinds else "is not of the form name=kind"
            raise VaezooError(f"--columns '{safe_repr(text)}' {problem}", "for example --columns age=continuous")
        kinds[name] = kind
    return kinds
