"""What `vaezoo eval` draws."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vaezoo_cli.render.tables import ERR, OUT, table

if TYPE_CHECKING:
    from vaezoo import Evaluation

NATS = ".2f"  # to hundredths, as the literature gives them


class Counter:
    """Shows on a terminal how many of a number of things are done."""

    def __init__(self, what: str) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=ERR, disable=not ERR.is_terminal, transient=True)
        self.task = self.bar.add_task(what, visible=False)

    def __enter__(self) -> Counter:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def show(self, done: int, total: int) -> None:
        """Shows the state."""
        self.bar.update(self.task, completed=done, total=total, visible=True)


def render_evaluation(evaluation: Evaluation) -> None:
    """Draws the figures of a model."""
    of = f" of {evaluation.total:,}" if evaluation.examples < evaluation.total else ""
    OUT.print(
        f"{escape(evaluation.model)}, step {evaluation.checkpoint['step']}, on the {evaluation.split} part of "
        f"{escape(evaluation.data)}: {evaluation.examples:,}{of} examples",
        soft_wrap=True,
    )
    made = table("figure", "value", "", "how")
    single = [figure for figure in evaluation.metrics if not isinstance(figure.value, tuple)]
    for figure in single:
        value = show_number(figure.value, figure.unit)
        value += "" if figure.error is None else f" ± {figure.error:{NATS if figure.unit == 'nats' else '.2g'}}"
        made.add_row(escape(figure.name), value, figure.unit, escape(figure.protocol))
    OUT.print(made)
    for figure in evaluation.metrics:
        if figure not in single:
            OUT.print(f"{escape(figure.name)}: {show_number(figure.value, figure.unit)} {figure.unit}", soft_wrap=True)


def show_number(value: float | tuple[float, ...], unit: str) -> str:
    """Writes a figure: nats to hundredths, as the literature does."""
    if isinstance(value, tuple):
        return " ".join(show_number(v, unit) for v in value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,{NATS}}" if unit == "nats" else f"{value:,.4g}"
