"""vaezoo export [RUN|MODEL] --onnx and vaezoo verify FOLDER"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from vaezoo.errors import VaezooError
from vaezoo_cli.options import checkpoint_option, json_option, open_run, print_json

if TYPE_CHECKING:
    from vaezoo.export.config import DType
    from vaezoo.runtime.ort_session import Provider


@click.command()
@click.argument("run", required=False, metavar="[RUN|MODEL|PRETRAINED]")
@click.option("--onnx", is_flag=True, help="Write ONNX graphs, the one format there is.")
@click.option("--out", type=click.Path(), metavar="FOLDER", help="Where to  [default: exports/RUN]")
@click.option("--opset", default=18, show_default=True, help="Version of the ONNX operator set.")
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    show_default=True,
    help="Weights and arithmetic; inputs and outputs are float32 in either.",
)
@click.option("--uint8", is_flag=True, help="Images go in and come out as bytes (N, H, W, C).")
@checkpoint_option
@json_option
def export(
    run: str | None,
    onnx: bool,
    out: str | None,
    opset: int,
    dtype: str,
    uint8: bool,
    checkpoint: str,
    as_json: bool,
) -> None:
    """Export encoder and decoder to ONNX and compare them with the model.

    RUN is a run folder; a model's name means its newest run; nothing means the newest run of all. PRETRAINED is a
    name that 'vaezoo pretrained' lists. The graphs take any batch size. If one does not equal the model, nothing is
    written.
    """
    if not onnx:
        raise VaezooError("no format was asked for", "add --onnx")
    from vaezoo.export.config import ExportConfig

    ExportConfig(opset=opset, dtype=cast("DType", dtype))  # wrong words are told before anything is loaded
    from vaezoo import export_onnx

    opened = open_run(run, checkpoint)
    exported = export_onnx(opened, out, opset=opset, dtype=cast("DType", dtype), uint8=uint8)
    if as_json:
        print_json({"folder": str(exported.path), **exported.manifest})
        return
    from vaezoo_cli.render.tables import render_export

    render_export(exported)


@click.command()
@click.argument("folder", type=click.Path())
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="What of ONNX Runtime is to run the graphs.",
)
@click.option("--seconds", type=click.IntRange(1, 86_400), default=300, show_default=True, help="How long it may take.")
@json_option
def verify(folder: str, provider: str, seconds: int, as_json: bool) -> None:
    """Check an exported folder from its files alone.

    Hashes, that both graphs are of one checkpoint, their structure, and what they make of the golden inputs
    at several batch sizes. It needs no checkpoint and no PyTorch, and opens the graphs in a process of its
    own, with limits on memory and time.
    """
    from vaezoo import verify_onnx

    verified = verify_onnx(folder, cast("Provider", provider), seconds=seconds)
    if as_json:
        rows = [row.as_dict() for row in verified.parity]
        print_json({"folder": folder, "runtime": verified.runtime, "provider": provider, "rows": rows})
        return
    from vaezoo_cli.render.tables import render_verified

    render_verified(verified)
