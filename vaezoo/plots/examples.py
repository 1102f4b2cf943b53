"""Grids of single images: samples and reconstructions. They also work for exports."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vaezoo.core.image_grids import grid_columns, image_grid, interleave_rows, png, to_size
from vaezoo.errors import VaezooError
from vaezoo.plots import series
from vaezoo.plots.loaded_model import LoadedModel, require_drawable
from vaezoo.plots.output import PlotResult
from vaezoo.plots.request import PlotRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vaezoo.data.inference import Examples


def samples(request: PlotRequest) -> PlotResult:
    """Draws images or series sampled from the prior."""
    model = request.model
    require_drawable(model)
    y = labels_of(model, request.label, request.count)
    if model.is_series:
        return series.samples(request, y)
    chunks = model.sample(request.count, request.seed, y, resolution=request.resolution)
    return sample_grid(model, chunks, request.count)


def reconstructions(request: PlotRequest) -> PlotResult:
    """Draws examples above their reconstructions."""
    from vaezoo.evaluation.outputs import iter_reconstructions

    model = request.model
    require_drawable(model)
    if model.is_series:
        return series.reconstructions(request)
    examples = request.load_examples().limited(request.count)
    chunks = iter_reconstructions(model.model, examples.split, resolution=request.resolution)
    return reconstruction_grid(model, examples, chunks)


def sample_grid(model: LoadedModel, chunks: Iterable[NDArray[Any]], count: int) -> PlotResult:
    """Draws `count` samples."""
    return PlotResult(model.folder, {".png": png(image_grid(joined_pixels(model, chunks), grid_columns(count)))})


def reconstruction_grid(model: LoadedModel, examples: Examples, chunks: Iterable[NDArray[Any]]) -> PlotResult:
    """Draws examples above their reconstructions."""
    columns = grid_columns(2 * len(examples))
    originals, again = model.thumbnails(examples.split.batch(slice(None)).x.numpy()), joined_pixels(model, chunks)
    if again.shape[1:3] != originals.shape[1:3]:
        originals = to_size(originals, *again.shape[1:3])
    grid = image_grid(interleave_rows(originals, again, columns), columns)
    return PlotResult(model.folder, {".png": png(grid)})


def joined_pixels(model: LoadedModel, chunks: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Returns all images of chunks, uint8 `(N, H, W, C)`."""
    import numpy as np

    return np.concatenate([model.pixels(chunk) for chunk in chunks])


def labels_of(model: LoadedModel, label: str | None, count: int) -> NDArray[Any] | None:
    """Returns the label that a user asked for, once for each sample.

    Raises:
        VaezooError: If it is not a label of the data.
    """
    from vaezoo.data.labels import repeat_label
    from vaezoo.runtime.manifest import names_by_label

    if label is None:
        return None
    if not model.takes_labels:
        raise VaezooError(f"the model of {model.folder} is not given labels", "leave out --label")
    data = model.data
    return repeat_label(label, count, data["classes"], names_by_label(data), data["name"])
