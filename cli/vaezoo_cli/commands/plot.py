"""vaezoo sample, vaezoo reconstruct and vaezoo plot"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from vaezoo.errors import VaezooError
from vaezoo_cli.data_options import DataOptions, data_options
from vaezoo_cli.options import F, checkpoint_option, default_output_dir, source_argument, suffixes_of
from vaezoo_cli.plots import KINDS, Kind, PlotRequest, reconstructions, samples

if TYPE_CHECKING:
    from vaezoo_cli.plots import PlotResult

ALWAYS = {"source", "kind", "out"}


def out_option(name: str) -> Callable[[F], F]:
    """Adds --out, by default `name` in the run folder."""
    kind = click.Path(dir_okay=False)
    return click.option("--out", type=kind, metavar="FILE", help=f"The image  [default: {name} beside the model]")


@click.command()
@source_argument
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=64, show_default=True, help="How many.")
@click.option("--seed", default=0, show_default=True, help="Determines which latents are drawn.")
@checkpoint_option
@out_option("samples.png")
def sample(source: str | None, count: int, seed: int, checkpoint: str, out: str | None) -> None:
    """Write a PNG grid of images drawn from the prior.

    RUN is a run folder; a model's name means its newest run; nothing means the newest run of all. PRETRAINED is a
    name that 'vaezoo pretrained' lists. EXPORT is a folder that 'vaezoo export' wrote; its graphs run in ONNX Runtime,
    and draw other latents for the same seed.
    """
    suffixes_of(out, (".png",))
    write(samples(PlotRequest(source=source, checkpoint=checkpoint, count=count, seed=seed)), "samples", out)


@click.command()
@source_argument
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=32, show_default=True, help="How many.")
@checkpoint_option
@data_options()
@out_option("reconstructions.png")
def reconstruct(
    source: str | None,
    count: int,
    checkpoint: str,
    choice: DataOptions,
    out: str | None,
) -> None:
    """Write a PNG grid of images and reconstructions.

    Each row of originals stands above its reconstructions. The images are those of the test part, or of the
    validation part where there is no test part, evenly spaced. They come from --data, else from the data set
    that the model was trained on.
    """
    suffixes_of(out, (".png",))
    asked = PlotRequest(source=source, checkpoint=checkpoint, count=count, data=choice)
    write(reconstructions(asked), "reconstructions", out)


@click.command()
@source_argument
@click.option("--kind", required=True, type=click.Choice(list(KINDS)), help="What to draw.")
@click.option("-n", "count", type=click.IntRange(min=1), help="How many; of what and by default, see above.")
@click.option("--seed", default=0, show_default=True, help="Determines latents, or which held-out images are drawn.")
@click.option("--dims", metavar="NUMBERS", help="Latent dimensions of traversals, e.g. 0,3  [default: all]")
@click.option("--label", type=int, help="The label that a concept is made of.")
@click.option("--factor", type=click.IntRange(min=0), help="Which label, from 0, where each example has several.")
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
    label: int | None,
    factor: int | None,
    checkpoint: str,
    choice: DataOptions,
    out: str | None,
) -> None:
    """Draw what a model has learnt.

    \b
    samples          -n 64 images drawn from the prior
    reconstructions  -n 32 held-out images above their reconstructions
    traversals       each latent dimension of one image at -n 9 values, as PNG and as GIF
    interpolation    -n 8 pairs of held-out images and what is between them
    manifold         -n 15 x 15 images over two latent dimensions
    scatter          -n 2000 latents of held-out examples, coloured by label
    curves           the bound and its parts during the training
    concept          -n 8 held-out images with what makes a label added and subtracted

    RUN is a run folder; a model's name means its newest run; nothing means the newest run of all. PRETRAINED is a
    name that 'vaezoo pretrained' lists. Samples and reconstructions are drawn of an EXPORT, too.
    """
    chosen = KINDS[kind]
    given = {name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    reject_unused(kind, chosen, given)
    count = chosen.count if count is None else count
    if count > chosen.most:
        raise VaezooError(f"-n {count} is too much for {kind}", f"give at most {chosen.most}")
    asked = PlotRequest(
        source=source,
        checkpoint=checkpoint,
        count=count,
        data=choice,
        seed=seed,
        dims=dims,
        label=label,
        factor=factor,
        suffixes=suffixes_of(out, chosen.suffixes),
    )
    write(chosen.draw(asked), kind, out)


def reject_unused(kind: str, chosen: Kind, given: set[str]) -> None:
    """Raises VaezooError if an option was given that changes nothing of this kind."""
    for name in sorted(given - chosen.takes - ALWAYS):
        option = "-n" if name == "count" else f"--{name.replace('_', '-')}"
        raise VaezooError(f"{option} does nothing for {kind}", "leave it out")


def write(drawn: PlotResult, name: str, out: str | None) -> None:
    """Writes what was drawn and says where it is."""
    from vaezoo.core.atomic import write_file

    for suffix, data in drawn.files.items():
        path = out or default_output_dir(drawn.folder) / f"{name}{suffix}"
        write_file(Path(path), data)
        click.echo(path)
