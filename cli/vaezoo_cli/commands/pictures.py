"""vaezoo sample RUN and vaezoo reconstruct RUN"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo_cli.options import F, checkpoint_option, data_options, open_run

if TYPE_CHECKING:
    from torch import Tensor

    from vaezoo import Run

VISIBLE = 64  # pixels a side that small pictures are enlarged to
BLANK = 0.5  # grey of the grid's lines and gaps

run_argument = click.argument("run", required=False, metavar="[RUN|MODEL]")


def out_option(name: str) -> Callable[[F], F]:
    """Adds --out, by default `name` in the run folder."""
    kind = click.Path(dir_okay=False)
    return click.option("--out", type=kind, metavar="PNG", help=f"The picture  [default: RUN/{name}]")


@click.command()
@run_argument
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=64, show_default=True, help="How many.")
@click.option("--seed", default=0, show_default=True, help="Determines which latents are drawn.")
@checkpoint_option
@out_option("samples.png")
def sample(run: str | None, count: int, seed: int, checkpoint: str, out: str | None) -> None:
    """Write a PNG grid of pictures drawn from the prior.

    RUN is a run folder; a model's name means its newest run; nothing means the newest run of all.
    """
    import torch

    require_png(out)
    opened = open_run(run, checkpoint)
    require_pictures(opened)
    torch.manual_seed(seed)
    with torch.no_grad():
        pictures = opened.vae.sample(count)
    save_grid(pictures, grid_columns(count), out or opened.path / "samples.png")


@click.command()
@run_argument
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=32, show_default=True, help="How many.")
@checkpoint_option
@data_options(None)
@click.option(
    "--out", type=click.Path(dir_okay=False), metavar="PNG", help="The picture  [default: RUN/reconstructions.png]"
)
def reconstruct(
    run: str | None,
    count: int,
    checkpoint: str,
    data: str | None,
    data_dir: str | None,
    size: int | None,
    out: str | None,
) -> None:
    """Write a PNG grid of pictures and reconstructions.

    Each row of originals stands above its reconstructions. The pictures are those of the test part, or of the
    validation part where there is no test part, evenly spaced.
    """
    import torch

    import vaezoo

    require_png(out)
    opened = open_run(run, checkpoint)
    require_pictures(opened)
    dataset = opened.load_data() if data is None else vaezoo.load_data(data, data_dir=data_dir, size=size)
    if dataset.spec.shape != opened.data.shape:
        raise UnsupportedDataError(
            f"{opened.path} takes shape {opened.data.shape}, '{dataset.spec.name}' has {dataset.spec.shape}",
            "give data of that shape; --size changes height and width alone",
        )
    _, part = dataset.held_out
    count = min(count, len(part))
    originals = part.batch(torch.arange(count) * len(part) // count).x  # spread out: folders are sorted by class
    with torch.no_grad():
        reconstructions = opened.vae.reconstruct(originals)
    columns = grid_columns(2 * len(originals))
    save_grid(interleave_rows(originals, reconstructions, columns), columns, out or opened.path / "reconstructions.png")


def require_png(out: str | None) -> None:
    """Raises VaezooError if the picture's name promises another format."""
    if out is not None and Path(out).suffix.lower() != ".png":
        raise VaezooError(f"'{out}' is no name of a PNG", "end it in .png")


def require_pictures(run: Run) -> None:
    """Raises UnsupportedDataError unless the run's data can be drawn."""
    if len(run.data.shape) != 3 or run.data.shape[0] not in (1, 3):
        raise UnsupportedDataError(
            f"{run.path} was trained on shape {run.data.shape}, which is no picture", "use the Python API: run.vae"
        )


def interleave_rows(above: Tensor, below: Tensor, columns: int) -> Tensor:
    """Orders pictures so that in a grid each row of `above` is followed by its row of `below`."""
    import torch

    missing = -len(above) % columns
    blank = above.new_full((missing, *above.shape[1:]), BLANK)
    rows = [torch.split(torch.cat([part, blank]), columns) for part in (above, below)]
    return torch.cat([row for pair in zip(*rows, strict=True) for row in pair])


def grid_columns(count: int) -> int:
    """Returns the number of columns of a grid of `count` pictures: as square as it can be, at most 16."""
    return min(16, max(1, round(math.sqrt(count))))


def save_grid(pictures: Tensor, columns: int, out: str | Path) -> None:
    """Writes pictures `(N, C, H, W)` in [0, 1] as one PNG, small ones enlarged, and says where it is."""
    import io

    import torch
    from torchvision.transforms.functional import to_pil_image
    from torchvision.utils import make_grid

    from vaezoo.files import write_file

    enlarged = torch.nn.functional.interpolate(pictures, scale_factor=max(1, VISIBLE // pictures.shape[-1]))
    grid = make_grid(enlarged.clamp(0, 1), nrow=columns, padding=2, pad_value=BLANK)
    buffer = io.BytesIO()
    to_pil_image(grid).save(buffer, format="PNG")
    write_file(Path(out), buffer.getvalue())
    click.echo(out)
