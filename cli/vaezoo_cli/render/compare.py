"""The output of `vaezoo compare` and `vaezoo sweep`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from vaezoo.core.options import json_value, show_value
from vaezoo_cli.render.console import OUT, table

if TYPE_CHECKING:
    from vaezoo.evaluation.compare import Comparison, Mean


def render_comparison(comparison: Comparison, next_step: str | None) -> None:
    """Prints a table of runs: a row for each group, mean ± standard deviation for each metric."""
    rows = table(*(escape(name) for name in comparison.columns), "runs", *(escape(n) for n in comparison.metrics))
    for group in comparison.groups:
        values = [escape(show_value(json_value(group.values[name]))) for name in comparison.columns]
        means = [show_mean(group.metrics.get(name), len(group.runs)) for name in comparison.metrics]
        rows.add_row(*values, str(len(group.runs)), *means)
    OUT.print(rows)
    for name, message in comparison.failed.items():
        OUT.print(f"failed      {escape(name)}: {escape(message)}", soft_wrap=True)
    for path in comparison.unfinished:
        OUT.print(f"unfinished  {escape(path)}", soft_wrap=True)
    if next_step:
        OUT.print(f"\nnext     {escape(next_step)}", soft_wrap=True)


def show_mean(value: Mean | None, runs: int) -> str:
    """Formats a metric: `-97.31 ± 0.42`, `-97.31` for a single run, `-97.31 (1 of 2)` if one of two runs has it."""
    if value is None:
        return "-"
    deviation = "" if value.deviation is None else f" ± {value.deviation:.2g}"
    return f"{value.mean:,.5g}{deviation}" + ("" if value.n == runs else f" ({value.n} of {runs})")
