"""vaezoo sample [RUN|MODEL|PRETRAINED|EXPORT]"""

from __future__ import annotations

import click

from vaezoo_cli.options import checkpoint_option, out_option, output_suffixes, source_argument
from vaezoo_cli.plots.examples import samples
from vaezoo_cli.plots.request import PlotRequest


@click.command()
@source_argument
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=64, show_default=True, help="Number of images.")
@click.option("--seed", default=0, show_default=True, help="Seed of the latents.")
@checkpoint_option
@out_option("samples.png")
def sample(source: str | None, count: int, seed: int, checkpoint: str, out: str | None) -> None:
    """Draw a PNG grid of images sampled from the prior.

    RUN is a run folder. MODEL means its newest run. Without an argument the newest run of all is used. PRETRAINED is a
    name that 'vaezoo pretrained' shows. EXPORT is a folder that 'vaezoo export' wrote. It runs in ONNX Runtime, with
    other latents for the same seed.
    """
    output_suffixes(out, (".png",))
    request = PlotRequest(source=source, checkpoint=checkpoint, count=count, seed=seed)
    samples(request).write("samples", out)
