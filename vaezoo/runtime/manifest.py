"""manifest.json and the files of an export: their types, reading them, and checking them against each other.

The runtime reads exports too, so this module needs neither torch nor onnx.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from numpy.typing import NDArray

from vaezoo.core.atomic import open_regular
from vaezoo.core.json_io import read_json
from vaezoo.errors import InputError, safe_repr

GraphName = Literal["encoder", "decoder"]
Array = NDArray[Any]

SCHEMA = 3
MANIFEST = "manifest.json"
GRAPH_NAMES: tuple[GraphName, ...] = ("encoder", "decoder")
MAX_GRAPH_BYTES = 2**31 - 1  # the limit of one protobuf message
DTYPES = ("float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
EXPORT_AGAIN = "export the run again"


class TensorSignature(TypedDict):
    """An input or output of a graph. `shape` is "batch", then the sizes of one example."""

    name: str
    dtype: str
    shape: list[str | int]


class GraphSignature(TypedDict):
    """The input and the outputs of a graph."""

    input: TensorSignature
    outputs: list[TensorSignature]


class DataEntry(TypedDict):
    """The data that the model was made for."""

    name: str
    shape: list[int]
    likelihood: str


class FormatEntry(TypedDict):
    """How the graphs are written; see `vaezoo.export.config.ExportConfig`."""

    opset: int
    dtype: str
    uint8: bool


class CheckpointEntry(TypedDict):
    """The checkpoint that the weights come from."""

    step: int
    sha256: str


class FileEntry(TypedDict):
    """Size and hash of a file."""

    bytes: int
    sha256: str


class ParityRow(TypedDict):
    """One row of the comparison with the model; see `vaezoo.export.tolerance.Parity`."""

    graph: str
    inputs: str
    output: str
    max_abs: float
    limit: float
    batch: int


class ParityEntry(TypedDict):
    """The comparison with the model: what ran the graphs, at which batch sizes, and the rows."""

    runtime: str
    batches: list[int]
    rows: list[ParityRow]


class Description(TypedDict):
    """What the graphs are and where they come from: the manifest without files and parity.

    `prior` is "standard-normal", or None for any other prior. `mode` names the encoder's output that is the mode of
    q(z|x). `license` is that of the model's code. `weights_license` is None if the weights are the user's own.
    """

    schema: int
    model: str
    options: dict[str, object]
    data: DataEntry
    latent_shape: list[int]
    prior: str | None
    mode: str
    format: FormatEntry
    checkpoint: CheckpointEntry
    graphs: dict[GraphName, GraphSignature]
    binarize: str
    license: str | None
    weights_license: str | None
    versions: dict[str, str]


class Manifest(Description):
    """What manifest.json holds."""

    files: dict[str, FileEntry]
    parity: ParityEntry


def is_export(folder: str | os.PathLike[str]) -> bool:
    """Tells whether a folder looks like an export. A checkpoint has a manifest too, but no graphs."""
    folder = Path(folder)
    return (folder / MANIFEST).is_file() and any((folder / f"{name}.onnx").exists() for name in GRAPH_NAMES)


def read_manifest(folder: Path) -> Manifest:
    """Reads manifest.json and checks its schema and its fields.

    Raises:
        InputError: If it is missing, damaged or of another schema.
    """
    if not is_export(folder):
        raise InputError(f"{folder} is not an export", "give a folder that 'vaezoo export --onnx' wrote")
    manifest = read_json(folder / MANIFEST)
    _check_schema(folder, manifest.get("schema"))
    try:
        _check_fields(manifest)
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(f"{folder / MANIFEST} is damaged: {e!r}", EXPORT_AGAIN) from e
    return cast("Manifest", manifest)


def _check_schema(folder: Path, schema: object) -> None:
    if type(schema) is not int:
        raise InputError(f"{folder / MANIFEST} is damaged: schema {safe_repr(schema)}", EXPORT_AGAIN)
    if schema != SCHEMA:
        writer, hint = ("an earlier", EXPORT_AGAIN) if schema < SCHEMA else ("a later", "update vaezoo")
        versions = f"(schema {safe_repr(schema)}, this version reads {SCHEMA})"
        raise InputError(f"{folder} was written by {writer} version of vaezoo {versions}", hint)


def _check_fields(manifest: Mapping[str, Any]) -> None:
    """Raises KeyError, TypeError or ValueError unless a parsed manifest has the fields of `Manifest`."""
    for value, kind in (
        (manifest["model"], str),
        (manifest["options"], dict),
        (manifest["data"]["name"], str),
        (manifest["data"]["likelihood"], str),
        (manifest["prior"], str | None),
        (manifest["format"]["opset"], int),
        (manifest["format"]["dtype"], str),
        (manifest["format"]["uint8"], bool),
        (manifest["checkpoint"]["step"], int),
        (manifest["checkpoint"]["sha256"], str),
        (manifest["binarize"], str),
        (manifest["license"], str | None),
        (manifest["weights_license"], str | None),
        (manifest["versions"], dict),
        (manifest["files"], dict),
        (manifest["parity"], dict),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{safe_repr(value)} is not of type {getattr(kind, '__name__', kind)}")
    for name, entry in manifest["files"].items():
        if not isinstance(entry["bytes"], int) or not isinstance(entry["sha256"], str):
            raise TypeError(f"the entry of {safe_repr(name)} is not a size and a hash")
    _check_shape(manifest["latent_shape"])
    _check_shape(manifest["data"]["shape"])
    if not manifest["data"]["shape"]:
        raise ValueError("the data have no dimensions")
    for name in GRAPH_NAMES:
        signature = manifest["graphs"][name]
        for tensor in (signature["input"], *signature["outputs"]):
            _check_shape(tensor["shape"][1:])
            if not isinstance(tensor["name"], str) or tensor["dtype"] not in DTYPES:
                raise ValueError(f"{safe_repr(tensor)} does not describe a tensor")
    if manifest["graphs"]["decoder"]["input"]["shape"][1:] != manifest["latent_shape"]:
        raise ValueError(f"the decoder's input does not have latent_shape {manifest['latent_shape']}")
    if manifest["mode"] not in [output["name"] for output in manifest["graphs"]["encoder"]["outputs"]]:
        raise ValueError(f"mode {safe_repr(manifest['mode'])} is not an output of the encoder")


def _check_shape(value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(n, int) and 0 < n < 2**31 for n in value):
        raise ValueError(f"{safe_repr(value)} is not a shape")


def example_shape(tensor: TensorSignature) -> tuple[int, ...]:
    """Returns the shape of one example of a graph's input or output."""
    return tuple(int(n) for n in tensor["shape"][1:])


