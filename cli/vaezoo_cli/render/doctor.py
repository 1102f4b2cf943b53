"""The output of `vaezoo doctor`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.markup import escape

from vaezoo_cli.render.console import OUT, table

if TYPE_CHECKING:
    from vaezoo.doctor import Finding


def render_findings(findings: Iterable[Finding]) -> None:
    """Prints the state of each component. States that have a fix are yellow."""
    rows = table("component", "state", "fix")
    for finding in findings:
        colour = "yellow" if finding.fix else "default"
        rows.add_row(finding.subject, f"[{colour}]{escape(finding.state)}[/]", escape(finding.fix or ""))
    OUT.print(rows)
