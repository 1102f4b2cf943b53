"""Run an exported model on numpy arrays, with numpy and onnxruntime only.

model = vaezoo.runtime.load("exports/conv-vae-digits-1")
images = model.sample(16, seed=1)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaezoo.errors import InputError, VaezooError
from vaezoo.runtime.manifest import (
    GRAPH_NAMES,
    Array,
    GraphName,
    Manifest,
    check_metadata,
    example_shape,
    read_graph,
    read_manifest,
)
from vaezoo.runtime.ort_session import STOP_SPINNING, Provider, first_line, open_session

if TYPE_CHECKING:
    import onnxruntime as ort

RANGE_TOLERANCE = 0.05  # resampled images may lie outside [0, 1] by this much
CHUNK_SIZE = 256  # examples in one run of a graph, so that memory stays bounded for any number of examples


def load(folder: str | os.PathLike[str], provider: Provider = "cpu", *, threads: int | None = None) -> OnnxVAE:
    """Opens an export.

    Args:
        folder: A folder that `vaezoo export` wrote.
        provider: "cpu" or "cuda".
        threads: Threads for one operator. By default ONNX Runtime chooses.

    Raises:
        InputError: If the folder is not an export, is damaged, or holds graphs of different exports.
        VaezooError: If onnxruntime is not installed, or the provider cannot run here.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    # The hashes of both files are compared before ONNX Runtime parses either.
    files = {name: read_graph(folder, manifest, name) for name in GRAPH_NAMES}
    sessions = {
        name: open_session(data, provider, threads=threads, entries=STOP_SPINNING) for name, data in files.items()
    }
    metadata = {name: session.get_modelmeta().custom_metadata_map for name, session in sessions.items()}
    check_metadata(folder, manifest, metadata)
    return OnnxVAE(manifest, sessions)


class OnnxVAE:
    """Encoder and decoder of an export. Use `load` to open one.

    Images are float32 `(N, C, H, W)` in [0, 1]. If exported with --uint8, they are uint8 `(N, H, W, C)`.

    Attributes:
        manifest: The content of manifest.json.
        shape: Shape of one image, as input and as output.
        latent_shape: Shape of one latent z.
        dtype: Type of the images.
        outputs: Names of the encoder's outputs.
    """

    def __init__(self, manifest: Manifest, sessions: Mapping[GraphName, ort.InferenceSession]) -> None:
        self.manifest = manifest
        self.sessions = sessions
        encoder = manifest["graphs"]["encoder"]
        self.shape = example_shape(encoder["input"])
        self.dtype = np.dtype(encoder["input"]["dtype"])
        self.latent_shape: tuple[int, ...] = tuple(manifest["latent_shape"])
        self.outputs: tuple[str, ...] = tuple(output["name"] for output in encoder["outputs"])

    def encode(self, x: Array) -> dict[str, Array]:
        """Returns the fields of q(z|x) by name, such as mu and logvar, `(N, *latent_shape)` each.

        Raises:
            VaezooError: If x has the wrong shape, type or range.
        """
        if self.dtype == np.uint8 and np.asarray(x).dtype != np.uint8:
            raise VaezooError(f"the encoder accepts uint8 images, not {np.asarray(x).dtype}", "give values 0 to 255")
        if self.dtype != np.uint8 and np.asarray(x).dtype.kind != "f":
            raise VaezooError(f"the encoder accepts floats in [0, 1], not {np.asarray(x).dtype}", "divide by 255")
        x = _check_batch("x", x, self.shape, self.dtype)
        # The comparison is false for NaN as well.
        if self.dtype != np.uint8 and not (x.min() >= -RANGE_TOLERANCE and x.max() <= 1 + RANGE_TOLERANCE):
            raise VaezooError(
                f"x has values from {x.min():g} to {x.max():g}, the encoder accepts 0 to 1", "scale x to 0..1"
            )
        return dict(zip(self.outputs, self._run("encoder", x), strict=True))

    def decode(self, z: Array) -> Array:
        """Returns the mean of p(x|z), `(N, *shape)`, for latents z `(N, *latent_shape)`."""
        dtype = np.dtype(self.manifest["graphs"]["decoder"]["input"]["dtype"])
        return self._run("decoder", _check_batch("z", z, self.latent_shape, dtype))[0]

    def reconstruct(self, x: Array) -> Array:
        """Returns the mean of p(x|z) at the mode of q(z|x), `(N, *shape)`."""
        return self.decode(self.encode(x)[self.manifest["mode"]])

    def sample(self, n: int, seed: int = 0) -> Array:
        """Returns the mean images of n latents drawn from the prior, `(n, *shape)`. The seed fixes the result.

        Raises:
            VaezooError: If n is below 1, or the model's prior is not the standard normal.
        """
        if n < 1:
            raise VaezooError(f"cannot draw {n} samples", "ask for at least 1")
        if self.manifest["prior"] != "standard-normal":
            raise VaezooError(
                f"{self.manifest['model']} has a custom prior, which an export does not hold",
                "draw z yourself and call decode, or sample from the run folder",
            )
        z = np.random.default_rng(seed).standard_normal((n, *self.latent_shape), dtype=np.float32)
        return self.decode(z)

    def _run(self, name: GraphName, array: Array) -> list[Array]:
        """Runs a graph in chunks of CHUNK_SIZE examples and returns its outputs."""
        session, tensor = self.sessions[name], self.manifest["graphs"][name]["input"]["name"]
        starts = range(0, len(array), CHUNK_SIZE)
        try:
            chunks = [session.run(None, {tensor: array[i : i + CHUNK_SIZE]}) for i in starts]
        except Exception as e:  # ONNX Runtime's errors have no common base class
            raise InputError(f"ONNX Runtime cannot run {name}.onnx: {first_line(e)}", "see 'vaezoo verify'") from e
        return [np.concatenate(outputs) for outputs in zip(*chunks, strict=True)]


def _check_batch(name: str, array: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Returns a batch as a contiguous array of `dtype`. Raises VaezooError if it is empty or has another shape."""
    array = np.asarray(array)
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape or not len(array):
        wanted = ", ".join(str(n) for n in ("N", *shape))
        raise VaezooError(f"{name} has shape {array.shape}", f"give an array of shape ({wanted})")
    return np.ascontiguousarray(array, dtype)
