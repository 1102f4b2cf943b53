"""vaezoo plot [RUN|MODEL|PRETRAINED|EXPORT] --kind KIND"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from vaezoo.errors import VaezooError
from vaezoo.plots.output import output_suffixes
from vaezoo_cli.data_options import DataOptions, data_options
from vaezoo_cli.options import checkpoint_option, load_model, out_option, resolution_option, source_argument

if TYPE_CHECKING:
    from vaezoo.plots.kinds import PlotKind

FOR_ALL_KINDS = {"source", "kind", "out"}


@click.command()
@source_argument
@click.option("--kind", required=True, metavar="KIND", help="Kind of plot, see above.")
@click.option("-n", "count", type=click.IntRange(min=1), help="Number of images or examples, see above.")
@click.option("--seed", default=0, show_default=True, help="Seed of latents, or of the choice of held-out images.")
@click.option("--dims", metavar="INTEGER,...", help="Latent dimensions of traversals, e.g. 0,3  [default: all]")
@click.option("--label", metavar="NAME|INTEGER", help="Label of the attribute vector.")
@click.option("--factor", type=click.IntRange(min=0), help="Index of the label, if each example has several.")
@resolution_option
@checkpoint_option
@data_options()
@out_option("KIND.png")
@click.pass_context
def plot(
    context: click.Context,
    /,
    source: str | None,
    kind: str,
    count: int | None,
    seed: int,
    dims: str | None,
    label: str | None,
    factor: int | None,
    resolution: tuple[int, int] | None,
    checkpoint: str,
    data: DataOptions,
    out: str | None,
) -> None:
    """Draw what a model has learnt.

    \b
    samples           -n 64 images sampled from the prior
    reconstructions   -n 32 held-out images above their reconstructions
    traversals        one image with each latent dimension at -n 9 values, as PNG and GIF
    interpolation     -n 8 pairs of held-out images, and images between them
    manifold          -n 15 x 15 images over two latent dimensions
    latents           latents of -n 2000 held-out examples, coloured by label if they have one
    learning-curves   -ELBO, reconstruction and KL during the training
    attribute-vector  -n 8 held-out images with a label's vector subtracted and added

    The interpolation of texts is lines, which are printed without --out: --text A --text B names the two ends.

    RUN, MODEL, PRETRAINED and EXPORT are as in 'vaezoo sample'. An EXPORT has samples and reconstructions only.
    """
    from vaezoo.plots.kinds import check_count, find_kind
    from vaezoo.plots.request import PlotRequest
    from vaezoo.runtime.export_files import is_export
    from vaezoo_cli.data_files import write_plot

    plot_kind = find_kind(kind)
    given = {name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    reject_unused(kind, plot_kind, given)
    count = plot_kind.count if count is None else count
    if plot_kind.count:
        check_count(kind, count)
    chosen, suffixes = parse_dims(dims), output_suffixes(out, plot_kind.suffixes)
    if source is not None and not plot_kind.takes_exports and is_export(source):
        what = f"{source} is an export, but this plot needs a run"
        raise VaezooError(what, "give the run folder that was exported")
    model = load_model(source, checkpoint, warn="checkpoint" in plot_kind.options)
    request = PlotRequest(
        model=model,
        load_examples=lambda: data.load(model.model),
        count=count,
        seed=seed,
        dims=chosen,
        label=label,
        factor=factor,
        suffixes=suffixes,
        resolution=resolution,
        in_order=bool(data.text),
    )
    write_plot(plot_kind.draw(request), kind, out)


def parse_dims(text: str | None) -> list[int] | None:
    """Parses a list of latent dimensions. Raises VaezooError if the text is not a list of integers."""
    try:
        return None if text is None else [int(n) for n in text.split(",")]
    except ValueError:
        raise VaezooError(f"--dims takes integers, not '{text}'", "for example --dims 0,3") from None


def reject_unused(kind: str, plot_kind: PlotKind, given: set[str]) -> None:
    """Raises VaezooError if a user gave an option that a kind of plot does not use."""
    for name in sorted(given - plot_kind.options - FOR_ALL_KINDS):
        option = "-n" if name == "count" else f"--{name.replace('_', '-')}"
        raise VaezooError(f"{option} has no effect on {kind}", f"leave out {option}")
