"""Images larger than memory: a graph runs on tiles that overlap, and the results are blended.

The weights of a tile are 0 in the outer quarter of an overlap and rise linearly to 1 in the middle half. So the result
is that of the whole image wherever a network looks no further than a quarter of the overlap. What a network computes
from all pixels, such as group normalisation and attention, it computes from those of a tile. There the result is near
that of the whole, and docs/export.md says how near.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from vaezoo.core.counts import whole_number
from vaezoo.errors import VaezooError, safe_repr
from vaezoo.runtime.manifest import Array

Pad = Literal["reflect", "edge"]
OVERLAP = 64  # pixels

Run = Callable[[dict[str, Array]], list[Array]]


@dataclass(frozen=True, slots=True)
class Tiling:
    """How images are cut. Both sizes are in cells, the pixels of the latents.

    Attributes:
        tile: Height and width of a tile.
        overlap: By how much tiles overlap, vertically and horizontally.
    """

    tile: tuple[int, int]
    overlap: tuple[int, int]


def make_tiling(tile: int, overlap: int, factors: tuple[int, int]) -> Tiling:
    """Returns a tiling.

    Args:
        tile: Pixels per side of a tile.
        overlap: Pixels.
        factors: Pixels of a cell, vertically and horizontally.

    Raises:
        VaezooError: If a size is no multiple of a cell, or tiles overlap by all of their size.
    """
    tile, overlap = whole_number("tile", tile, 1), whole_number("overlap", overlap)
    for name, size in (("tile", tile), ("overlap", overlap)):
        if any(size % factor for factor in factors):
            raise VaezooError(f"{name} is {size}", f"give a multiple of {max(factors)} pixels, as the latents need it")
    if overlap >= tile:
        raise VaezooError(f"tiles of {tile} pixels overlap by {overlap}", "give an overlap smaller than the tile")
    vertical, horizontal = factors
    return Tiling((tile // vertical, tile // horizontal), (overlap // vertical, overlap // horizontal))


class Layout(NamedTuple):
    """How an array holds images.

    Attributes:
        axes: The axes of height and width.
        scale: The places of a cell along each.
    """

    axes: tuple[int, int]
    scale: tuple[int, int]

    def window(self, ndim: int, axes: Sequence[Axis], numbers: Sequence[int]) -> tuple[slice, ...]:
        """Returns the index of a tile in an array of so many dimensions, given its numbers along both axes."""
        index = [slice(None)] * ndim
        for dim, scale, axis, number in zip(*self, axes, numbers, strict=True):
            index[dim] = slice(axis.starts[number] * scale, (axis.starts[number] + axis.size) * scale)
        return tuple(index)


@dataclass(frozen=True, slots=True)
class Axis:
    """The tiles along one axis.

    Attributes:
        starts: Where each begins, in cells.
        size: Cells of each.
        weights: The weight of each place of each tile in the result, `(tiles, size * scale)`. Those of all tiles at one
            place of the image add up to 1.
    """

    starts: list[int]
    size: int
    weights: Array


def tile_axis(cells: int, tile: int, overlap: int, scale: int) -> Axis:
    """Cuts an axis.

    Args:
        cells: Its length in cells.
        tile: Cells of a tile. The last tile ends with the axis, and so may overlap by more.
        overlap: Cells that two tiles share.
        scale: Places of the result for each cell.
    """
    size = min(tile, cells)
    starts = [*range(0, cells - size, max(1, size - overlap)), cells - size]
    place = np.arange(size * scale) + 0.5
    width = max(overlap * scale, 1e-9)  # without an overlap, the ramp is a step
    rising = np.clip((place - width / 4) / (width / 2), 0, 1)
    weights = np.stack(
        [
            (rising if start > 0 else 1) * (rising[::-1] if start < starts[-1] else 1) * np.ones(len(place))
            for start in starts
        ]
    )
    total = np.zeros(cells * scale)
    for start, weight in zip(starts, weights, strict=True):
        total[start * scale : (start + size) * scale] += weight
    for start, weight in zip(starts, weights, strict=True):
        weight /= total[start * scale : (start + size) * scale]
    return Axis(starts, size, weights.astype(np.float32))


def nearest(axis: Axis, cells: int, scale: int) -> Axis:
    """Returns an axis whose places belong to one tile each, that of the largest weight. Codes cannot be blended."""
    all_weights = np.zeros((len(axis.starts), cells * scale), np.float32)
    for i, start in enumerate(axis.starts):
        all_weights[i, start * scale : (start + axis.size) * scale] = axis.weights[i]
    chosen = np.arange(len(axis.starts))[:, None] == all_weights.argmax(0)
    hard = [chosen[i, start * scale : (start + axis.size) * scale] for i, start in enumerate(axis.starts)]
    return Axis(axis.starts, axis.size, np.stack(hard))


def run_tiled(
    run: Run, inputs: Mapping[str, Array], name: str, tiling: Tiling, read: Layout, write: Layout
) -> list[Array]:
    """Runs a graph on tiles of an input, one example at a time, and blends its outputs.

    Args:
        run: The graph.
        inputs: Its inputs, `(N, ...)` each.
        name: The input that is cut.
        tiling: The tiles.
        read: The layout of that input.
        write: The layout of the outputs.

    Raises:
        VaezooError: If an output has another size, so that it cannot be put together.
    """
    image = inputs[name]
    cells = [image.shape[axis] // scale for axis, scale in zip(*read, strict=True)]
    sizes = zip(cells, tiling.tile, tiling.overlap, write.scale, strict=True)
    axes = [tile_axis(n, tile, overlap, scale) for n, tile, overlap, scale in sizes]
    rows = []
    for row in range(len(image)):
        example = {key: array[row : row + 1] for key, array in inputs.items()}
        rows.append(_blend(_tiles(run, example, name, axes, read), cells, axes, write))
    return [np.concatenate(outputs) for outputs in zip(*rows, strict=True)]


def _tiles(
    run: Run, example: dict[str, Array], name: str, axes: Sequence[Axis], read: Layout
) -> Iterator[tuple[tuple[int, ...], list[Array]]]:
    """Yields the outputs of a graph for each tile of one example, after the tile's numbers along both axes."""
    for numbers in product(*(range(len(axis.starts)) for axis in axes)):
        cut = example[name][read.window(example[name].ndim, axes, numbers)]
        yield numbers, run({**example, name: np.ascontiguousarray(cut)})