def read_graph(folder: Path, manifest: Manifest, name: GraphName) -> bytes:
    """Reads a graph's file.

    Raises:
        InputError: If it is missing, too large for a graph, or not the file that was exported.
    """
    return read_file(folder, manifest, f"{name}.onnx")


def read_file(folder: Path, manifest: Manifest, name: str) -> bytes:
    """Reads a file of an export and compares its size and SHA-256 with the manifest's; see `read_graph`."""
    path, entry = folder / name, manifest["files"].get(name)
    if entry is None:
        raise InputError(f"{folder / MANIFEST} is damaged: it does not list {name}", EXPORT_AGAIN)
    try:
        with open_regular(path) as f:
            size = os.fstat(f.fileno()).st_size
            if size != entry["bytes"] or size > MAX_GRAPH_BYTES:
                raise InputError(f"{path} has {size} bytes, not {entry['bytes']}", EXPORT_AGAIN)
            data = f.read(size)
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}", EXPORT_AGAIN) from e
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise InputError(f"{path} is not the file that was exported: its SHA-256 differs", EXPORT_AGAIN)
    return data


def check_pair(folder: Path, metadata: Mapping[GraphName, Mapping[str, str]]) -> None:
    """Raises InputError unless each graph names the other as its sibling and both name the same checkpoint."""
    for name, entries in metadata.items():
        if entries.get("vaezoo.graph") != name or not entries.get("vaezoo.graph_sha256"):
            raise InputError(f"{folder / name}.onnx is not a vaezoo {name}", EXPORT_AGAIN)
    encoder, decoder = metadata["encoder"], metadata["decoder"]
    if (
        encoder.get("vaezoo.sibling_sha256") != decoder.get("vaezoo.graph_sha256")
        or decoder.get("vaezoo.sibling_sha256") != encoder.get("vaezoo.graph_sha256")
        or encoder.get("vaezoo.checkpoint_sha256") != decoder.get("vaezoo.checkpoint_sha256")
    ):
        raise InputError(f"{folder}: encoder.onnx and decoder.onnx come from different exports", EXPORT_AGAIN)


def common_metadata(description: Description) -> dict[str, str]:
    """Returns the metadata that both graphs carry, by name without the prefix `vaezoo.`.

    Names with a dot are ONNX's own keys and get no prefix.
    """
    data, config = description["data"], description["format"]
    entries = {
        "schema": str(SCHEMA),
        "model": description["model"],
        "options": json.dumps(description["options"]),
        "data": data["name"],
        "shape": json.dumps(data["shape"]),
        "range": "0..255" if config["uint8"] else "0..1",
        "layout": "NHWC" if config["uint8"] else "NCHW",
        "likelihood": data["likelihood"],
        "latent_shape": json.dumps(description["latent_shape"]),
        "prior": description["prior"] or "custom",
        "mode": description["mode"],
        "dtype": config["dtype"],
        "opset": str(config["opset"]),
        "checkpoint_step": str(description["checkpoint"]["step"]),
        "checkpoint_sha256": description["checkpoint"]["sha256"],
        "license": description["license"] or "not stated",
        "versions": json.dumps(description["versions"]),
    }
    pixel_format = {1: "Gray8", 3: "Rgb8"}.get(data["shape"][0])
    if len(data["shape"]) == 3 and pixel_format:  # ONNX's own keys for images
        entries["Image.BitmapPixelFormat"] = pixel_format
        entries["Image.NominalPixelRange"] = "NominalRange_0_255" if config["uint8"] else "Normalized_0_1"
    return entries


def check_metadata(folder: Path, manifest: Manifest, metadata: Mapping[GraphName, Mapping[str, str]]) -> None:
    """Checks that the graphs belong together and that their metadata agree with the manifest.

    Raises:
        InputError: If they do not.
    """
    check_pair(folder, metadata)
    expected = {key if "." in key else f"vaezoo.{key}": value for key, value in common_metadata(manifest).items()}
    for name in GRAPH_NAMES:
        for key, value in expected.items():
            actual = metadata[name].get(key)
            if actual != value:
                short = key.removeprefix("vaezoo.")
                message = f"{folder / MANIFEST} says {short} {safe_repr(value)}, {name}.onnx {safe_repr(actual)}"
                raise InputError(message, EXPORT_AGAIN)
