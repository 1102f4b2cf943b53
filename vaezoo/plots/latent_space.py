"""Plots of images along lines and planes of latents: traversals, interpolation, manifold and attribute vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vaezoo.core.image_grids import caption, gif, grid_columns, image_grid, png
from vaezoo.errors import VaezooError
from vaezoo.plots.homotopies import homotopies
from vaezoo.plots.loaded_model import from_run
from vaezoo.plots.output import PlotResult
from vaezoo.plots.request import PlotRequest
from vaezoo.plots.selection import label_names, random_examples, require_label, require_labels, without_and_with_label

if TYPE_CHECKING:
    from torch import Tensor

    from vaezoo import Batch, DataSpec, Run
    from vaezoo.data.base import Split

TRAVERSAL_LIMIT = 3.0  # standard deviations of the prior
TRAVERSAL_FRAMES = 25  # frames of an animation in one direction
MAX_TRAVERSAL_DIMS = 100
INTERPOLATION_STEPS = 9
ATTRIBUTE_AMOUNTS = (-2.0, -1.0, 0.0, 1.0, 2.0)
MAX_ATTRIBUTE_EXAMPLES = 1_000  # training examples with the label, and as many without it, for the mean codes


def traversals(request: PlotRequest) -> PlotResult:
    """Draws one held-out image with one latent dimension varied at a time.

    The PNG has one row per dimension. The GIF has one cell per dimension.
    """
    run = request.run()
    dims = traversed(request.dims, run)
    example = random_examples(request.load_examples().split, 1, request.seed)
    draw = {".png": traversal_rows, ".gif": traversal_frames}
    return PlotResult(
        run.path, {suffix: draw[suffix](run, example, dims, request.count) for suffix in request.suffixes}
    )


def traversal_rows(run: Run, example: Batch, dims: list[int], count: int) -> bytes:
    """Returns a PNG file: one row per dimension, one column per value."""
    import torch

    from vaezoo.evaluation.latents import traversal

    values = torch.linspace(-TRAVERSAL_LIMIT, TRAVERSAL_LIMIT, count)
    images = traversal(run.vae, example, dims, values)
    heads, sides = show_values(values), [f"z{d}" for d in dims]
    title = "one latent dimension per row, its value above"
    return png(
        image_grid(from_run(run).thumbnails(images.flatten(0, 1).numpy()), count, title=title, heads=heads, sides=sides)
    )


def traversal_frames(run: Run, example: Batch, dims: list[int], count: int) -> bytes:
    """Returns a GIF file: one cell per dimension, one frame per value. `count` is not used."""
    import torch

    from vaezoo.evaluation.latents import traversal

    values = torch.linspace(-TRAVERSAL_LIMIT, TRAVERSAL_LIMIT, TRAVERSAL_FRAMES)
    images = traversal(run.vae, example, dims, values).transpose(0, 1)
    names, columns = [f"z{d}" for d in dims], grid_columns(len(dims))
    frames = from_run(run).thumbnails(images.flatten(0, 1).numpy())
    frames = frames.reshape(TRAVERSAL_FRAMES, len(dims), *frames.shape[1:])
    return gif(
        [
            image_grid(caption(frames[i], names), columns, title=f"value {value:+.2f}")
            for i, value in enumerate(values.tolist())
        ]
    )


def interpolation(request: PlotRequest) -> PlotResult:
    """Draws pairs of held-out images and, between them, images on the straight line between their codes.

    Of texts it writes lines; see `homotopies`.
    """
    import torch
    import torch.nn.functional as F

    from vaezoo.evaluation import latents
    from vaezoo.nn.cppn import at_resolution
    from vaezoo.posteriors.base import map_tensors

    if request.model.data["kind"] == "tokens":
        return homotopies(request)
    run = request.run()
    split = request.load_examples().split
    if len(split) < 2:
        raise VaezooError(f"there is {len(split)} image, but two are needed", "give --data with more")
    pairs = random_examples(split, 2 * min(request.count, len(split) // 2), request.seed)
    first, second = (map_tensors(pairs, lambda tensor, i=i: tensor[i::2]) for i in (0, 1))  # type: ignore[misc]
    with at_resolution(run.vae, request.resolution):
        between = latents.interpolation(run.vae, first, second, INTERPOLATION_STEPS)
    start, end = first.x, second.x
    if request.resolution is not None:
        start, end = (F.interpolate(x, request.resolution) for x in (start, end))
    rows = torch.cat([start.unsqueeze(1), between, end.unsqueeze(1)], dim=1)
    grid = image_grid(
        from_run(run).thumbnails(rows.flatten(0, 1).numpy()),
        rows.shape[1],
        title="straight lines between the latents of two examples",
        heads=["example", *show_values(torch.linspace(0, 1, INTERPOLATION_STEPS)), "example"],
    )
    return PlotResult(run.path, {".png": png(grid)})


def manifold(request: PlotRequest) -> PlotResult:
    """Draws the images of a grid over two latent dimensions."""
    from vaezoo.evaluation import latents

    run = request.run()
    images, values = latents.manifold(run.vae, request.count)
    low, high = latents.QUANTILES
    grid = image_grid(
        from_run(run).thumbnails(images.flatten(0, 1).numpy()),
        request.count,
        title=f"z0 to the right, z1 upwards: quantiles {low} to {high} of the standard normal",
        heads=show_values(values),
        sides=show_values(values.flip(0)),
    )
    return PlotResult(run.path, {".png": png(grid)})


def attribute_vector(request: PlotRequest) -> PlotResult:
    """Draws held-out images with the attribute vector of a label subtracted from their codes, and added to them.

    The first half of the images does not have the label. The vector is computed on the
    training split, or on the examples themselves if their source has none.
    """
    import torch

    from vaezoo.evaluation import latents

    run = request.run()
    data = request.load_examples()
    train = data.split if data.train is None else data.train
    label, direction = label_direction(run, train, data.spec, request.factor, request.label)
    names = label_names(data.spec, request.factor)
    counts = -(-request.count // 2), request.count // 2
    examples, labels = without_and_with_label(data.split, request.factor, label, counts, request.seed)
    amounts = torch.tensor(ATTRIBUTE_AMOUNTS)
    rows = torch.cat([examples.x.unsqueeze(1), latents.edit(run.vae, examples, direction, amounts)], dim=1)
    grid = image_grid(
        from_run(run).thumbnails(rows.flatten(0, 1).numpy()),
        rows.shape[1],
        title=f"code + a (mean code of label {names[label] if names else label} - mean code of others)",
        heads=["example", *(f"a = {text}" for text in show_values(amounts))],
        sides=[names[n] if names else f"label {n}" for n in labels.tolist()],
    )
    return PlotResult(run.path, {".png": png(grid)})


def label_direction(run: Run, split: Split, spec: DataSpec, factor: int | None, text: str | None) -> tuple[int, Tensor]:
    """Returns the number of a label that a user typed, and its attribute vector `(*latent_shape)`.

    Args:
        run: The run.
        split: The examples whose mean latents are compared.
        spec: Their labels.
        factor: Index of the label, if each example has several.
        text: The label.

    Raises:
        VaezooError: If the examples have no labels, the label is unknown, or the latents are not real numbers.
    """
    from vaezoo.evaluation import latents

    latents.require_lines(run.vae)
    require_labels(split, spec.name, factor)
    label = require_label(split, factor, text, label_names(spec, factor))
    counts = MAX_ATTRIBUTE_EXAMPLES, MAX_ATTRIBUTE_EXAMPLES
    examples, labels = without_and_with_label(split, factor, label, counts, 0)
    return label, latents.attribute_direction(latents.encode(run.vae, examples), labels, label)


def show_values(values: Tensor) -> list[str]:
    """Formats the values of rows or columns."""
    return [f"{value:.3g}" for value in values.tolist()]


def traversed(dims: Sequence[int] | None, run: Run) -> list[int]:
    """Returns the latent dimensions to vary, by default all. Raises VaezooError if they are too many to draw."""
    dims = range(math.prod(run.vae.latent_shape)) if dims is None else dims
    if len(dims) > MAX_TRAVERSAL_DIMS:
        raise VaezooError(f"{len(dims):,} latent dimensions are too many for a plot", "choose some: --dims 0,1,2")
    return list(dims)
