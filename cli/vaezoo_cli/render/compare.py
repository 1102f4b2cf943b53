"""The output of `vaezoo compare` and `vaezoo sweep`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from vaezoo.core.option_values import json_value, show_value
from vaezoo_cli.render.console import OUT, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from vaezoo.evaluation.compare import Comparison, Group, Mean

MAX_WIDTH = 10_000  # characters, more than any table needs


def render_comparison(comparison: Comparison, next_step: str | None) -> None:
    """Prints a table of runs: a row for each group, mean ± standard deviation for each metric."""
    heads = ["runs", *comparison.columns, *comparison.metrics]
    cells = [heads, *(row_of(comparison, group) for group in comparison.groups)]
    rows = make_table(cells)
    needed = OUT.measure(rows, options=OUT.options.update(width=MAX_WIDTH)).maximum
    if needed > OUT.width:  # then a column for each group is easier to read
        rows = make_table([list(column) for column in zip(*cells, strict=True)])
    OUT.print(rows)
    for name, message in comparison.failed.items():
        OUT.print(f"failed      {escape(name)}: {escape(message)}", soft_wrap=True)
    for path in comparison.unfinished:
        OUT.print(f"unfinished  {escape(path)}", soft_wrap=True)
    if next_step:
        OUT.print(f"\nnext     {escape(next_step)}", soft_wrap=True)


def row_of(comparison: Comparison, group: Group) -> list[str]:
    """Returns the cells of a group: its run or the number of its runs, what differs, and the metrics."""
    values = [show_value(json_value(group.values[name])) for name in comparison.columns]
    means = [show_mean(group.metrics.get(name), len(group.runs)) for name in comparison.metrics]
    return [group.runs[0] if len(group.runs) == 1 else f"{len(group.runs)} runs", *values, *means]


def make_table(cells: Sequence[Sequence[str]]) -> Table:
    """Returns a table whose first row is the head."""
    rows = table(*map(escape, cells[0]))
    for row in cells[1:]:
        rows.add_row(*map(escape, row))
    return rows


def show_mean(value: Mean | None, runs: int) -> str:
    """Formats a metric: `-97.31 ± 0.42`, `-97.31` for a single run, `-97.31 (1 of 2)` if one of two runs has it."""
    if value is None:
        return "-"
    deviation = "" if value.deviation is None else f" ± {value.deviation:.2g}"
    return f"{value.mean:,.5g}{deviation}" + ("" if value.n == runs else f" ({value.n} of {runs})")
