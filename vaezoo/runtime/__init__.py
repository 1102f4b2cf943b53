"""An exported model on numpy arrays: needs numpy and onnxruntime, neither torch nor the model's package.

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
from vaezoo.runtime.manifest import GRAPH_NAMES, Array, GraphName, check_metadata, read_graph, read_manifest
from vaezoo.runtime.ort_session import STOP_SPINNING, Provider, first_line, open_session

if TYPE_CHECKING:
    import onnxruntime as ort

SLACK = 0.05  # what resampling may overshoot
CHUNK = 256  # examples at a time: memory stays bounded for any number


def load(folder: str | os.PathLike[str], provider: Provider = "cpu", *, threads: int | None = None) -> OnnxVAE:
    """Opens an export folder.

    Args:
        folder: What `vaezoo export` wrote.
        provider: "cpu" or "cuda".
        threads: Threads for one operator; ONNX Runtime's own choice unless given.

    Raises:
        InputError: If the folder is no export, is damaged, or its two graphs do not belong together.
        VaezooError: If onnxruntime is not installed, or the provider cannot run here.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    files = {
        part: read_graph(folder, manifest, part) for part in GRAPH_NAMES
    }  # both are as exported before one is opened
    sessions = {
        part: open_session(data, provider, threads=threads, entries=STOP_SPINNING) for part, data in files.items()
    }
    check_metadata(folder, manifest, {p: s.get_modelmeta().custom_metadata_map for p, s in sessions.items()})
    return OnnxVAE(manifest, sessions)


class OnnxVAE:
    """Encoder and decoder of an export; `load` makes it.

    Images are float32 `(N, C, H, W)` in [0, 1], or, exported with --uint8, uint8 `(N, H, W, C)`.

    Attributes:
        manifest: What manifest.json holds.
        shape: Shape of one image that goes in and comes out.
        latent_shape: Shape of one latent z.
        dtype: Of the images.
        outputs: Names of the encoder's outputs.
    """

    def __init__(self, manifest: Mapping[str, Any], sessions: Mapping[GraphName, ort.InferenceSession]) -> None:
        self.manifest = manifest
        self.sessions = sessions
        x = manifest["graphs"]["encoder"]["input"]
        self.shape: tuple[int, ...] = tuple(x["shape"][1:])
        self.dtype = np.dtype(x["dtype"])
        self.latent_shape: tuple[int, ...] = tuple(manifest["latent_shape"])
        self.outputs: tuple[str, ...] = tuple(o["name"] for o in manifest["graphs"]["encoder"]["outputs"])

    def encode(self, x: Array) -> dict[str, Array]:
        """Returns the fields of q(z|x) by name, such as mu and logvar, `(N, *latent_shape)` each."""
        if self.dtype == np.uint8 and np.asarray(x).dtype != np.uint8:
            raise VaezooError(f"the encoder takes uint8 images, not {np.asarray(x).dtype}", "give values 0 to 255")
        if self.dtype != np.uint8 and np.asarray(x).dtype.kind != "f":
            raise VaezooError(f"the encoder takes floats in [0, 1], not {np.asarray(x).dtype}", "divide by 255")
        x = _batch("x", x, self.shape, self.dtype)
        if self.dtype != np.uint8 and not (x.min() >= -SLACK and x.max() <= 1 + SLACK):
            raise VaezooError(
                f"x holds values from {x.min():g} to {x.max():g}; the encoder takes 0 to 1", "scale it to 0..1"
            )
        fields = self._run("encoder", x)
        return dict(zip(self.outputs, fields, strict=True))

    def decode(self, z: Array) -> Array:
        """Returns the mean of p(x|z), `(N, *shape)`, for latents z `(N, *latent_shape)`."""
        dtype = np.dtype(self.manifest["graphs"]["decoder"]["input"]["dtype"])
        return self._run("decoder", _batch("z", z, self.latent_shape, dtype))[0]

    def reconstruct(self, x: Array) -> Array:
        """Returns the mean image for the most probable code of x, `(N, *shape)`."""
        return self.decode(self.encode(x)[self.manifest["mode"]])

    def sample(self, n: int, seed: int = 0) -> Array:
        """Returns the mean images of n latents drawn from the prior, `(n, *shape)`: the same for the same seed.

        Raises:
            VaezooError: If the model's prior is not the standard normal: draw z yourself, then `decode`.
        """
        if n < 1:
            raise VaezooError(f"cannot draw {n} samples", "ask for at least 1")
        if self.manifest["prior"] != "standard-normal":
            raise VaezooError(
                f"{self.manifest['model']} has a prior of its own, which an export does not hold",
                "draw z yourself and call decode, or sample from the run folder",
            )
        z = np.random.default_rng(seed).standard_normal((n, *self.latent_shape), dtype=np.float32)
        return self.decode(z)

    def _run(self, part: GraphName, array: Array) -> list[Array]:
        session = self.sessions[part]
        name = self.manifest["graphs"][part]["input"]["name"]
        try:
            chunks = [session.run(None, {name: array[i : i + CHUNK]}) for i in range(0, len(array), CHUNK)]
        except Exception as e:  # ONNX Runtime's errors have no common class
            raise InputError(f"ONNX Runtime cannot run {part}.onnx: {first_line(e)}", "see 'vaezoo verify'") from e
        return [np.concatenate(outputs) for outputs in zip(*chunks, strict=True)]


def _batch(name: str, array: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    array = np.asarray(array)
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape or not len(array):
        wanted = ", ".join(str(n) for n in ("N", *shape))
        raise VaezooError(f"{name} has shape {array.shape}", f"give an array of shape ({wanted})")
    return np.ascontiguousarray(array, dtype)
