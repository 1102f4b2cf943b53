"""An opened export: its graphs as functions of numpy arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vaezoo.core.coordinates import Resolution
from vaezoo.core.counts import whole_number
from vaezoo.core.drawing import Drawing
from vaezoo.core.scaling import Scaling
from vaezoo.core.tokenizer import Tokenizer
from vaezoo.errors import VaezooError
from vaezoo.runtime.export_files import check_metadata, folder_path, read_graph, read_manifest
from vaezoo.runtime.graphs import Graphs, Source
from vaezoo.runtime.image_sizes import ImageSizes
from vaezoo.runtime.inputs import by_column, check_type, check_values
from vaezoo.runtime.manifest import Array, DataEntry, GraphName, Manifest, example_shape, scaling_of, tokenizer_of
from vaezoo.runtime.ort_session import STOP_SPINNING, Provider, open_session
from vaezoo.runtime.prior import draw_latents
from vaezoo.runtime.tables import from_table, table_rows, to_table
from vaezoo.runtime.texts import decode_texts
from vaezoo.runtime.tiling import OVERLAP, Pad, pad_image

if TYPE_CHECKING:
    import onnxruntime as ort


def load(folder: str | os.PathLike[str], provider: Provider = "cpu", *, threads: int | None = None) -> OnnxVAE:
    """Opens an export.

    Graphs whose files are not there are left out, so that a decoder works without the encoder. The manifest is needed.

    Args:
        folder: A folder that `vaezoo export` wrote.
        provider: "cpu" or "cuda".
        threads: Threads for one operator. By default ONNX Runtime chooses.

    Raises:
        InputError: If the folder is not an export, is damaged, or holds graphs of different exports.
        VaezooError: If onnxruntime is not installed, the provider cannot run here, or an argument has the wrong type.
    """
    folder = folder_path(folder)
    threads = None if threads is None else whole_number("threads", threads, 1)
    manifest = read_manifest(folder)
    present = [name for name in manifest["graphs"] if os.path.lexists(folder / f"{name}.onnx")]
    # The hashes of all files are compared before ONNX Runtime parses any.
    files = {name: read_graph(folder, manifest, name) for name in present or manifest["graphs"]}
    sessions = {
        name: open_session(data, provider, threads=threads, entries=STOP_SPINNING) for name, data in files.items()
    }
    metadata = {name: session.get_modelmeta().custom_metadata_map for name, session in sessions.items()}
    check_metadata(folder, manifest, metadata)
    return OnnxVAE(manifest, sessions, Source(folder.resolve(), provider, threads))


def _reload(source: Source) -> OnnxVAE:
    """Opens an export again, in another process."""
    return load(source.folder, source.provider, threads=source.threads)


class OnnxVAE:
    """The graphs of an export. Use `load` to open one.

    Images are float32 `(N, C, H, W)` in [0, 1]. If exported with --uint8, they are uint8 `(N, H, W, C)`. A model that
    is conditioned on labels takes them as `y`, integers `(N,)` or `(N, factors)`. Any other refuses them. No rows give
    a result of no rows. NaN and infinite values are refused.

    If height and width are free, `tile` runs the graphs on tiles of so many pixels a side that share `overlap` pixels,
    and blends the results. Memory then holds the activations of one tile. `pad` adds rows and columns at the bottom and
    the right, "reflect" or "edge", where the sides are not multiples of `factors`.

    If the decoder takes coordinates, `resolution` is the size of its images: pixels of both sides, or height and width.

    Several threads may use one object. A copy in another process, as of multiprocessing, opens the folder again.

    Attributes:
        manifest: The content of manifest.json.
        data: The data that the model was made for, from the manifest.
        shape: Shape of one example, as input and as output. A text is a free size.
        latent_shape: Shape of one latent z. A text is a free size.
        dtype: Type of the examples.
        outputs: Names of the encoder's outputs; none if the export has no encoder.
        source: The folder, and how it was opened.
    """

    def __init__(self, manifest: Manifest, sessions: Mapping[GraphName, ort.InferenceSession], source: Source) -> None:
        self.manifest = manifest
        self.sessions = sessions
        self.source = source
        self._graphs = Graphs(manifest, sessions, source)
        self.data: DataEntry = manifest["data"]
        tensors = {
            (name, tensor["name"]): tensor
            for name, graph in manifest["graphs"].items()
            for tensor in (*graph["inputs"], *graph["outputs"])
        }
        x = tensors.get(("encoder", "x")) or tensors.get(("decoder", "x_mean"))
        z = tensors.get(("decoder", "z")) or tensors.get(("encoder", manifest["mode"]))
        self.shape = example_shape(x) if x else tuple(self.data["shape"])
        self.dtype = np.dtype(x["dtype"] if x else "float32")
        self.latent_shape = example_shape(z) if z else tuple(manifest["latent_shape"])
        encoder = manifest["graphs"].get("encoder")
        self.outputs: tuple[str, ...] = tuple(output["name"] for output in encoder["outputs"]) if encoder else ()
        self._image_axes = (1, 2) if self.dtype == np.uint8 else (2, 3)
        # The last two axes of latents are height and width. Codes need no axis of channels.
        grid_axes = (len(self.latent_shape) - 1, len(self.latent_shape))
        self._sizes = ImageSizes(self._graphs, self._image_axes, grid_axes, self.factors)

    def __reduce__(self) -> tuple[object, ...]:
        return _reload, (self.source,)

    @property
    def factors(self) -> tuple[int, int]:
        """Pixels of an image for each place of its latents, vertically and horizontally, if both are grids."""
        sizes, grid = self.data["shape"], self.manifest["latent_shape"][-2:]
        if len(sizes) != 3 or len(grid) != 2:
            return (1, 1)
        return max(1, sizes[1] // grid[0]), max(1, sizes[2] // grid[1])

    @property
    def takes_coordinates(self) -> bool:
        """Whether the decoder takes coordinates, so that its images have any resolution."""
        return self._sizes.takes_coordinates

    @property
    def scaling(self) -> Scaling:
        """How values became x: `scaling.apply(values)` before the graphs, `scaling.invert(x)` after them."""
        return scaling_of(self.data)

    @property
    def tokenizer(self) -> Tokenizer:
        """The map between texts and ids: `tokenizer.to_ids(texts, model.shape[0])` and `tokenizer.to_texts(ids)`.

        Raises:
            VaezooError: If the data of the model have none.
        """
        tokenizer = tokenizer_of(self.data)
        if tokenizer is None:
            raise VaezooError(f"the export {self.source.folder} has no tokenizer", "give token ids")
        return tokenizer

    def from_table(self, table: Mapping[str, Sequence[object]]) -> Array:
        """Returns x for the rows of a table, whose columns are found by their names.

        Args:
            table: Name -> cells: numbers, texts or dates. None, NaN and empty texts are missing cells.

        Raises:
            VaezooError: If a column is missing or unknown, or a cell does not fit it.
        """
        return from_table(self.data, table)

    def to_table(self, x: Array) -> dict[str, Array]:
        """Returns the cells of rows x, as `sample` and `reconstruct` return them, by column."""
        return to_table(self.data, x)

    def encode(
        self,
        x: Array,
        y: Array | None = None,
        *,
        tile: int | None = None,
        overlap: int = OVERLAP,
        pad: Pad | None = None,
    ) -> dict[str, Array]:
        """Returns the outputs of the encoder by name, such as mu and logvar, `(N, *latent_shape)` each.

        Raises:
            VaezooError: If x has the wrong shape, type or range, or labels are missing or wrong, or tiles or padding
                are asked for and do not fit.
        """
        self._graphs.require("encoder")
        tiling = self._sizes.tiling("encoder", "x", tile, overlap)
        x = by_column(x, self.data.get("column_names", []))
        check_type(x, self.dtype, self.data["kind"])
        if pad is not None and x.ndim == len(self.shape) + 1:
            self._sizes.require_free("encoder", "x")
            x = pad_image(x, self._image_axes, self.factors, pad)
        inputs = self._graphs.inputs("encoder", {"x": x, "y": y})
        if len(inputs["x"]):
            check_values(inputs["x"], self.data)
        return dict(zip(self.outputs, self._sizes.run("encoder", inputs, tiling), strict=True))

    def decode(
        self,
        z: Array,
        y: Array | None = None,
        *,
        x: Array | None = None,
        tile: int | None = None,
        overlap: int = OVERLAP,
        resolution: Resolution | None = None,
    ) -> Array:
        """Returns the first output of the decoder for latents z `(N, *latent_shape)`.

        It is the mean of p(x|z), `(N, *shape)`. Of a table it is the means and probabilities of its columns, and of
        tokens their logits.

        Args:
            z: Latents.
            y: Labels, if the decoder is conditioned on them.
            x: Token ids so far, if the decoder is autoregressive.
            tile: Pixels per side of a tile; see the class.
            overlap: Pixels that two tiles share.
            resolution: Size of the images, if the decoder takes coordinates. By default that of the data.

        Raises:
            VaezooError: If z has the wrong shape or type, or labels are missing or wrong, or the model takes none. Also
                if tiles or a resolution are asked for and the model has neither.
        """
        self._check_takes(y)
        tiling = self._sizes.tiling("decoder", "z", tile, overlap)
        size = self._sizes.resolution(resolution)
        if size is not None:
            return self._sizes.decode_at(z, y, *size)
        inputs = self._graphs.inputs("decoder", {"z": z, "y": y, "x": x})
        return self._sizes.run("decoder", inputs, tiling)[0]

    def reconstruct(
        self,
        x: Array,
        y: Array | None = None,
        *,
        tile: int | None = None,
        overlap: int = OVERLAP,
        pad: Pad | None = None,
        resolution: Resolution | None = None,
        drawing: Drawing | None = None,
        seed: int = 0,
    ) -> Array:
        """Returns the mean of p(x|z) at the mode of q(z|x), `(N, *shape)`. A category is the most probable one.

        An image that was padded is cropped to its size again. For the arguments see `encode` and `decode`. The ids of
        texts are the most probable ones, or with a `drawing` those that it chooses. `seed` is that of its draws.
        """
        self._graphs.require("decoder")
        self._sizes.resolution(resolution)  # an error of it comes before the work
        z = self.encode(x, y, tile=tile, overlap=overlap, pad=pad)[self.manifest["mode"]]
        y = y if self.takes_labels() else None
        if tile is not None:
            means = self.decode(z, y, tile=tile, overlap=overlap)
        else:
            rng = np.random.default_rng(seed) if drawing else None
            means = self.decode_latents(z, y, rng, resolution=resolution, drawing=drawing)
        if pad is None or resolution is not None:
            return means
        rows, columns = self._image_axes
        cut = [slice(None)] * means.ndim
        cut[rows], cut[columns] = (slice(np.shape(x)[axis]) for axis in self._image_axes)
        return means[tuple(cut)]

    def sample(
        self,
        n: int,
        seed: int = 0,
        *,
        y: Array | None = None,
        resolution: Resolution | None = None,
        drawing: Drawing | None = None,
    ) -> Array:
        """Returns the means of p(x|z) of n latents drawn from the prior, `(n, *shape)`. The seed fixes the result.

        A category of a table is the most probable one.

        Args:
            n: Number of samples.
            seed: Seed of the latents, and of token ids, a whole number of at least 0.
            y: Labels, for a conditional model. By default all labels in turn.
            resolution: Size of the images, if the decoder takes coordinates. The latents do not depend on it.
            drawing: How token ids are chosen. By default they are drawn with the probabilities of the model.

        Raises:
            VaezooError: If n or the seed is out of range, labels are wrong or the model takes none, or the export does
                not hold the model's prior. Also if there is a resolution, and the decoder takes no coordinates.
        """
        n, seed = whole_number("n", n, 1), whole_number("seed", seed)
        self._graphs.require("decoder")
        self._check_takes(y)
        self._sizes.resolution(resolution)
        rng = np.random.default_rng(seed)
        y = self.labels_in_turn(n) if y is None else y
        z = self.sample_prior(n, y, rng)
        return self.decode_latents(z, y, rng, resolution=resolution, drawing=drawing)

    def takes_labels(self, *graphs: GraphName) -> bool:
        """Returns whether one of some graphs takes labels. By default these are all graphs of the export."""
        return self._graphs.takes_labels(*graphs)

    def labels_in_turn(self, n: int) -> Array | None:
        """Returns all labels of the data in turn, `(n,)` or `(n, factors)`. None if no graph takes labels."""
        if not self.takes_labels():
            return None
        columns = [np.arange(n) % count for count in self.data["classes"]]
        return columns[0] if len(columns) == 1 else np.stack(columns, 1)

    def run(self, graph: GraphName, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs any graph of the export: inputs by name -> outputs by name."""
        self._graphs.require(graph)
        names = [output["name"] for output in self.manifest["graphs"][graph]["outputs"]]
        return dict(zip(names, self._graphs.run(graph, self._graphs.inputs(graph, inputs)), strict=True))

    def sample_prior(self, n: int, y: Array | None, rng: np.random.Generator) -> Array:
        """Draws n latents from the prior, `(n, *latent_shape)`; raises as `sample` does."""
        return draw_latents(self._graphs, n, y, rng)

    def decode_latents(
        self,
        z: Array,
        y: Array | None = None,
        rng: np.random.Generator | None = None,
        *,
        resolution: Resolution | None = None,
        drawing: Drawing | None = None,
    ) -> Array:
        """Returns the data of latents, `(N, *shape)`, id by id if the decoder is autoregressive.

        Args:
            z: Latents, `(N, *latent_shape)`.
            y: Labels, if the decoder is conditioned on them.
            rng: Draws the ids of an autoregressive decoder. Without it they are the most probable.
            resolution: As in `decode`.
            drawing: How these ids are chosen. By default they are drawn with the probabilities of the model.
        """
        loop = self.manifest["autoregressive"]
        if loop is None:
            x = self.decode(z, y, resolution=resolution)
            if self.data["kind"] == "table":
                return table_rows(x, self.data["columns"])
            return x.argmax(-1) if self.data["kind"] == "tokens" else x
        self._check_takes(y)
        return decode_texts(self._graphs, loop, z, y, drawing or Drawing(), rng)

    def _check_takes(self, y: object) -> None:
        """Raises VaezooError if labels are asked for and the model takes none. Those that come with x are not used."""
        if y is not None and not self.takes_labels():
            raise VaezooError(f"the graphs of {self.source.folder} take no labels", "leave out y")
