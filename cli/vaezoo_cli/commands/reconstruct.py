"""vaezoo reconstruct [RUN|MODEL|PRETRAINED|EXPORT]"""

from __future__ import annotations

import click

from vaezoo_cli.data_options import DataOptions, data_options
from vaezoo_cli.options import SUFFIXES, checkpoint_option, out_option, output_suffixes, source_argument
from vaezoo_cli.plots.examples import reconstructions
from vaezoo_cli.plots.request import PlotRequest


@click.command()
@source_argument
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=32, show_default=True, help="Number of images.")
@checkpoint_option
@data_options()
@out_option("reconstructions.png")
def reconstruct(
    source: str | None,
    count: int,
    checkpoint: str,
    data: DataOptions,
    out: str | None,
) -> None:
    """Draw examples and their reconstructions.

    Images become a PNG grid, in which each row of images has its reconstructions below it. Other data become a file of
    reconstructions, as in 'vaezoo sample'. The examples are evenly spaced in the test split, or in the validation split
    if there is no test split. They come from --data, by default from the data set that the model was trained on. RUN,
    MODEL, PRETRAINED and EXPORT are as in 'vaezoo sample'.
    """
    output_suffixes(out, SUFFIXES)
    request = PlotRequest(source=source, checkpoint=checkpoint, count=count, data=data)
    reconstructions(request).write("reconstructions", out)
