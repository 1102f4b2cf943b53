"""Graphs whose images have other sizes than the data: on tiles, or at a resolution that is asked for."""

from __future__ import annotations

import numpy as np

from vaezoo.core.coordinates import Resolution, parse_resolution, pixel_coordinates
from vaezoo.errors import VaezooError
from vaezoo.runtime.graphs import Graphs
from vaezoo.runtime.inputs import as_array
from vaezoo.runtime.manifest import Array, GraphName, example_shape
from vaezoo.runtime.tiling import Layout, Tiling, make_tiling, run_tiled

CHUNK_PIXELS = 1 << 18  # in one run of a decoder of coordinates, so that memory stays bounded


class ImageSizes:
    """Runs graphs on images of any size.

    Args:
        graphs: The graphs.
        axes: The axes of height and width in a batch of images.
        grid_axes: The axes of height and width in a batch of latents.
        factors: Pixels of an image for each place of its latents, vertically and horizontally.
    """

    def __init__(
        self, graphs: Graphs, axes: tuple[int, int], grid_axes: tuple[int, int], factors: tuple[int, int]
    ) -> None:
        self.graphs = graphs
        self.axes = axes
        self.grid_axes = grid_axes
        self.factors = factors

    def require_free(self, graph: GraphName, name: str) -> None:
        """Raises VaezooError unless an input of a graph is an image or a grid whose height and width are free."""
        shape = example_shape(self.graphs.signature(graph, name))
        axes = self.axes if name == "x" else self.grid_axes
        if not max(axes) <= len(shape) <= 3 or len(shape) < 2 or any(isinstance(shape[axis - 1], int) for axis in axes):
            raise VaezooError(
                f"the {graph} of {self.graphs.source.folder} takes inputs of one size only, {shape}",
                "leave out tile and pad, which are for graphs of free height and width",
            )

    def tiling(self, graph: GraphName, name: str, tile: int | None, overlap: int) -> Tiling | None:
        """Returns how images are cut, or None if they are not.

        Raises:
            VaezooError: If the graph takes one size only, or the sizes do not fit.
        """
        if tile is None:
            return None
        self.graphs.require(graph)
        self.require_free(graph, name)
        return make_tiling(tile, overlap, self.factors)

    def run(self, graph: GraphName, inputs: dict[str, Array], tiling: Tiling | None) -> list[Array]:
        """Runs a graph, on tiles of its image x or z if there is a tiling."""
        if tiling is None or not len(next(iter(inputs.values()))):
            return self.graphs.run(graph, inputs)
        images, latents = Layout(self.axes, self.factors), Layout(self.grid_axes, (1, 1))
        name, read, write = ("x", images, latents) if graph == "encoder" else ("z", latents, images)
        return run_tiled(lambda tile: self.graphs.run(graph, tile), inputs, name, tiling, read, write)

    @property
    def takes_coordinates(self) -> bool:
        """Whether the decoder takes coordinates, so that its images have any resolution."""
        decoder = self.graphs.manifest["graphs"].get("decoder")
        return decoder is not None and any(tensor["name"] == "coordinates" for tensor in decoder["inputs"])

    def resolution(self, resolution: Resolution | None) -> tuple[int, int] | None:
        """Returns height and width of the decoder's images. None if it takes no coordinates.

        Raises:
            VaezooError: If it takes none and a user asks for a resolution.
        """
        if not self.takes_coordinates:
            if resolution is None:
                return None
            raise VaezooError(
                f"the decoder of {self.graphs.source.folder} takes no coordinates, so its images have one resolution",
                "leave out the resolution, or use cppn-vae",
            )
        _, height, width = self.graphs.manifest["data"]["shape"]
        return (height, width) if resolution is None else parse_resolution(resolution)

    def decode_at(self, z: Array, y: Array | None, height: int, width: int) -> Array:
        """Decodes latents at a resolution, a few examples or rows of pixels at a time. Each pixel is on its own."""
        places, rows = pixel_coordinates(height, width), as_array("z", z).shape[:1]
        one_pixel = np.broadcast_to(places[:, :1, :1], (*rows, *places[:, :1, :1].shape))
        given = self.graphs.inputs("decoder", {"z": z, "y": y, "coordinates": one_pixel})
        examples, lines = max(1, CHUNK_PIXELS // (height * width)), max(1, CHUNK_PIXELS // width)
        parts = []
        for start in range(0, max(1, *rows), examples):
            part = {name: array[start : start + examples] for name, array in given.items()}
            bands = []
            for top in range(0, height, lines):
                band = places[:, top : top + lines]
                part["coordinates"] = np.repeat(band[None], len(part["z"]), axis=0)
                bands.append(self.graphs.run("decoder", part)[0])
            parts.append(np.concatenate(bands, self.axes[0]))
        return np.concatenate(parts)
