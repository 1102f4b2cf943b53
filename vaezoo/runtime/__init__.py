"""Run an exported model on numpy arrays, with numpy and onnxruntime only.

model = vaezoo.runtime.load("exports/conv-vae-digits-1")
images = model.sample(16, seed=1)
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaezoo.core.coordinates import Resolution, parse_resolution, pixel_coordinates
from vaezoo.core.counts import whole_number
from vaezoo.core.scaling import Scaling
from vaezoo.errors import InputError, VaezooError
from vaezoo.runtime.export_files import check_metadata, folder_path, read_graph, read_manifest
from vaezoo.runtime.manifest import (
    Array,
    DataEntry,
    GraphName,
    Manifest,
    TensorSignature,
    example_shape,
    has_shape,
    scaling_of,
)
from vaezoo.runtime.ort_session import STOP_SPINNING, Provider, first_line, open_session
from vaezoo.runtime.tiling import OVERLAP, Layout, Pad, Tiling, make_tiling, pad_image, run_tiled

if TYPE_CHECKING:
    import onnxruntime as ort

MAX_LISTED = 20  # columns in an error
RANGE_TOLERANCE = 0.05  # resampled images may lie outside [0, 1] by this much
CHUNK_SIZE = 256  # examples in one run of a graph, so that memory stays bounded for any number of examples
CHUNK_PIXELS = 1 << 18  # pixels in one run of a decoder of coordinates, for the same reason


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


@dataclass(frozen=True, slots=True)
class Source:
    """Where an opened export came from, and how it was opened; see `load`."""

    folder: Path
    provider: Provider
    threads: int | None


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

    def __reduce__(self) -> tuple[object, ...]:
        return _reload, (self.source,)

    @property
    def factors(self) -> tuple[int, int]:
        """Pixels of an image for each pixel of its latents, vertically and horizontally, if both are images."""
        sizes, latents = self.data["shape"], self.manifest["latent_shape"]
        if not len(sizes) == len(latents) == 3:
            return (1, 1)
        return max(1, sizes[1] // latents[1]), max(1, sizes[2] // latents[2])

    @property
    def takes_coordinates(self) -> bool:
        """Whether the decoder takes coordinates, so that its images have any resolution."""
        decoder = self.manifest["graphs"].get("decoder")
        return decoder is not None and any(tensor["name"] == "coordinates" for tensor in decoder["inputs"])

    @property
    def scaling(self) -> Scaling:
        """How values became x: `scaling.apply(values)` before the graphs, `scaling.invert(x)` after them."""
        return scaling_of(self.data)

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
        self._require("encoder")
        tiling = self._tiling("encoder", "x", tile, overlap)
        x = by_column(x, self.data.get("column_names", []))
        if self.dtype == np.uint8 and x.dtype != np.uint8:
            hint = "give values 0 to 255 as uint8, such as x.astype('uint8')"
            raise VaezooError(f"the encoder accepts uint8 images, not {x.dtype}", hint)
        if self.dtype.kind == "f" and x.dtype.kind != "f":
            are_bytes = self.data["kind"] == "unit" and x.dtype.kind in "iu"
            hint = "convert it to float32, and divide bytes by 255" if are_bytes else "give numbers as float32"
            raise VaezooError(f"the encoder accepts floats{self._range()}, not {x.dtype}", hint)
        if self.dtype.kind == "i" and x.dtype.kind not in "iu":
            raise VaezooError(f"the encoder accepts token ids, not {x.dtype}", "convert it to int64")
        if pad is not None and x.ndim == len(self.shape) + 1:
            self._require_free_size("encoder", "x")
            x = pad_image(x, self._image_axes, self.factors, pad)
        inputs = self._inputs("encoder", {"x": x, "y": y})
        if len(inputs["x"]):
            self._check_values(inputs["x"])
        outputs = self._run("encoder", inputs) if tiling is None else self._run_tiled("encoder", inputs, tiling)
        return dict(zip(self.outputs, outputs, strict=True))

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
        tiling = self._tiling("decoder", "z", tile, overlap)
        size = self._resolution(resolution)
        if size is not None:
            return self._decode_at(z, y, *size)
        inputs = self._inputs("decoder", {"z": z, "y": y, "x": x})
        return (self._run("decoder", inputs) if tiling is None else self._run_tiled("decoder", inputs, tiling))[0]

    def reconstruct(
        self,
        x: Array,
        y: Array | None = None,
        *,
        tile: int | None = None,
        overlap: int = OVERLAP,
        pad: Pad | None = None,
        resolution: Resolution | None = None,
    ) -> Array:
        """Returns the mean of p(x|z) at the mode of q(z|x), `(N, *shape)`. A category is the most probable one.

        An image that was padded is cropped to its size again. For the arguments see `encode` and `decode`.
        """
        self._require("decoder")
        self._resolution(resolution)  # an error of it comes before the work
        z = self.encode(x, y, tile=tile, overlap=overlap, pad=pad)[self.manifest["mode"]]
        y = y if self.takes_labels() else None
        if tile is not None:
            means = self.decode(z, y, tile=tile, overlap=overlap)
        else:
            means = self.decode_latents(z, y, resolution=resolution)
        if pad is None or resolution is not None:
            return means
        rows, columns = self._image_axes
        cut = [slice(None)] * means.ndim
        cut[rows], cut[columns] = (slice(np.shape(x)[axis]) for axis in self._image_axes)
        return means[tuple(cut)]

    def sample(self, n: int, seed: int = 0, *, y: Array | None = None, resolution: Resolution | None = None) -> Array:
        """Returns the means of p(x|z) of n latents drawn from the prior, `(n, *shape)`. The seed fixes the result.

        A category of a table is the most probable one.

        Args:
            n: Number of samples.
            seed: Seed of the latents, and of token ids, a whole number of at least 0.
            y: Labels, for a conditional model. By default all labels in turn.
            resolution: Size of the images, if the decoder takes coordinates. The latents do not depend on it.

        Raises:
            VaezooError: If n or the seed is out of range, labels are wrong or the model takes none, or the export does
                not hold the model's prior. Also if there is a resolution, and the decoder takes no coordinates.
        """
        n, seed = whole_number("n", n, 1), whole_number("seed", seed)
        self._require("decoder")
        self._check_takes(y)
        self._resolution(resolution)
        rng = np.random.default_rng(seed)
        y = self.labels_in_turn(n) if y is None else y
        return self.decode_latents(self.sample_prior(n, y, rng), y, rng, resolution=resolution)

    def takes_labels(self, *graphs: GraphName) -> bool:
        """Returns whether one of some graphs takes labels. By default these are all graphs of the export."""
        known = self.manifest["graphs"]
        signatures = [known[graph] for graph in graphs or known if graph in known]
        return any(tensor["name"] == "y" for signature in signatures for tensor in signature["inputs"])

    def labels_in_turn(self, n: int) -> Array | None:
        """Returns all labels of the data in turn, `(n,)` or `(n, factors)`. None if no graph takes labels."""
        if not self.takes_labels():
            return None
        columns = [np.arange(n) % count for count in self.data["classes"]]
        return columns[0] if len(columns) == 1 else np.stack(columns, 1)

    def run(self, graph: GraphName, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs any graph of the export: inputs by name -> outputs by name."""
        self._require(graph)
        names = [output["name"] for output in self.manifest["graphs"][graph]["outputs"]]
        return dict(zip(names, self._run(graph, self._inputs(graph, inputs)), strict=True))

    def sample_prior(self, n: int, y: Array | None, rng: np.random.Generator) -> Array:
        """Draws n latents from the prior, `(n, *latent_shape)`; raises as `sample` does."""
        prior = self.manifest["prior"]
        if prior == "standard-normal":
            return rng.standard_normal((n, *self.manifest["latent_shape"]), dtype=np.float32)
        if prior == "graph":
            shape = example_shape(self._signature("prior", "noise"))
            noise = rng.standard_normal((n, *map(int, shape)), dtype=np.float32)
            return self._run("prior", self._inputs("prior", {"noise": noise, "y": y}))[0]
        if prior == "autoregressive":
            latent_shape = self.manifest["latent_shape"]
            length = math.prod(latent_shape)
            ids = np.zeros((n, length), np.int64)
            for position in range(length):
                inputs = self._inputs("prior", {"z": ids.reshape(n, *latent_shape), "y": y})
                ids[:, position] = draw_ids(self._run("prior", inputs)[0][:, position], rng)
            return ids.reshape(n, *latent_shape)
        raise VaezooError(
            f"{self.manifest['model']} has a custom prior, which this export does not hold",
            "draw z yourself and call decode, or sample from the run folder",
        )

    def decode_latents(
        self,
        z: Array,
        y: Array | None = None,
        rng: np.random.Generator | None = None,
        *,
        resolution: Resolution | None = None,
    ) -> Array:
        """Returns the data of latents, `(N, *shape)`, id by id if the decoder is autoregressive.

        Args:
            z: Latents, `(N, *latent_shape)`.
            y: Labels, if the decoder is conditioned on them.
            rng: Draws the ids of an autoregressive decoder. Without it they are the most probable.
            resolution: As in `decode`.
        """
        loop = self.manifest["autoregressive"]
        if loop is None:
            x = self.decode(z, y, resolution=resolution)
            if self.data["kind"] == "table":
                return table_rows(x, self.data["columns"])
            return x.argmax(-1) if self.data["kind"] == "tokens" else x
        x, ended = np.zeros((len(z), loop["length"]), np.int64), np.zeros(len(z), bool)
        has_free_length = isinstance(self._signature("decoder", "x")["shape"][1], str)
        for position in range(loop["length"]):
            logits = self.decode(z, y, x=x[:, : position + 1] if has_free_length else x)[:, position]
            ids = logits.argmax(-1) if rng is None else draw_ids(logits, rng)
            x[:, position] = np.where(ended, 0, ids)
            ended |= ids == loop["end_id"]
            if ended.all():
                break
        return x

    @property
    def _image_axes(self) -> tuple[int, int]:
        """The axes of height and width in a batch of images."""
        return (1, 2) if self.dtype == np.uint8 else (2, 3)

    def _require_free_size(self, graph: GraphName, name: str) -> None:
        """Raises VaezooError unless an input of a graph is an image whose height and width are free."""
        shape = example_shape(self._signature(graph, name))
        axes = self._image_axes if name == "x" else (2, 3)
        if len(shape) != 3 or any(isinstance(shape[axis - 1], int) for axis in axes):
            raise VaezooError(
                f"the {graph} of {self.source.folder} takes inputs of one size only, {shape}",
                "leave out tile and pad, which are for graphs of free height and width",
            )

    def _tiling(self, graph: GraphName, name: str, tile: int | None, overlap: int) -> Tiling | None:
        """Returns how images are cut, or None if they are not.

        Raises:
            VaezooError: If the graph takes one size only, or the sizes do not fit.
        """
        if tile is None:
            return None
        self._require(graph)
        self._require_free_size(graph, name)
        return make_tiling(tile, overlap, self.factors)

    def _run_tiled(self, graph: GraphName, inputs: dict[str, Array], tiling: Tiling) -> list[Array]:
        """Runs a graph on tiles of its image, x or z."""
        if not len(next(iter(inputs.values()))):
            return self._run(graph, inputs)
        images, latents = Layout(self._image_axes, self.factors), Layout((2, 3), (1, 1))
        name, read, write = ("x", images, latents) if graph == "encoder" else ("z", latents, images)
        return run_tiled(lambda tile: self._run(graph, tile), inputs, name, tiling, read, write)

    def _resolution(self, resolution: Resolution | None) -> tuple[int, int] | None:
        """Returns height and width of the decoder's images. None if it takes no coordinates.

        Raises:
            VaezooError: If it takes none and a user asks for a resolution.
        """
        if not self.takes_coordinates:
            if resolution is None:
                return None
            raise VaezooError(
                f"the decoder of {self.source.folder} takes no coordinates, so its images have one resolution",
                "leave out the resolution, or use cppn-vae",
            )
        _, height, width = self.data["shape"]
        return (height, width) if resolution is None else parse_resolution(resolution)

    def _decode_at(self, z: Array, y: Array | None, height: int, width: int) -> Array:
        """Decodes latents at a resolution, a few examples or rows of pixels at a time. Each pixel is on its own."""
        places, rows = pixel_coordinates(height, width), as_array("z", z).shape[:1]
        one_pixel = np.broadcast_to(places[:, :1, :1], (*rows, *places[:, :1, :1].shape))
        given = self._inputs("decoder", {"z": z, "y": y, "coordinates": one_pixel})
        examples, lines = max(1, CHUNK_PIXELS // (height * width)), max(1, CHUNK_PIXELS // width)
        parts = []
        for start in range(0, max(1, *rows), examples):
            part = {name: array[start : start + examples] for name, array in given.items()}
            bands = []
            for top in range(0, height, lines):
                band = places[:, top : top + lines]
                part["coordinates"] = np.repeat(band[None], len(part["z"]), axis=0)
                bands.append(self._run("decoder", part)[0])
            parts.append(np.concatenate(bands, self._image_axes[0]))
        return np.concatenate(parts)

    def _range(self) -> str:
        return " in [0, 1]" if self.data["kind"] == "unit" else ""

    def _check_values(self, x: Array) -> None:
        """Raises VaezooError unless x has values of the data's kind. The comparisons are false for NaN as well."""
        low, high, kind = x.min(), x.max(), self.data["kind"]
        # Data that minmax has scaled lie outside [0, 1] where they lie outside the range of the training.
        is_limited = kind == "unit" and self.dtype != np.uint8 and not self.scaling.offset
        if is_limited and not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
            raise VaezooError(f"x has values from {low:g} to {high:g}, the encoder accepts 0 to 1", "scale x to 0..1")
        if kind == "tokens" and not (low >= 0 and high < self.data["vocabulary"]):
            raise VaezooError(
                f"x has ids from {low} to {high}", f"the ids of the vocabulary are 0 to {self.data['vocabulary'] - 1}"
            )
        if kind == "count" and not low >= 0:
            raise VaezooError(f"x has the count {low:g}", "give counts of at least 0")
        if kind == "table":
            self._check_categories(x)

    def _check_categories(self, x: Array) -> None:
        for column, values in zip(self.data["columns"], x.T, strict=True):
            name, _, size = column.rpartition(":")
            if size.isdigit() and not (values.min() >= 0 and values.max() < int(size)):
                raise VaezooError(
                    f"column '{name}' has values from {values.min():g} to {values.max():g}",
                    f"its categories are 0 to {int(size) - 1}",
                )

    def _check_takes(self, y: object) -> None:
        """Raises VaezooError if labels are asked for and the model takes none. Those that come with x are not used."""
        if y is not None and not self.takes_labels():
            raise VaezooError(f"the graphs of {self.source.folder} take no labels", "leave out y")

    def _require(self, graph: GraphName) -> None:
        """Raises VaezooError unless a graph is there."""
        if graph in self.sessions:
            return
        here = f"it has {', '.join(self.sessions)}"
        if graph in self.manifest["graphs"]:
            file = self.source.folder / f"{graph}.onnx"
            raise InputError(f"{file} is missing, and this needs it", "copy the file, or export the run again")
        raise VaezooError(f"{self.source.folder} has no graph '{graph}': {here}", "export the run without --parts")

    def _signature(self, graph: GraphName, name: str) -> TensorSignature:
        return next(tensor for tensor in self.manifest["graphs"][graph]["inputs"] if tensor["name"] == name)

    def _inputs(self, graph: GraphName, given: Mapping[str, Array | None]) -> dict[str, Array]:
        """Returns the inputs that a graph takes, checked. What it does not take is left out."""
        self._require(graph)
        inputs = {}
        for tensor in self.manifest["graphs"][graph]["inputs"]:
            name, array = tensor["name"], given.get(tensor["name"])
            if array is None:
                raise VaezooError(f"the {graph} needs '{name}' as well", f"call it with {name}=...")
            array = as_array(name, array)
            if name == "y" and array.dtype.kind not in "iu":
                raise VaezooError(f"y holds {array.dtype}, not integers", "give the number of each label")
            inputs[name] = _check_batch(array, tensor)
        if "y" in inputs and len(inputs["y"]):
            self._check_labels(inputs["y"])
        sizes = {name: len(array) for name, array in inputs.items()}
        if len(set(sizes.values())) > 1:
            text = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise VaezooError(f"the inputs have different numbers of rows: {text}", "give one row for each example")
        return inputs

    def _check_labels(self, y: Array) -> None:
        for column, count in zip(y.reshape(len(y), -1).T, self.data["classes"], strict=True):
            if column.min() < 0 or column.max() >= count:
                wrong = column.min() if column.min() < 0 else column.max()
                raise VaezooError(
                    f"there is no label {wrong}", f"the labels of '{self.data['name']}' are 0 to {count - 1}"
                )

    def _run(self, name: GraphName, inputs: Mapping[str, Array]) -> list[Array]:
        """Runs a graph in chunks of CHUNK_SIZE examples and returns its outputs."""
        session, size = self.sessions[name], len(next(iter(inputs.values())))
        if size == 0:  # one row tells the shapes of the outputs
            row = {key: np.zeros((1, *array.shape[1:]), array.dtype) for key, array in inputs.items()}
            return [output[:0] for output in self._run(name, row)]
        try:
            chunks = [
                session.run(None, {key: array[i : i + CHUNK_SIZE] for key, array in inputs.items()})
                for i in range(0, size, CHUNK_SIZE)
            ]
        except Exception as e:  # ONNX Runtime's errors have no common base class
            raise InputError(f"ONNX Runtime cannot run {name}.onnx: {first_line(e)}", "see 'vaezoo verify'") from e
        return [np.concatenate(outputs) for outputs in zip(*chunks, strict=True)]


def draw_ids(logits: Array, rng: np.random.Generator) -> Array:
    """Draws one id from each row of logits `(N, ids)`. The largest of logit + Gumbel noise has the softmax's odds."""
    ids: Array = (logits + rng.gumbel(size=logits.shape)).argmax(-1)
    return ids


def table_rows(output: Array, columns: Sequence[str]) -> Array:
    """Returns rows `(N, columns)` from the decoder's output, in which a category has k probabilities side by side.

    Args:
        output: `(N, ...)`.
        columns: `name:real` or `name:k`.
    """
    sizes = [column.rpartition(":")[2] for column in columns]
    widths = [int(size) if size.isdigit() else 1 for size in sizes]
    parts = np.split(output, np.cumsum(widths)[:-1], axis=1)
    rows = [part.argmax(1) if size.isdigit() else part[:, 0] for part, size in zip(parts, sizes, strict=True)]
    return np.stack(rows, 1).astype(output.dtype)


def as_array(name: str, values: object) -> Array:
    """Returns an input as an array. Raises VaezooError unless all its rows have one shape."""
    try:
        return np.asarray(values)
    except ValueError as e:
        raise VaezooError(f"{name} is not an array: {first_line(e)}", "give rows of one shape") from e


def by_column(x: object, names: Sequence[str]) -> Array:
    """Returns an input as an array. The columns of a data frame are brought into the order of a model's names.

    Raises:
        VaezooError: If a frame has other columns, or the rows have several shapes.
    """
    given = list(getattr(x, "columns", ()))
    if not names or not given or given == list(range(len(given))):
        return as_array("x", x)
    places = {str(column): i for i, column in enumerate(given)}
    if len(given) != len(names) or places.keys() != set(names):
        other = sorted(places.keys() ^ set(names))[:MAX_LISTED]
        what = f"x has the columns {', '.join(map(str, given[:MAX_LISTED]))}"
        raise VaezooError(f"{what}; these differ: {', '.join(other)}", f"give {', '.join(names[:MAX_LISTED])}")
    values = x.to_numpy() if hasattr(x, "to_numpy") else x
    return as_array("x", values)[:, [places[name] for name in names]]


def _check_batch(array: Array, tensor: TensorSignature) -> Array:
    """Returns a batch as a contiguous array of an input's type.

    Raises:
        VaezooError: If it has another shape, or a value that is not finite, or if a free size is not a multiple
            of what it must be.
    """
    shape, multiples = example_shape(tensor), tensor.get("multiples", {})
    if array.dtype.kind not in "biuf":
        raise VaezooError(f"{tensor['name']} holds {array.dtype}, not numbers", "convert it to float32")
    if array.ndim != len(shape) + 1 or not has_shape(array.shape[1:], shape) or 0 in array.shape[1:]:
        wanted = ", ".join(str(n) for n in ("N", *shape))
        raise VaezooError(f"{tensor['name']} has shape {array.shape}", f"give an array of shape ({wanted})")
    for name, size in zip(shape, array.shape[1:], strict=True):
        divisor = multiples.get(str(name), 1)
        if size % divisor:
            raise VaezooError(f"{tensor['name']} has {name} {size}", f"give a multiple of {divisor}, or a value of pad")
    with np.errstate(over="ignore", invalid="ignore"):  # too large for the type, or NaN where integers are wanted
        converted = np.ascontiguousarray(array, np.dtype(tensor["dtype"]))
    # A float that is too large becomes infinite. An integer made of NaN looks like any other.
    if not np.isfinite(converted if converted.dtype.kind == "f" else array).all():
        raise VaezooError(f"{tensor['name']} holds NaN or infinite values", "leave out those rows, or fill them in")
    return converted
