"""An export folder's manifest.json and files: read, compared with their hashes and with what the graphs say themselves.

No torch and no onnx here: the runtime reads exports, too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from vaezoo.core.atomic import open_regular
from vaezoo.core.json_io import read_json
from vaezoo.errors import InputError

GraphName = Literal["encoder", "decoder"]
Array = NDArray[Any]

SCHEMA = 3
MANIFEST = "manifest.json"
GRAPH_NAMES: tuple[GraphName, ...] = ("encoder", "decoder")
MAX_GRAPH_BYTES = 2**31 - 1  # bytes of one protobuf message
DTYPES = ("float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")


def is_export(folder: str | os.PathLike[str]) -> bool:
    """Says whether a folder looks like an export. A checkpoint has a manifest, too, but no graphs."""
    folder = Path(folder)
    return (folder / MANIFEST).is_file() and any((folder / f"{part}.onnx").exists() for part in GRAPH_NAMES)


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


def read_graph(folder: Path, manifest: Mapping[str, Any], part: GraphName) -> bytes:
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
        with open_regular(path) as f:
            size = os.fstat(f.fileno()).st_size
            if size != described.get("bytes") or size > MAX_GRAPH_BYTES:
                raise InputError(f"{path} has {size} bytes, not {described.get('bytes')}", "export again")
            data = f.read(size)
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}", "export again") from e
    if hashlib.sha256(data).hexdigest() != described.get("sha256"):
        raise InputError(f"{path} is not the file that was exported: its SHA-256 differs", "export again")
    return data


def check_pair(folder: Path, metadata: Mapping[GraphName, Mapping[str, str]]) -> None:
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
    if manifest["graphs"]["decoder"]["input"]["shape"][1:] != manifest["latent_shape"]:
        raise ValueError(f"latent_shape {manifest['latent_shape']} is not that of the decoder's input")
    for part in GRAPH_NAMES:
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
        (manifest["options"], dict),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{value!r} is no {kind.__name__}")


def properties(described: Mapping[str, Any]) -> dict[str, str]:
    """Returns the metadata that both graphs carry, without their hashes, from what the manifest says."""
    data, form = described["data"], described["format"]
    texts = {
        "schema": str(SCHEMA),
        "model": described["model"],
        "options": json.dumps(described["options"]),
        "data": data["name"],
        "shape": json.dumps(data["shape"]),
        "range": "0..255" if form["uint8"] else "0..1",
        "layout": "NHWC" if form["uint8"] else "NCHW",
        "likelihood": data["likelihood"],
        "latent_shape": json.dumps(described["latent_shape"]),
        "prior": described["prior"] or "its own",
        "mode": described["mode"],
        "dtype": form["dtype"],
        "opset": str(form["opset"]),
        "checkpoint_step": str(described["checkpoint"]["step"]),
        "checkpoint_sha256": described["checkpoint"]["sha256"],
        "license": described["license"] or "not stated",
        "versions": json.dumps(described["versions"]),
    }
    kind = {1: "Gray8", 3: "Rgb8"}.get(data["shape"][0])
    if len(data["shape"]) == 3 and kind:  # ONNX's own keys for images
        texts["Image.BitmapPixelFormat"] = kind
        texts["Image.NominalPixelRange"] = "NominalRange_0_255" if form["uint8"] else "Normalized_0_1"
    return texts


def check_metadata(folder: Path, manifest: Mapping[str, Any], metadata: Mapping[GraphName, Mapping[str, str]]) -> None:
    """Raises InputError unless the graphs belong together and the manifest says of them what they say themselves."""
    check_pair(folder, metadata)
    try:
        expected = {key if "." in key else f"vaezoo.{key}": value for key, value in properties(manifest).items()}
    except (KeyError, TypeError) as e:
        raise InputError(f"{folder / MANIFEST} is damaged: {e!r}", "export again") from e
    for part in GRAPH_NAMES:
        for key, value in expected.items():
            if metadata[part].get(key) != value:
                raise InputError(
                    f"{folder / MANIFEST} says {key.removeprefix('vaezoo.')} {value}, "
                    f"{part}.onnx {metadata[part].get(key)}",
                    "export again",
                )
