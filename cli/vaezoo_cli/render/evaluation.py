"""The output of `vaezoo eval`."""

from __future__ import annotations

import statistics
from types import TracebackType
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vaezoo_cli.render.console import ERR, OUT, table

if TYPE_CHECKING:
    from vaezoo import Evaluation

NATS = ".2f"  # two decimals, as in the literature
MAX_VALUES = 64  # of a metric with a value for each latent; more would hide the table


class ProgressView:
    """Shows on a terminal how many items are done."""

    def __init__(self, items: str) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=ERR, disable=not ERR.is_terminal, transient=True)
        self.task = self.bar.add_task(items, visible=False)

    def __enter__(self) -> ProgressView:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def show(self, done: int, total: int) -> None:
        """Shows the number of items done, and the total."""
        self.bar.update(self.task, completed=done, total=total, visible=True)


def render_evaluation(evaluation: Evaluation) -> None:
    """Prints the metrics of a model."""
    total = f" of {evaluation.total:,}" if evaluation.examples < evaluation.total else ""
    part = "" if evaluation.split == "all" else f"the {evaluation.split} split of "
    step = evaluation.checkpoint.get("step")  # of an exported module it is not known
    OUT.print(
        f"{escape(evaluation.model)}{'' if step is None else f', step {step}'}, on {part}"
        f"{escape(evaluation.data)}: {evaluation.examples:,}{total} examples",
        soft_wrap=True,
    )
    rows = table("metric", "value", "", "protocol")
    for metric in evaluation.metrics:
        if not isinstance(metric.value, tuple):
            value = show_number(metric.value, metric.unit)
            value += "" if metric.error is None else f" ± {metric.error:{NATS if metric.unit == 'nats' else '.2g'}}"
            rows.add_row(escape(metric.name), value, metric.unit, escape(metric.protocol))
    OUT.print(rows)
    for metric in evaluation.metrics:
        if isinstance(metric.value, tuple):  # one value per latent dimension, too long for the table
            OUT.print(f"{escape(metric.name)}: {show_numbers(metric.value, metric.unit)} {metric.unit}", soft_wrap=True)


def show_numbers(values: tuple[float, ...], unit: str) -> str:
    """Formats the values of a metric, those of many latents by their range. --json has all of them."""
    if len(values) <= MAX_VALUES:
        return " ".join(show_number(value, unit) for value in values)
    low, middle, high = (show_number(f(values), unit) for f in (min, statistics.median, max))
    return f"{len(values):,} values from {low} to {high}, median {middle}"


def show_number(value: float, unit: str) -> str:
    """Formats the value of a metric: nats with two decimals, others with four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,{NATS}}" if unit == "nats" else f"{value:,.4g}"
