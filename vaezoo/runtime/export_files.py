"""The files of an export: reading them, and checking them against the manifest and each other.

The runtime reads exports too, so this module needs neither torch nor onnx.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from vaezoo.core.atomic import open_regular
from vaezoo.core.json_io import read_json
from vaezoo.errors import InputError, VaezooError, safe_repr
from vaezoo.runtime.manifest import (
    EXPORT_AGAIN,
    MANIFEST,
    MAX_GRAPH_BYTES,
    SCHEMA,
    Description,
    GraphName,
    GraphSignature,
    Manifest,
    tokenizer_of,
)
from vaezoo.runtime.manifest_checks import check_fields


def is_export(folder: str | os.PathLike[str]) -> bool:
    """Tells whether a folder looks like an export. A checkpoint has a manifest too, but no graphs."""
    folder = Path(folder)
    return (folder / MANIFEST).is_file() and any(folder.glob("*.onnx"))


def folder_path(folder: object) -> Path:
    """Returns the path of an export. Raises VaezooError if it is not a path."""
    if not isinstance(folder, str | os.PathLike):
        raise VaezooError(f"{safe_repr(folder)} is not the path of an export", "give the path of its folder")
    return Path(folder)


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
        check_fields(manifest)
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


def read_graph(folder: Path, manifest: Manifest, name: GraphName) -> bytes:
    """Reads a graph's file.

    Raises:
        InputError: If it is missing, too large for a graph, or not the file that was exported.
    """
    return read_file(folder, manifest, f"{name}.onnx")


def read_file(folder: Path, manifest: Manifest, name: str) -> bytes:
    """Reads a file of an export and compares its size and SHA-256 with the manifest's; see `read_graph`."""
    entry = manifest["files"].get(name)
    if entry is None:
        raise InputError(f"{folder / MANIFEST} is damaged: it does not list {name}", EXPORT_AGAIN)
    data = read_any(folder / name, entry["bytes"])
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise InputError(f"{folder / name} is not the file that was exported: its SHA-256 differs", EXPORT_AGAIN)
    return data


def read_any(path: Path, expected: int | None = None) -> bytes:
    """Reads a file that is no larger than a graph.

    Args:
        path: The file.
        expected: Its size in bytes. None: any.

    Raises:
        InputError: If it is missing or of another size, or too large for a graph.
    """
    try:
        with open_regular(path) as f:
            size = os.fstat(f.fileno()).st_size
            if size > MAX_GRAPH_BYTES or (expected is not None and size != expected):
                wanted = f"at most {MAX_GRAPH_BYTES}" if expected is None else str(expected)
                raise InputError(f"{path} has {size} bytes, not {wanted}", EXPORT_AGAIN)
            return f.read(size)
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}", EXPORT_AGAIN) from e


def set_hash(hashes: Mapping[GraphName, str]) -> str:
    """Returns the SHA-256 that identifies graphs which belong together, given the hash of each."""
    return hashlib.sha256(json.dumps(dict(sorted(hashes.items()))).encode()).hexdigest()


def check_set(
    folder: Path, metadata: Mapping[GraphName, Mapping[str, str]], graphs: Mapping[GraphName, GraphSignature]
) -> None:
    """Raises InputError unless all graphs name the same set of graphs and the same checkpoint.

    The hash of the set is computed again if all graphs of the export are here.
    """
    for name, entries in metadata.items():
        if entries.get("vaezoo.graph") != name or not entries.get("vaezoo.graph_sha256"):
            raise InputError(f"{folder / name}.onnx is not a vaezoo {name}", EXPORT_AGAIN)
    sets = {entries.get("vaezoo.set_sha256") for entries in metadata.values()}
    if metadata.keys() == graphs.keys():
        sets.add(set_hash({name: entries["vaezoo.graph_sha256"] for name, entries in metadata.items()}))
    checkpoints = {entries.get("vaezoo.checkpoint_sha256") for entries in metadata.values()}
    if len(sets) > 1 or len(checkpoints) > 1:
        files = " and ".join(f"{name}.onnx" for name in metadata)
        raise InputError(f"{folder}: {files} come from different exports", EXPORT_AGAIN)


def common_metadata(description: Description) -> dict[str, str]:
    """Returns the metadata that all graphs carry, by name without the prefix `vaezoo.`.

    Names with a dot are ONNX's own keys and get no prefix.
    """
    data, config, step = description["data"], description["format"], description["checkpoint"]["step"]
    entries = {
        "schema": str(SCHEMA),
        "model": description["model"],
        "options": json.dumps(description["options"]),
        "data": data["name"],
        "shape": json.dumps(data["shape"]),
        "kind": data["kind"],
        "classes": json.dumps(data["classes"]),
        "range": "0..255" if config["uint8"] else "0..1" if data["kind"] == "unit" else data["kind"],
        "layout": "NHWC" if config["uint8"] else "NCHW",
        "likelihood": data["likelihood"],
        "latent_shape": json.dumps(description["latent_shape"]),
        "prior": description["prior"] or "custom",
        "mode": description["mode"],
        "dtype": config["dtype"],
        "opset": str(config["opset"]),
        "checkpoint_step": "not known" if step is None else str(step),
        "checkpoint_sha256": description["checkpoint"]["sha256"],
        "license": description["license"] or "not stated",
        "versions": json.dumps(description["versions"]),
    }
    if "latent_scaling" in description:
        entries["latent_scaling"] = json.dumps(description["latent_scaling"])
    if tokenizer := tokenizer_of(data):
        entries["tokenizer"], entries["tokenizer_sha256"] = tokenizer.name, tokenizer.sha256
    if data.get("offset"):
        # Values of the data become the graphs' x by (value - offset) / factor, for each column or channel.
        return entries | {"offset": json.dumps(data["offset"]), "factor": json.dumps(data["factor"])}
    pixel_format = {1: "Gray8", 3: "Rgb8"}.get(data["shape"][0])
    if len(data["shape"]) == 3 and pixel_format and data["kind"] == "unit":  # ONNX's own keys for images
        entries["Image.BitmapPixelFormat"] = pixel_format
        entries["Image.NominalPixelRange"] = "NominalRange_0_255" if config["uint8"] else "Normalized_0_1"
    return entries


def check_metadata(folder: Path, manifest: Manifest, metadata: Mapping[GraphName, Mapping[str, str]]) -> None:
    """Checks that the graphs belong together and that their metadata agree with the manifest.

    Raises:
        InputError: If they do not.
    """
    check_set(folder, metadata, manifest["graphs"])
    expected = {key if "." in key else f"vaezoo.{key}": value for key, value in common_metadata(manifest).items()}
    for name, entries in metadata.items():
        for key, value in expected.items():
            actual = entries.get(key)
            if actual != value:
                short = key.removeprefix("vaezoo.")
                message = f"{folder / MANIFEST} says {short} {safe_repr(value)}, {name}.onnx {safe_repr(actual)}"
                raise InputError(message, EXPORT_AGAIN)
