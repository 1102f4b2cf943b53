"""vaezoo reconstruct [RUN|MODEL|PRETRAINED|EXPORT]"""

from __future__ import annotations

import click

from vaezoo_cli.data_options import DataOptions, data_options
from vaezoo_cli.options import checkpoint_option, data_out_option, source_argument

GRID_COUNT = 32


@click.command()
@source_argument
@click.option(
    "-n",
    "--limit",
    "count",
    type=int,
    metavar="N",
    help="Number of examples, evenly spaced.  [default: 32 in a grid, all in other files]",
)
@click.option("--draw", is_flag=True, help="Draw x from p(x|z). Without it x is the mean.")
@click.option("--seed", default=0, show_default=True, help="Seed of --draw.")
@checkpoint_option
@data_options()
@data_out_option("reconstructions")
def reconstruct(
    source: str | None,
    count: int | None,
    draw: bool,
    seed: int,
    checkpoint: str,
    data: DataOptions,
    out: str | None,
) -> None:
    """Reconstruct examples.

    A PNG grid has the reconstructions below each row of images. Other files are as in 'vaezoo sample', with the name
    of each example. The examples come from --data, by default from the held-out part of the data set that the model
    was trained on. RUN, MODEL, PRETRAINED and EXPORT are as in 'vaezoo sample'.
    """
    from vaezoo.evaluation.outputs import iter_reconstructions
    from vaezoo.plots.examples import reconstruction_grid
    from vaezoo_cli.data_files import check_grid, check_suffix, output_format, row_columns, write_data, write_plot
    from vaezoo_cli.options import load_model

    check_suffix(out)
    model = load_model(source, checkpoint)
    suffix = output_format(out, model)
    examples = data.load(model.model)
    if suffix == ".png":
        count = check_grid(GRID_COUNT if count is None else count)
    examples = examples.limited(count)
    chunks = iter_reconstructions(model.model, examples.split, draw=draw, seed=seed)
    if suffix == ".png":
        write_plot(reconstruction_grid(model, examples, chunks), "reconstructions", out)
    else:
        write_data(model, "reconstructions", out, chunks, len(examples), row_columns(examples))
