"""What each graph says of itself, in ONNX's metadata_props, read back with `session.get_modelmeta()`.

A graph names its sibling by hash, and is named by it. So that both hashes can stand inside, they are taken of the
files' first `vaezoo.graph_bytes` bytes: the metadata follow behind, as protobuf allows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from onnx import ModelProto, StringStringEntryProto

from vaezoo.errors import InputError
from vaezoo.runtime.manifest import GRAPH_NAMES, GraphName

SIBLING: Mapping[GraphName, GraphName] = {"encoder": "decoder", "decoder": "encoder"}


def add_metadata(graphs: Mapping[GraphName, bytes], common: Mapping[str, str]) -> dict[GraphName, bytes]:
    """Returns the graphs' files: the graphs with their metadata behind.

    Args:
        graphs: Serialized models without metadata.
        common: What both say, by name without the prefix `vaezoo.`.
    """
    hashes = {part: hashlib.sha256(data).hexdigest() for part, data in graphs.items()}
    files: dict[GraphName, bytes] = {}
    for part, data in graphs.items():
        own = {
            "part": part,
            "graph_bytes": str(len(data)),
            "graph_sha256": hashes[part],
            "sibling_sha256": hashes[SIBLING[part]],
        }
        entries = {name if "." in name else f"vaezoo.{name}": value for name, value in {**common, **own}.items()}
        tail = ModelProto(
            metadata_props=[StringStringEntryProto(key=key, value=entries[key]) for key in sorted(entries)]
        )
        files[part] = data + tail.SerializeToString()
    return files


def read_metadata(model: ModelProto) -> dict[str, str]:
    """Returns a model's metadata_props."""
    return {entry.key: entry.value for entry in model.metadata_props}


def check_hashes(files: Mapping[GraphName, bytes], metadata: Mapping[GraphName, Mapping[str, str]]) -> None:
    """Raises InputError unless each graph has the hash that it gives itself."""
    for part in GRAPH_NAMES:
        told = metadata[part].get("vaezoo.graph_bytes", "")
        size = int(told) if told.isascii() and told.isdigit() and len(told) < 12 else 0
        if hashlib.sha256(files[part][:size]).hexdigest() != metadata[part].get("vaezoo.graph_sha256"):
            raise InputError(f"{part}.onnx was changed after its export", "export it again")
