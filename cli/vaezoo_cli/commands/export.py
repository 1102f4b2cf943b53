"""vaezoo export [RUN|MODEL|PRETRAINED] --onnx"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click
from click.core import ParameterSource

from vaezoo.errors import VaezooError
from vaezoo_cli.options import checkpoint_option, json_option, open_run, print_json

if TYPE_CHECKING:
    from vaezoo.export.config import DType
    from vaezoo.interop.exporting import FloatType

# Options that a folder for diffusers does not have.
OF_GRAPHS = ("onnx", "opset", "uint8", "waveform_in", "fold_scaling", "parts")


@click.command()
@click.argument("run", required=False, metavar="[RUN|MODEL|PRETRAINED]")
@click.option("--onnx", is_flag=True, help="Write ONNX graphs; the same as --format onnx.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["onnx", "diffusers"]),
    help="onnx, or diffusers for the folder of an autoencoder that diffusers loads.",
)
@click.option(
    "--out",
    type=click.Path(),
    metavar="FOLDER",
    help="Export folder.  [default: exports/RUN, or exports/RUN-diffusers]",
)
@click.option("--opset", default=18, show_default=True, help="Version of the ONNX operator set.")
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Type of weights and arithmetic. Inputs and outputs are float32.",
)
@click.option("--uint8", is_flag=True, help="Read and return images as bytes (N, H, W, C).")
@click.option("--waveform-in", is_flag=True, help="Let the encoder of a model of sound take waveforms (N, samples).")
@click.option(
    "--fold-scaling",
    is_flag=True,
    help="Give latents the scale of latent diffusion, inside the graphs: (z - shift_factor) * scaling_factor.",
)
@click.option("--parts", metavar="NAME,...", help="Graphs to write, such as decoder.  [default: all of the model]")
@checkpoint_option
@json_option
@click.pass_context
def export(
    context: click.Context,
    /,
    run: str | None,
    onnx: bool,
    file_format: str | None,
    out: str | None,
    opset: int,
    dtype: str,
    uint8: bool,
    waveform_in: bool,
    fold_scaling: bool,
    parts: str | None,
    checkpoint: str,
    as_json: bool,
) -> None:
    """Export encoder and decoder to ONNX, or write a folder for diffusers.

    The graphs accept any batch size. Nothing is written unless they match the model. RUN, MODEL and PRETRAINED are as
    in 'vaezoo sample'.

    A folder for diffusers takes --out and --dtype fp32 or fp16. docs/import.md lists its models.
    """
    if not onnx and file_format is None:
        raise VaezooError("no format given", "add --onnx")
    if file_format == "diffusers":
        given = [name for name in OF_GRAPHS if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
        if given:
            option = f"--{given[0].replace('_', '-')}"
            raise VaezooError(f"{option} is for ONNX graphs, not for --format diffusers", f"leave out {option}")
        write_diffusers(run, out, dtype, checkpoint, as_json)
        return
    from vaezoo.export.config import ExportConfig

    # It raises for invalid values before the run is loaded.
    ExportConfig(opset=opset, dtype=cast("DType", dtype), uint8=uint8, waveform=waveform_in)
    from vaezoo import export_onnx

    names = None if parts is None else [name.strip() for name in parts.split(",")]
    source = open_run(run, checkpoint)
    result = export_onnx(
        source,
        out,
        opset=opset,
        dtype=cast("DType", dtype),
        uint8=uint8,
        waveform_in=waveform_in,
        parts=names,
        fold_scaling=fold_scaling,
    )
    if as_json:
        print_json({"folder": str(result.path), **result.manifest})
        return
    from vaezoo_cli.render.export import render_export

    render_export(result)


def write_diffusers(source: str | None, out: str | None, dtype: str, checkpoint: str, as_json: bool) -> None:
    """Writes a folder for diffusers, and prints it."""
    from vaezoo import export_diffusers

    path = export_diffusers(open_run(source, checkpoint), out, dtype=cast("FloatType", dtype))
    if as_json:
        print_json({"folder": str(path), "files": sorted(file.name for file in path.iterdir())})
    else:
        click.echo(f"written  {path}/")
