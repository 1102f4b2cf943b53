"""vaezoo reconstruct [RUN|MODEL|PRETRAINED|EXPORT]"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from vaezoo.errors import VaezooError
from vaezoo_cli.data_options import DataOptions, data_options
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
    from numpy.typing import NDArray

    from vaezoo import Run
    from vaezoo.core.drawing import Drawing
    from vaezoo.plots.loaded_model import LoadedModel

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
@drawing_options
@click.option("--impute", is_flag=True, help="Keep the cells of a table that are not missing.")
@click.option("--label", metavar="NAME|INTEGER,...", help="Give the decoder of a conditional model this label instead.")
@click.option("--attribute", metavar="NAME|INTEGER", help="Add the attribute vector of this label to the latents.")
@click.option(
    "--factor", type=click.IntRange(min=0), help="Index of the attribute, if each example has several labels."
)
@click.option("--amount", default=1.0, show_default=True, help="How many attribute vectors to add.")
@resolution_option
@click.option("--keep-size", is_flag=True, help="Keep the size of image files, by an export of free height and width.")
@tile_option
@overlap_option
@click.option(
    "--pad",
    type=click.Choice(["reflect", "edge"]),
    help="With --keep-size, what is added to an image whose sides the model does not divide, and cropped again.",
)
@checkpoint_option
@data_options()
@data_out_option("reconstructions")
def reconstruct(
    source: str | None,
    count: int | None,
    draw: bool,
    seed: int,
    drawing: Drawing | None,
    impute: bool,
    label: str | None,
    attribute: str | None,
    factor: int | None,
    amount: float,
    resolution: tuple[int, int] | None,
    keep_size: bool,
    tile: int | None,
    overlap: int | None,
    pad: str | None,
    checkpoint: str,
    data: DataOptions,
    out: str | None,
) -> None:
    """Reconstruct examples.

    A PNG grid has the reconstructions below each row of images. Other files are as in 'vaezoo sample', with the name
    of each example. The examples come from --data, by default from the held-out part of the data set that the model
    was trained on. RUN, MODEL, PRETRAINED and EXPORT are as in 'vaezoo sample'.

    Texts are printed without --out. Their ids are the likeliest ones, one by one. --beam looks further ahead, and
    --temperature and --top-k draw them.

    The attribute vector of a label is the mean of the latents of training examples with it, minus that of the others.

    With --keep-size the images of --data, a file or a folder, are reconstructed one by one in their own size, into the
    folder --out. --tile bounds the memory that each takes.
    """
    from vaezoo.evaluation.edits import Edit, iter_edited
    from vaezoo.evaluation.outputs import iter_imputed
    from vaezoo.plots.examples import reconstruction_grid
    from vaezoo_cli.data_files import (
        as_counts,
        check_grid,
        check_suffix,
        output_format,
        row_columns,
        write_data,
        write_plot,
    )
    from vaezoo_cli.options import load_model

    if keep_size:
        if count is not None or draw or resolution is not None or drawing is not None or label or attribute:
            what = "--keep-size does not go with -n, --draw, --label, --attribute, --resolution and --beam"
            raise VaezooError(what, "leave them out")
        write_full_size(source, checkpoint, data, out, tile, overlap, pad)
        return
    if tile is not None or overlap is not None or pad is not None:
        raise VaezooError("--tile, --overlap and --pad are for images in their own size", "give --keep-size too")
    check_suffix(out)
    model = load_model(source, checkpoint)
    suffix = output_format(out, model)
    examples = data.load(model.model)
    if suffix == ".png":
        count = check_grid(GRID_COUNT if count is None else count)
    examples = examples.limited(count)
    edit = Edit(attribute_shift(model, attribute, factor, amount), label)
    chunks = iter_edited(
        model.model, examples.split, edit, draw=draw, seed=seed, resolution=resolution, drawing=drawing
    )
    chunks = iter_imputed(model.model, examples.split, chunks) if impute else chunks
    if suffix == ".png":
        write_plot(reconstruction_grid(model, examples, chunks), "reconstructions", out)
    else:
        chunks = as_counts(model, chunks, draw=draw)
        write_data(model, "reconstructions", out, chunks, len(examples), row_columns(examples))


def attribute_shift(
    model: LoadedModel, attribute: str | None, factor: int | None, amount: float
) -> NDArray[Any] | None:
    """Returns the attribute vector of a label times an amount, or None if no attribute is given.

    Raises:
        VaezooError: If the model is an export, which does not hold its training data, or the label is unknown.
    """
    from vaezoo.plots.latent_space import label_direction

    if attribute is None:
        if factor is not None:
            raise VaezooError("--factor is the index of an attribute", "give --attribute, too")
        return None
    if model.export is not None:
        raise VaezooError(f"{model.folder} is an export, which does not hold its training data", "name the run")
    run = cast("Run", model.model)
    direction = label_direction(run, run.load_data().train, run.data, factor, attribute)[1]
    return amount * direction.numpy()


def write_full_size(
    source: str | None,
    checkpoint: str,
    data: DataOptions,
    out: str | None,
    tile: int | None,
    overlap: int | None,
    pad: str | None,
) -> None:
    """Writes reconstructions of image files in their own size into a folder, and prints its path."""
    from pathlib import Path

    from vaezoo.core.result_files import image_name, write_images
    from vaezoo.evaluation.full_size import find_images, reconstruct_files, require_free_size
    from vaezoo.plots.output import default_output_dir
    from vaezoo.runtime.tiling import Pad
    from vaezoo_cli.options import check_overlap, load_model

    if data.data is None:
        raise VaezooError("--keep-size needs image files", "give --data with an image or a folder")
    overlap = check_overlap(tile, overlap)
    model = load_model(source, checkpoint)
    require_free_size(model.model)
    files, padding = find_images(data.data), cast("Pad | None", pad)
    images = reconstruct_files(model.model, files, tile=tile, overlap=overlap, pad=padding)
    folder, taken = Path(out) if out else default_output_dir(model.folder) / "reconstructions", set[str]()
    write_images(folder, ((image_name(name, taken), image) for name, image in images))
    click.echo(folder)
