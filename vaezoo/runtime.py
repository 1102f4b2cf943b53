"""An exported model on numpy arrays: needs numpy and onnxruntime, neither torch nor the model's package.

model = vaezoo.runtime.load("exports/conv-vae-digits-1")
pictures = model.sample(16, seed=1)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vaezoo.errors import InputError, VaezooError
from vaezoo.files import read_json
from vaezoo.providers import STOP_SPINNING, Provider, first_line, open_session

if TYPE_CHECKING:
    import onnxruntime as ort

Part = Literal["encoder", "decoder"]
Array = NDArray[Any]

SCHEMA = 2
MANIFEST = "manifest.json"
PARTS: tuple[Part, ...] = ("encoder", "decoder")
LARGEST = 2**31 - 1  # bytes of one protobuf message
DTYPES = ("float32", "float64", "uint8", "int64", "bool")
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
    sessions = {
        part: open_session(read_graph(folder, manifest, part), provider, threads=threads, entries=STOP_SPINNING)
        for part in PARTS
    }
    check_pair(folder, {part: s.get_modelmeta().custom_metadata_map for part, s in sessions.items()})
    return OnnxVAE(manifest, sessions)


class OnnxVAE:
    """Encoder and decoder of an export; `load` makes it.

    Pictures are float32 `(N, C, H, W)` in [0, 1], or, exported with --uint8, uint8 `(N, H, W, C)`.

    Attributes:
        manifest: What manifest.json holds.
        shape: Shape of one picture that goes in and comes out.
        latent_shape: Shape of one latent z.
        dtype: Of the pictures.
        outputs: Names of the encoder's outputs.
    """

    def __init__(self, manifest: Mapping[str, Any], sessions: Mapping[Part, ort.InferenceSession]) -> None:
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
            raise VaezooError(f"the encoder takes uint8 pictures, not {np.asarray(x).dtype}", "give values 0 to 255")
        if self.dtype != np.uint8 and np.asarray(x).dtype.kind != "f":
            raise VaezooError(f"the encoder takes floats in [0, 1], not {np.asarray(x).dtype}", "divide by 255")
        fields = self._run("encoder", _batch("x", x, self.shape, self.dtype))
        return dict(zip(self.outputs, fields, strict=True))

    def decode(self, z: Array) -> Array:
        """Returns the mean of p(x|z), `(N, *shape)`, for latents z `(N, *latent_shape)`."""
        dtype = np.dtype(self.manifest["graphs"]["decoder"]["input"]["dtype"])
        return self._run("decoder", _batch("z", z, self.latent_shape, dtype))[0]

    def reconstruct(self, x: Array) -> Array:
        """Returns the mean picture for the most probable code of x, `(N, *shape)`."""
        return self.decode(self.encode(x)[self.manifest["mode"]])

    def sample(self, n: int, seed: int = 0) -> Array:
        """Returns the mean pictures of n latents drawn from the prior, `(n, *shape)`: the same for the same seed.

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

    def _run(self, part: Part, array: Array) -> list[Array]:
        session = self.sessions[part]
        name = self.manifest["graphs"][part]["input"]["name"]
        try:
            chunks = [session.run(None, {name: array[i : i + CHUNK]}) for i in range(0, len(array), CHUNK)]
        except Exception as e:  # ONNX Runtime's errors have no common class
            raise InputError(f"ONNX Runtime cannot run {part}.onnx: {first_line(e)}", "see 'vaezoo verify'") from e
        return [np.concatenate(outputs) for outputs in zip(*chunks, strict=True)]


