"""The metadata_props of each graph. ONNX Runtime reads them with `session.get_modelmeta()`.

Each graph names all graphs of its export by one SHA-256 of their hashes. A file cannot contain its own hash, so the
hashes are of the first `vaezoo.graph_bytes` bytes of the files. The metadata are appended after those bytes, which
protobuf allows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from onnx import ModelProto, StringStringEntryProto

from vaezoo.errors import InputError
from vaezoo.runtime.export_files import set_hash
from vaezoo.runtime.manifest import EXPORT_AGAIN, GraphName

MAX_DIGITS = 11  # of a size in bytes


def add_metadata(graphs: Mapping[GraphName, bytes], common: Mapping[str, str]) -> dict[GraphName, bytes]:
    """Returns the files of the graphs, with metadata appended.

    Args:
        graphs: Serialized models without metadata.
        common: Metadata of all graphs, by name without the prefix `vaezoo.`.
    """
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in graphs.items()}
    files: dict[GraphName, bytes] = {}
    for name, data in graphs.items():
        own = {
            "graph": name,
            "graph_bytes": str(len(data)),
            "graph_sha256": hashes[name],
            "set_sha256": set_hash(hashes),
        }
        entries = {key if "." in key else f"vaezoo.{key}": value for key, value in {**common, **own}.items()}
        tail = ModelProto(
            metadata_props=[StringStringEntryProto(key=key, value=entries[key]) for key in sorted(entries)]
        )
        files[name] = data + tail.SerializeToString()
    return files


def read_metadata(model: ModelProto) -> dict[str, str]:
    """Returns a model's metadata_props."""
    return {entry.key: entry.value for entry in model.metadata_props}


def check_hashes(files: Mapping[GraphName, bytes], metadata: Mapping[GraphName, Mapping[str, str]]) -> None:
    """Raises InputError unless each graph has the SHA-256 that its own metadata state."""
    for name in files:
        digits = metadata[name].get("vaezoo.graph_bytes", "")
        size = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS else 0
        if hashlib.sha256(files[name][:size]).hexdigest() != metadata[name].get("vaezoo.graph_sha256"):
            raise InputError(f"{name}.onnx was changed after its export", EXPORT_AGAIN)
