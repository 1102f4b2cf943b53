"""vaezoo doctor"""

from __future__ import annotations

import click

from vaezoo_cli.options import json_option, print_json


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Tell what this machine has: versions, devices, the ONNX Runtime providers that load.

    What is missing stands beside the command that mends it.
    """
    from vaezoo.doctor import examine

    findings = examine()
    if as_json:
        print_json([finding.as_dict() for finding in findings])
        return
    from vaezoo_cli.render.tables import render_findings

    render_findings(findings)
