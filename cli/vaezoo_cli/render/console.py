"""The two consoles, and the one style of tables. Data goes to stdout; progress and notes go to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 240  # columns of output that is not a terminal; long lines stay whole for grep


class StdoutConsole(Console):
    """A console that raises BrokenPipeError when the reader of a pipe has left, as in `vaezoo list | head`."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise BrokenPipeError


class StderrConsole(Console):
    """A console for progress. When the reader of a pipe has left, the work continues without output."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


# No emoji: ":key:" in a name or a path stays as it is.
WIDTH = None if sys.stdout is not None and sys.stdout.isatty() else PIPE_WIDTH
OUT = StdoutConsole(highlight=False, emoji=False, width=WIDTH)
ERR = StderrConsole(stderr=True, highlight=False, emoji=False)


def table(*columns: str) -> Table:
    """Returns an empty table."""
    result = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        result.add_column(column, overflow="fold")
    return result


def show_shape(shape: Iterable[int]) -> str:
    """Formats a shape as "1x28x28" or "vector of 100"."""
    sizes = [str(n) for n in shape]
    return "x".join(sizes) if len(sizes) > 1 else f"vector of {sizes[0]}"
