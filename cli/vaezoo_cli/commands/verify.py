"""vaezoo verify FOLDER"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from vaezoo_cli.options import json_option, print_json

if TYPE_CHECKING:
    from vaezoo.runtime.ort_session import Provider


@click.command()
@click.argument("folder", type=click.Path())
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Execution provider of ONNX Runtime.",
)
@click.option("--seconds", type=click.IntRange(1, 86_400), default=300, show_default=True, help="Time limit.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, min_open=True),
    metavar="T",
    help="For graphs derived from the export: accept differences of T * (1 + |model|), and other hashes.",
)
@json_option
def verify(folder: str, provider: str, seconds: int, tolerance: float | None, as_json: bool) -> None:
    """Check an export folder from its files only, without PyTorch.

    The checks cover the hashes, the structure of both graphs, their common checkpoint, and their outputs for the golden
    inputs at several batch sizes. The graphs run in a separate process with limits on memory and time.
    """
    from vaezoo.export.verify import verify_onnx

    result = verify_onnx(folder, cast("Provider", provider), seconds=seconds, tolerance=tolerance)
    if as_json:
        rows = [row.as_dict() for row in result.parity]
        about = {"folder": folder, "runtime": result.runtime, "provider": provider, "derived": result.derived}
        print_json({**about, "rows": rows})
        return
    from vaezoo_cli.render.export import render_verification

    render_verification(result)
