"""Plots of single images: samples and reconstructions. They also work for exports."""

from __future__ import annotations

from vaezoo_cli.loaded_model import load_model
from vaezoo_cli.plots.request import PlotRequest, PlotResult
from vaezoo_cli.render.image_grids import as_bytes, grid_columns, image_grid, interleave_rows, png


def samples(request: PlotRequest) -> PlotResult:
    """Draws images sampled from the prior."""
    model = load_model(request.source, request.checkpoint)
    grid = image_grid(model.sample(request.count, request.seed), grid_columns(request.count))
    return PlotResult(model.folder, {".png": png(grid)})


def reconstructions(request: PlotRequest) -> PlotResult:
    """Draws held-out images above their reconstructions."""
    model = load_model(request.source, request.checkpoint)
    split = request.data.load_for(model).held_out[1].subsample(request.count)
    originals = split.batch(slice(None)).x.numpy()
    columns = grid_columns(2 * len(originals))
    grid = image_grid(interleave_rows(as_bytes(originals), model.reconstruct(originals), columns), columns)
    return PlotResult(model.folder, {".png": png(grid)})