def _blend(
    tiles: Iterable[tuple[tuple[int, ...], list[Array]]], cells: Sequence[int], axes: Sequence[Axis], write: Layout
) -> list[Array]:
    """Puts the outputs of the tiles of one example together."""
    hard = [nearest(axis, n, scale) for axis, n, scale in zip(axes, cells, write.scale, strict=True)]
    sums: list[Array] = []
    dtypes: list[np.dtype[Any]] = []
    for numbers, outputs in tiles:
        if not sums:
            dtypes = [output.dtype for output in outputs]
            sums = [_empty(output, cells, axes, write) for output in outputs]
        for total, output in zip(sums, outputs, strict=True):
            weight: Array = np.ones((), np.float32 if total.dtype == np.float32 else np.bool_)
            for axis, tiled, i in zip(write.axes, axes if total.dtype == np.float32 else hard, numbers, strict=True):
                weight = weight * tiled.weights[i].reshape([-1 if dim == axis else 1 for dim in range(output.ndim)])
            total[write.window(output.ndim, axes, numbers)] += (output * weight).astype(total.dtype)
    return [
        np.rint(total).astype(dtype) if dtype == np.uint8 else total.astype(dtype, copy=False)
        for total, dtype in zip(sums, dtypes, strict=True)
    ]


def _empty(output: Array, cells: Sequence[int], axes: Sequence[Axis], write: Layout) -> Array:
    """Returns zeros in the size of the whole, for an output of one tile. Floats and bytes are added up as float32."""
    shape, wanted = list(output.shape), [axis.size * scale for axis, scale in zip(axes, write.scale, strict=True)]
    if output.ndim <= max(write.axes) or [shape[dim] for dim in write.axes] != wanted:
        raise VaezooError(f"a tile has an output of shape {output.shape}, which is no image", "leave out tile")
    for dim, n, scale in zip(write.axes, cells, write.scale, strict=True):
        shape[dim] = n * scale
    return np.zeros(shape, np.float32 if output.dtype.kind == "f" or output.dtype == np.uint8 else output.dtype)


def pad_image(x: Array, axes: Sequence[int], multiples: Sequence[int], mode: Pad) -> Array:
    """Returns images with rows and columns added at the bottom and at the right, so that their sides are multiples.

    Args:
        x: The images.
        axes: Their axes of height and width.
        multiples: What each must be a multiple of.
        mode: "reflect" mirrors the image, "edge" repeats its last pixels.

    Raises:
        VaezooError: If the mode is another one.
    """
    if mode != "reflect" and mode != "edge":
        raise VaezooError(f"unknown padding '{safe_repr(mode)}'", f"use {' or '.join(get_args(Pad))}")
    widths = [(0, 0)] * x.ndim
    for axis, multiple in zip(axes, multiples, strict=True):
        widths[axis] = (0, -x.shape[axis] % multiple)
    padded: Array = np.pad(x, widths, mode) if any(after for _, after in widths) else x
    return padded
