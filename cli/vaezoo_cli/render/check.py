"""The output of `vaezoo check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from vaezoo_cli.render.console import OUT

if TYPE_CHECKING:
    from vaezoo.testing import CheckResult


def render_check(result: CheckResult) -> None:
    """Prints the result of one check."""
    mark = "[green]ok[/]  " if result.failure is None else "[red]FAIL[/]"
    OUT.print(f"{mark}  {result.name}: {escape(result.requirement)}", soft_wrap=True)
    if result.failure is not None:
        OUT.print(f"      {escape(result.failure)}", soft_wrap=True)
