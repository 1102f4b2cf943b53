"""vaezoo sample [RUN|MODEL|PRETRAINED|EXPORT]"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vaezoo.errors import VaezooError
from vaezoo_cli.options import (
    checkpoint_option,
    data_out_option,
    drawing_options,
    overlap_option,
    resolution_option,
    source_argument,
    tile_option,
)

if TYPE_CHECKING:
    from vaezoo.core.drawing import Drawing


@click.command()
@source_argument
@click.option("-n", "count", type=click.IntRange(min=1), help="Number of samples.  [default: 64]")
@click.option("--seed", default=0, show_default=True, help="Seed of the latents, and of --draw.")
@click.option(
    "--label", metavar="NAME|INTEGER,...", help="Label of all samples of a conditional model.  [default: all in turn]"
)
@click.option("--draw", is_flag=True, help="Draw x from p(x|z). Without it x is the mean.")
@click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help="Keep rows of a table that meet it, such as sex=female or 'age>30'. May be repeated.",
)
@click.option("--z", "latents", type=click.Path(), metavar="FILE", help="Decode the latents of a .npy or .npz file.")
@drawing_options
@resolution_option
@tile_option
@overlap_option
@checkpoint_option
@data_out_option("samples")
def sample(
    source: str | None,
    count: int | None,
    seed: int,
    label: str | None,
    draw: bool,
    where: tuple[str, ...],
    latents: str | None,
    drawing: Drawing | None,
    resolution: tuple[int, int] | None,
    tile: int | None,
    overlap: int | None,
    checkpoint: str,
    out: str | None,
) -> None:
    """Draw samples from the prior, or decode latents.

    \b
    .png           a grid of images
    FOLDER/        image files in a new folder
    .npz .npy      an array x of any data, with the labels y in a .npz file
    .csv .parquet  a row for each sample of a table or of vectors
    .txt           a line for each text, which is printed without --out

    RUN is a run folder. MODEL means its newest run. Without an argument the newest run of all is used. PRETRAINED is a
    name that 'vaezoo pretrained' shows. EXPORT is a folder that 'vaezoo export' wrote. It runs in ONNX Runtime, with
    other latents for the same seed.

    The latents of --z may have any size if the export has free height and width, and --tile then bounds the memory.
    Samples have the same latents at each --resolution.

    The ids of texts are drawn one by one. --temperature, --top-k and --beam choose likelier ones.

    --where compares with =, !=, <, <=, > or >=. Samples of a table are drawn until -n rows meet all conditions, at most
    1,000 for each of them. Too few are an error.
    """
    from vaezoo.core.conditions import parse_conditions, select
    from vaezoo.plots.examples import labels_of, sample_grid
    from vaezoo.runtime.manifest import table_columns
    from vaezoo_cli.data_files import (
        as_counts,
        check_grid,
        check_suffix,
        output_format,
        read_latents,
        write_data,
        write_plot,
    )
    from vaezoo_cli.options import check_overlap, load_model

    if latents is not None and count is not None:
        raise VaezooError("--z and -n both set the number of samples", "leave out -n")
    if tile is not None and latents is None:
        raise VaezooError("--tile has no effect on samples of the size of the data", "leave out --tile")
    if where and latents is not None:
        raise VaezooError("--where has no effect on latents of a file", "leave out --where")
    overlap = check_overlap(tile, overlap)
    check_suffix(out)
    model = load_model(source, checkpoint)
    columns = table_columns(model.data)
    conditions = parse_conditions(where, columns)
    suffix = output_format(out, model)
    z = None if latents is None else read_latents(latents, model.mode)
    count = len(z) if z is not None else 64 if count is None else count
    if suffix == ".png":
        check_grid(count)
    y = labels_of(model, label, count)
    if conditions:
        chunks = select(lambda n, seed: model.sample(n, seed, draw=draw), conditions, columns, count, seed)
    elif z is None:
        chunks = model.sample(count, seed, y, draw=draw, resolution=resolution, drawing=drawing)
    else:
        chunks = model.decode(z, seed, y, draw=draw, resolution=resolution, tile=tile, overlap=overlap, drawing=drawing)
    if suffix == ".png":
        write_plot(sample_grid(model, chunks, count), "samples", out)
    else:
        write_data(model, "samples", out, as_counts(model, chunks, draw=draw), count, {} if y is None else {"y": y})
