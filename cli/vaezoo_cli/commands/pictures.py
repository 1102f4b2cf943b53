"""vaezoo sample and vaezoo reconstruct, of a run or of an exported folder"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo_cli.options import F, checkpoint_option, data_options, open_export, open_run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vaezoo import Dataset, Run
    from vaezoo.runtime import OnnxVAE

    Pictures = NDArray[Any]  # bytes (N, H, W, C)

VISIBLE = 64  # pixels a side that small pictures are enlarged to
BLANK = 128  # grey of the grid's lines and gaps
PADDING = 2  # pixels

source_argument = click.argument("source", required=False, metavar="[RUN|MODEL|EXPORT]")


def out_option(name: str) -> Callable[[F], F]:
    """Adds --out, by default `name` in the run folder."""
    kind = click.Path(dir_okay=False)
    return click.option("--out", type=kind, metavar="PNG", help=f"The picture  [default: {name} in that folder]")


@click.command()
@source_argument
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=64, show_default=True, help="How many.")
@click.option("--seed", default=0, show_default=True, help="Determines which latents are drawn.")
@checkpoint_option
@out_option("samples.png")
def sample(source: str | None, count: int, seed: int, checkpoint: str, out: str | None) -> None:
    """Write a PNG grid of pictures drawn from the prior.

    RUN is a run folder; a model's name means its newest run; nothing means the newest run of all. EXPORT is a
    folder that 'vaezoo export' wrote; its graphs run in ONNX Runtime, and draw other latents for the same seed.
    """
    require_png(out)
    opened = open_source(source, checkpoint)
    save_grid(opened.sample(count, seed), grid_columns(count), out or opened.folder / "samples.png")


@click.command()
@source_argument
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=32, show_default=True, help="How many.")
@checkpoint_option
@data_options(None)
@out_option("reconstructions.png")
def reconstruct(
    source: str | None,
    count: int,
    checkpoint: str,
    data: str | None,
    data_dir: str | None,
    size: int | None,
    stream: bool | None,
    on_bad_image: str,
    out: str | None,
) -> None:
    """Write a PNG grid of pictures and reconstructions.

    Each row of originals stands above its reconstructions. The pictures are those of the test part, or of the
    validation part where there is no test part, evenly spaced. They come from --data, else from the data set
    that the model was trained on.
    """
    import vaezoo

    require_png(out)
    opened = open_source(source, checkpoint)
    dataset = (
        opened.load_data(data_dir)
        if data is None
        else vaezoo.load_data(data, data_dir=data_dir, size=size, stream=stream, on_bad_image=on_bad_image)
    )
    if dataset.spec.shape != opened.shape:
        raise UnsupportedDataError(
            f"{opened.folder} takes shape {opened.shape}, '{dataset.spec.name}' has {dataset.spec.shape}",
            "give data of that shape; --size changes height and width alone",
        )
    originals = dataset.held_out[1].spread(count).batch(slice(None)).x.numpy()
    columns = grid_columns(2 * len(originals))
    grid = interleave_rows(as_bytes(originals), opened.reconstruct(originals), columns)
    save_grid(grid, columns, out or opened.folder / "reconstructions.png")


@dataclass(frozen=True)
class Source:
    """What pictures can be drawn with, be it a run in PyTorch or an export in ONNX Runtime.

    Attributes:
        folder: Where it lies.
        shape: Of one picture.
        sample: Number and seed -> pictures from the prior.
        reconstruct: Pictures `(N, C, H, W)` in [0, 1] -> their reconstructions.
        load_data: Folder of data sets -> the set that the model was trained on.
    """

    folder: Path
    shape: tuple[int, ...]
    sample: Callable[[int, int], Pictures]
    reconstruct: Callable[[NDArray[Any]], Pictures]
    load_data: Callable[[str | None], Dataset]


def open_source(source: str | None, checkpoint: str) -> Source:
    """Opens the run or export that a user means.

    Raises:
        UnsupportedDataError: If it was not trained on pictures.
    """
    exported = open_export(source, checkpoint)
    opened = of_export(Path(source or ""), exported) if exported else of_run(open_run(source, checkpoint))
    if len(opened.shape) != 3 or opened.shape[0] not in (1, 3):
        raise UnsupportedDataError(
            f"{opened.folder} was trained on shape {opened.shape}, which is no picture", "use the Python API"
        )
    return opened


def of_run(run: Run) -> Source:
    """Draws with a run's model."""
    import torch

    def sample(count: int, seed: int) -> Pictures:
        torch.manual_seed(seed)
        with torch.no_grad():
            return as_bytes(run.vae.sample(count).numpy())

    def reconstruct(x: NDArray[Any]) -> Pictures:
        with torch.no_grad():
            return as_bytes(run.vae.reconstruct(torch.from_numpy(x)).numpy())

    return Source(run.path, run.data.shape, sample, reconstruct, run.load_data)


