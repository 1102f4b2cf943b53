"""Plots of single examples: samples and reconstructions. They also work for exports.

Images become a PNG grid. Token ids become lines of text, tables a CSV file, and all other data a NumPy array.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaezoo.errors import VaezooError
from vaezoo_cli.loaded_model import LoadedModel
from vaezoo_cli.plots.request import PlotRequest, PlotResult
from vaezoo_cli.render.image_grids import as_bytes, grid_columns, image_grid, interleave_rows, png
from vaezoo_cli.render.values import csv_table, npy, text_lines

if TYPE_CHECKING:
    from numpy.typing import NDArray


def samples(request: PlotRequest) -> PlotResult:
    """Draws data sampled from the prior."""
    model = request.load_model()
    x = model.sample(request.count, request.seed, labels_of(model, request))
    if model.is_image:
        return PlotResult(model.folder, {".png": png(image_grid(as_bytes(x), grid_columns(request.count)))})
    return PlotResult(model.folder, values_file(model, x))


def reconstructions(request: PlotRequest) -> PlotResult:
    """Draws held-out examples above their reconstructions."""
    model = request.load_model()
    split = request.data.load_for(model).held_out[1].subsample(request.count)
    x, y = split.batch(slice(None))
    originals = x.numpy()
    again = model.reconstruct(originals, None if y is None else y.numpy())
    if not model.is_image:
        return PlotResult(model.folder, values_file(model, again))
    columns = grid_columns(2 * len(originals))
    grid = image_grid(interleave_rows(as_bytes(originals), as_bytes(again), columns), columns)
    return PlotResult(model.folder, {".png": png(grid)})


def values_file(model: LoadedModel, x: NDArray[Any]) -> dict[str, bytes]:
    """Returns data that are not images as a file."""
    kind = model.data["kind"]
    if kind == "tokens":
        return {".txt": text_lines(x, model.data["symbols"])}
    return {".csv": csv_table(x, model.data["columns"])} if kind == "table" else {".npy": npy(x)}


def labels_of(model: LoadedModel, request: PlotRequest) -> NDArray[Any] | None:
    """Returns the label that a user asked for, once for each sample.

    Raises:
        VaezooError: If it is not a label of the data.
    """
    import numpy as np

    from vaezoo.data.labels import find_labels

    if request.label is None:
        return None
    if not model.takes_labels:
        raise VaezooError(f"the model of {model.folder} is not given labels", "leave out --label")
    data = model.data
    labels = find_labels(request.label, data["classes"], data.get("class_names", []), data["name"])
    y = np.tile(np.asarray(labels, np.int64), (request.count, 1))
    return y[:, 0] if len(labels) == 1 else y
