"""vaezoo sample [RUN|MODEL|PRETRAINED|EXPORT]"""

from __future__ import annotations

import click

from vaezoo_cli.options import (
    SUFFIXES,
    checkpoint_option,
    out_option,
    output_suffixes,
    source_argument,
)
from vaezoo_cli.plots.examples import samples
from vaezoo_cli.plots.request import PlotRequest


@click.command()
@source_argument
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=64, show_default=True, help="Number of images.")
@click.option("--seed", default=0, show_default=True, help="Seed of the latents.")
@click.option(
    "--label", metavar="NAME|INTEGER,...", help="Label of all samples of a conditional model.  [default: all in turn]"
)
@checkpoint_option
@out_option("samples.png")
def sample(source: str | None, count: int, seed: int, label: str | None, checkpoint: str, out: str | None) -> None:
    """Draw samples from the prior.

    Images become a PNG grid. Texts become a file of lines, tables a CSV file, and other data a .npy file.

    RUN is a run folder. MODEL means its newest run. Without an argument the newest run of all is used. PRETRAINED is a
    name that 'vaezoo pretrained' shows. EXPORT is a folder that 'vaezoo export' wrote. It runs in ONNX Runtime, with
    other latents for the same seed.
    """
    output_suffixes(out, SUFFIXES)
    request = PlotRequest(source=source, checkpoint=checkpoint, count=count, seed=seed, label=label)
    samples(request).write("samples", out)
