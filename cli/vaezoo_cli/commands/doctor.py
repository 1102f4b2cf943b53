"""vaezoo doctor"""

from __future__ import annotations

import click

from vaezoo_cli.options import json_option, print_json


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Show versions, devices and working ONNX Runtime providers.

    Each problem is shown with the command that fixes it.
    """
    from vaezoo.doctor import examine

    findings = examine()
    if as_json:
        print_json([finding.as_dict() for finding in findings])
        return
    from vaezoo_cli.render.doctor import render_findings

    render_findings(findings)
