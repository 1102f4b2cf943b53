"""Conditions on the rows of a table, such as sex=female or carat>1, and samples that meet them.

Samples that do not meet them are drawn again (rejection sampling), up to a limit.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from vaezoo.core.table_cells import rounded
from vaezoo.core.tables import Array, Column, some_names, to_numbers
from vaezoo.errors import InputError, VaezooError, safe_repr, suggest

OPERATORS: Mapping[str, Callable[[Array, float], Array]] = MappingProxyType(
    {
        "=": operator.eq,
        "!=": operator.ne,
        "<": operator.lt,
        "<=": operator.le,
        ">": operator.gt,
        ">=": operator.ge,
    }
)
COMPARISON = re.compile(r"(.*?)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
DRAWS_PER_ROW = 1_000  # samples that are drawn for each wanted row, at most
MIN_DRAWS = 10_000
MIN_CHUNK, MAX_CHUNK = 1_000, 100_000


class Condition(NamedTuple):
    """A comparison of a column with a number, that of a category or a date.

    Attributes:
        text: What a user typed.
        column: The place of the column.
        operator: One of `OPERATORS`.
        number: The number.
    """

    text: str
    column: int
    operator: str
    number: float


def parse_conditions(texts: Sequence[str], columns: Sequence[Column]) -> list[Condition]:
    """Parses conditions such as `sex=female` and `carat>1`.

    Raises:
        VaezooError: If the data are not a table, or a column, operator or value is wrong.
    """
    if texts and not columns:
        raise VaezooError("the model was not made for a table, whose columns have names", "leave out --where")
    return [_parse(text, columns) for text in texts]


def _parse(text: str, columns: Sequence[Column]) -> Condition:
    match = COMPARISON.fullmatch(text)
    if match is None or not match[1].strip():
        raise VaezooError(
            f"--where '{safe_repr(text)}' does not compare a column with a value",
            "for example --where sex=female or 'age>30'",
        )
    name, sign, value = match[1].strip(), match[2], match[3].strip()
    names = [column.name for column in columns]
    if name not in names:
        hint = suggest(name, names, f"the columns are {some_names(names)}")
        raise VaezooError(f"the model has no column '{safe_repr(name)}'", hint)
    column = columns[names.index(name)]
    if column.categories and sign not in ("=", "!="):
        raise VaezooError(f"--where '{safe_repr(text)}': categories have no order", "compare with = or !=")
    try:
        number = float(to_numbers(column, [value], lambda row: "--where")[0])
    except InputError as e:
        raise VaezooError(e.message, e.hint if column.categories else f"give a value of '{safe_repr(name)}'") from e
    return Condition(text, names.index(name), sign, number)


def holds(conditions: Sequence[Condition], columns: Sequence[Column], values: Array) -> Array:
    """Tells which rows meet all conditions, `(N,)`. Values are compared as they are written, so rounded.

    Args:
        conditions: The conditions.
        columns: The columns of the table.
        values: Rows in the units of the data, `(N, columns)`.
    """
    meets = np.ones(len(values), bool)
    for condition in conditions:
        cells = rounded(columns[condition.column], values[:, condition.column])
        meets &= OPERATORS[condition.operator](cells, condition.number)
    return meets


def select(
    draw: Callable[[int, int], Iterable[Array]],
    conditions: Sequence[Condition],
    columns: Sequence[Column],
    n: int,
    seed: int,
) -> Iterator[Array]:
    """Yields n samples that meet conditions, in chunks.

    Args:
        draw: Returns chunks of so many samples for a seed.
        conditions: The conditions.
        columns: The columns of the table.
        n: Number of samples to keep.
        seed: Seed of the samples.

    Raises:
        VaezooError: If too few of 1,000 n samples, or of 10,000 at least, meet the conditions.
    """
    limit, drawn, kept, number = max(MIN_DRAWS, DRAWS_PER_ROW * n), 0, 0, 0
    while kept < n:
        if drawn >= limit:
            text = " and ".join(f"'{safe_repr(condition.text)}'" for condition in conditions)
            found = f"{kept:,} of {n:,} samples were found" if kept else "no sample was found"
            hint = "give fewer samples with -n, or a wider condition" if kept else "give a wider condition"
            raise VaezooError(f"{found} with {text} in {drawn:,} draws", hint)
        count = min(max(MIN_CHUNK, n), MAX_CHUNK, limit - drawn)
        for chunk in draw(count, _draw_seed(seed, number)):
            found_rows = chunk[holds(conditions, columns, chunk)][: n - kept]
            kept += len(found_rows)
            if len(found_rows):
                yield found_rows
        drawn, number = drawn + count, number + 1


def _draw_seed(seed: int, number: int) -> int:
    """Returns the seed of a set of draws. The chunks within a set have seeds of two numbers, so this one has three."""
    return seed if number == 0 else int(np.random.SeedSequence([seed, number, 1]).generate_state(1, np.uint64)[0] >> 1)
