"""vaezoo export [RUN|MODEL] --onnx"""

from __future__ import annotations

import click

from vaezoo.errors import VaezooError
from vaezoo_cli.options import checkpoint_option, json_option, open_run, print_json


@click.command()
@click.argument("run", required=False, metavar="[RUN|MODEL]")
@click.option("--onnx", is_flag=True, help="Write ONNX graphs, the one format there is.")
@click.option("--out", type=click.Path(), metavar="FOLDER", help="Where to  [default: exports/RUN]")
@click.option("--opset", default=18, show_default=True, help="Version of the ONNX operator set.")
@checkpoint_option
@json_option
def export(run: str | None, onnx: bool, out: str | None, opset: int, checkpoint: str, as_json: bool) -> None:
    """Export encoder and decoder to ONNX and compare them with the model.

    RUN is a run folder; a model's name means its newest run; nothing means the newest run of all. The
    graphs take any batch size. If one does not equal the model, nothing is written.
    """
    if not onnx:
        raise VaezooError("no format was asked for", "add --onnx")
    from vaezoo import export_onnx

    exported = export_onnx(open_run(run, checkpoint), out, opset=opset)
    if as_json:
        print_json(
            {
                "folder": str(exported.path),
                "runtime": exported.runtime,
                "parity": [row.as_dict() for row in exported.parity],
            }
        )
        return
    from vaezoo_cli.draw import draw_export

    draw_export(exported)