def of_export(folder: Path, model: OnnxVAE) -> Source:
    """Draws with an export's graphs."""
    described = model.manifest["data"]
    shape = tuple(described["shape"])

    def reconstruct(x: NDArray[Any]) -> Pictures:
        return as_bytes(model.reconstruct(as_bytes(x) if model.manifest["format"]["uint8"] else x))

    def load_data(data_dir: str | None) -> Dataset:
        import vaezoo
        from vaezoo.data.load import DATASETS

        name = described["name"]
        if name not in DATASETS:
            raise VaezooError(f"{folder} was trained on '{name}', which is no data set by name", "give --data")
        dataset = vaezoo.load_data(name, data_dir=data_dir)
        resized = dataset.spec.shape != shape
        return vaezoo.load_data(name, data_dir=data_dir, size=shape[-1]) if resized else dataset

    return Source(folder, shape, lambda count, seed: as_bytes(model.sample(count, seed)), reconstruct, load_data)


def require_png(out: str | None) -> None:
    """Raises VaezooError if the picture's name promises another format."""
    if out is not None and Path(out).suffix.lower() != ".png":
        raise VaezooError(f"'{out}' is no name of a PNG", "end it in .png")


def as_bytes(pictures: NDArray[Any]) -> Pictures:
    """Brings pictures to bytes `(N, H, W, C)`; those in [0, 1] are `(N, C, H, W)`."""
    import numpy as np

    if pictures.dtype == np.uint8:
        return pictures
    levels: Pictures = np.rint(np.clip(pictures, 0, 1) * 255).astype(np.uint8)
    return levels.transpose(0, 2, 3, 1)


def interleave_rows(above: Pictures, below: Pictures, columns: int) -> Pictures:
    """Orders pictures so that in a grid each row of `above` is followed by its row of `below`."""
    import numpy as np

    blank = np.full((-len(above) % columns, *above.shape[1:]), BLANK, np.uint8)
    rows = [np.concatenate([part, blank]).reshape(-1, columns, *above.shape[1:]) for part in (above, below)]
    return np.stack(rows, axis=1).reshape(-1, *above.shape[1:])


def grid_columns(count: int) -> int:
    """Returns the number of columns of a grid of `count` pictures: as square as it can be, at most 16."""
    return min(16, max(1, round(math.sqrt(count))))


def save_grid(pictures: Pictures, columns: int, out: str | Path) -> None:
    """Writes pictures as one PNG, small ones enlarged, and says where it is."""
    import io

    import numpy as np
    from PIL import Image

    from vaezoo.files import write_file

    times = max(1, VISIBLE // pictures.shape[2])
    pictures = pictures.repeat(times, axis=1).repeat(times, axis=2)
    n, height, width, channels = pictures.shape
    rows = -(-n // columns)
    step_y, step_x = height + PADDING, width + PADDING
    grid = np.full((rows * step_y + PADDING, min(n, columns) * step_x + PADDING, channels), BLANK, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = PADDING + i // columns * step_y, PADDING + i % columns * step_x
        grid[y : y + height, x : x + width] = picture
    buffer = io.BytesIO()
    Image.fromarray(grid[..., 0] if channels == 1 else grid).save(buffer, format="PNG")
    write_file(Path(out), buffer.getvalue())
    click.echo(out)
