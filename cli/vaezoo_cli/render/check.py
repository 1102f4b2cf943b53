"""The output of `vaezoo check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from vaezoo_cli.render.console import OUT

if TYPE_CHECKING:
    from vaezoo.testing import CheckResult


def render_check(result: CheckResult) -> None:
    """Prints the result of one check: what it requires, or why it is skipped."""
    mark = "[red]FAIL[/]" if result.failure is not None else "[yellow]skip[/]" if result.skipped else "[green]ok[/]  "
    OUT.print(f"{mark}  {result.name}: {escape(result.skipped or result.requirement)}", soft_wrap=True)
    if result.failure is not None:
        OUT.print(f"      {escape(result.failure)}", soft_wrap=True)