def is_export(folder: str | os.PathLike[str]) -> bool:
    """Says whether a folder looks like an export. A checkpoint has a manifest, too, but no graphs."""
    folder = Path(folder)
    return (folder / MANIFEST).is_file() and any((folder / f"{part}.onnx").exists() for part in PARTS)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads manifest.json and checks that it has what the other functions here use.

    Raises:
        InputError: If it is missing or damaged, or of another schema.
    """
    if not is_export(folder):
        raise InputError(f"{folder} is no export", "give a folder that 'vaezoo export --onnx' wrote")
    manifest = read_json(folder / MANIFEST)
    if manifest.get("schema") != SCHEMA:
        raise InputError(
            f"{folder} has schema {manifest.get('schema')}; this version reads {SCHEMA}",
            "export again, or update vaezoo",
        )
    try:
        _check_fields(manifest)
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(f"{folder / MANIFEST} is damaged: {e!r}", "export again") from e
    return manifest


def read_graph(folder: Path, manifest: Mapping[str, Any], part: Part) -> bytes:
    """Reads a graph's file.

    Raises:
        InputError: If it is missing, larger than a graph can be, or not the file that was exported.
    """
    return read_file(folder, manifest, f"{part}.onnx")


def read_file(folder: Path, manifest: Mapping[str, Any], name: str) -> bytes:
    """Reads a file of an export and compares its size and SHA-256 with the manifest's; see `read_graph`."""
    path, described = folder / name, manifest["files"].get(name)
    if not isinstance(described, dict):
        raise InputError(f"{folder / MANIFEST} is damaged: it does not list {name}", "export again")
    try:
        with path.open("rb") as f:
            size = os.fstat(f.fileno()).st_size
            if size != described.get("bytes") or size > LARGEST:
                raise InputError(f"{path} has {size} bytes, not {described.get('bytes')}", "export again")
            data = f.read(size)
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}", "export again") from e
    if hashlib.sha256(data).hexdigest() != described.get("sha256"):
        raise InputError(f"{path} is not the file that was exported: its SHA-256 differs", "export again")
    return data


def check_pair(folder: Path, metadata: Mapping[Part, Mapping[str, str]]) -> None:
    """Raises InputError unless each graph names the other as its sibling, and both the same checkpoint."""
    for part, told in metadata.items():
        if told.get("vaezoo.part") != part or not told.get("vaezoo.graph_sha256"):
            raise InputError(f"{folder / part}.onnx is no {part} that vaezoo exported", "export it again")
    encoder, decoder = metadata["encoder"], metadata["decoder"]
    if (
        encoder.get("vaezoo.sibling_sha256") != decoder.get("vaezoo.graph_sha256")
        or decoder.get("vaezoo.sibling_sha256") != encoder.get("vaezoo.graph_sha256")
        or encoder.get("vaezoo.checkpoint_sha256") != decoder.get("vaezoo.checkpoint_sha256")
    ):
        raise InputError(
            f"{folder}: encoder.onnx and decoder.onnx do not belong together: they are of different checkpoints",
            "export both again, in one command",
        )


def _check_fields(manifest: Mapping[str, Any]) -> None:
    def shape(value: object) -> None:
        if not isinstance(value, list) or not all(isinstance(n, int) and 0 < n < 2**31 for n in value):
            raise ValueError(f"{value!r} is no shape")

    def tensor(value: Any) -> None:
        shape(value["shape"][1:])
        if not isinstance(value["name"], str) or value["dtype"] not in DTYPES:
            raise ValueError(f"{value!r} describes no tensor")

    shape(manifest["latent_shape"])
    shape(manifest["data"]["shape"])
    for part in PARTS:
        described = manifest["graphs"][part]
        tensor(described["input"])
        for output in described["outputs"]:
            tensor(output)
    if manifest["mode"] not in [o["name"] for o in manifest["graphs"]["encoder"]["outputs"]]:
        raise ValueError(f"mode {manifest['mode']!r} is no output of the encoder")
    manifest["prior"]
    for value, kind in (
        (manifest["model"], str),
        (manifest["data"]["name"], str),
        (manifest["format"]["uint8"], bool),
        (manifest["files"], dict),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{value!r} is no {kind.__name__}")


def _batch(name: str, array: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    array = np.asarray(array)
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape or not len(array):
        wanted = ", ".join(str(n) for n in ("N", *shape))
        raise VaezooError(f"{name} has shape {array.shape}", f"give an array of shape ({wanted})")
    return np.ascontiguousarray(array, dtype)
