"""The graphs of an opened export, and the arrays that they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaezoo.errors import InputError, VaezooError
from vaezoo.runtime.inputs import as_array, check_batch, check_labels
from vaezoo.runtime.manifest import Array, GraphName, Manifest, TensorSignature
from vaezoo.runtime.ort_session import Provider, first_line

if TYPE_CHECKING:
    import onnxruntime as ort

CHUNK_SIZE = 256  # examples in one run of a graph, so that memory stays bounded for any number of examples


@dataclass(frozen=True, slots=True)
class Source:
    """Where an opened export came from, and how it was opened; see `load`."""

    folder: Path
    provider: Provider
    threads: int | None


class Graphs:
    """The graphs of an export: what they take, and their sessions.

    Args:
        manifest: The content of manifest.json.
        sessions: Those of the graphs whose files are there.
        source: Where the export came from.
    """

    def __init__(self, manifest: Manifest, sessions: Mapping[GraphName, ort.InferenceSession], source: Source) -> None:
        self.manifest = manifest
        self.sessions = sessions
        self.source = source

    def takes_labels(self, *graphs: GraphName) -> bool:
        """Returns whether one of some graphs takes labels. By default these are all graphs of the export."""
        known = self.manifest["graphs"]
        signatures = [known[graph] for graph in graphs or known if graph in known]
        return any(tensor["name"] == "y" for signature in signatures for tensor in signature["inputs"])

    def require(self, graph: GraphName) -> None:
        """Raises VaezooError unless a graph is there."""
        if graph in self.sessions:
            return
        here = f"it has {', '.join(self.sessions)}"
        if graph in self.manifest["graphs"]:
            file = self.source.folder / f"{graph}.onnx"
            raise InputError(f"{file} is missing, and this needs it", "copy the file, or export the run again")
        raise VaezooError(f"{self.source.folder} has no graph '{graph}': {here}", "export the run without --parts")

    def signature(self, graph: GraphName, name: str) -> TensorSignature:
        """Returns the signature of an input."""
        return next(tensor for tensor in self.manifest["graphs"][graph]["inputs"] if tensor["name"] == name)

    def inputs(self, graph: GraphName, given: Mapping[str, Array | None]) -> dict[str, Array]:
        """Returns the inputs that a graph takes, checked. What it does not take is left out."""
        self.require(graph)
        inputs = {}
        for tensor in self.manifest["graphs"][graph]["inputs"]:
            name, array = tensor["name"], given.get(tensor["name"])
            if array is None:
                raise VaezooError(f"the {graph} needs '{name}' as well", f"call it with {name}=...")
            array = as_array(name, array)
            if name == "y" and array.dtype.kind not in "iu":
                raise VaezooError(f"y holds {array.dtype}, not integers", "give the number of each label")
            may_miss = name == "x" and self.manifest["data"]["kind"] == "table"
            inputs[name] = check_batch(array, tensor, may_miss=may_miss)
        if "y" in inputs and len(inputs["y"]):
            check_labels(inputs["y"], self.manifest["data"])
        sizes = {name: len(array) for name, array in inputs.items()}
        if len(set(sizes.values())) > 1:
            text = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise VaezooError(f"the inputs have different numbers of rows: {text}", "give one row for each example")
        return inputs

    def run(self, name: GraphName, inputs: Mapping[str, Array]) -> list[Array]:
        """Runs a graph in chunks of CHUNK_SIZE examples and returns its outputs."""
        session, size = self.sessions[name], len(next(iter(inputs.values())))
        if size == 0:  # one row tells the shapes of the outputs
            row = {key: np.zeros((1, *array.shape[1:]), array.dtype) for key, array in inputs.items()}
            return [output[:0] for output in self.run(name, row)]
        try:
            chunks = [
                session.run(None, {key: array[i : i + CHUNK_SIZE] for key, array in inputs.items()})
                for i in range(0, size, CHUNK_SIZE)
            ]
        except Exception as e:  # ONNX Runtime's errors have no common base class
            raise InputError(f"ONNX Runtime cannot run {name}.onnx: {first_line(e)}", "see 'vaezoo verify'") from e
        return [np.concatenate(outputs) for outputs in zip(*chunks, strict=True)]
