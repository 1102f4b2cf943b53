"""Golden inputs and outputs in ONNX's test data layout. They let others check the graphs without the model.

golden/encoder/test_data_set_0/input_0.pb, output_0.pb, output_1.pb     held-out examples
golden/encoder/test_data_set_1/...                                      uniform noise
golden/decoder/test_data_set_0/...                                      latents of those examples
golden/decoder/test_data_set_1/...                                      latents with three times the prior's sigma
golden/.../test_data_set_2/...                                          other sizes, for a model with free sizes
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from vaezoo.errors import InputError
from vaezoo.export.cases import Case
from vaezoo.runtime.export_files import read_file
from vaezoo.runtime.manifest import (
    EXPORT_AGAIN,
    GraphName,
    GraphSignature,
    Manifest,
    example_shape,
    has_shape,
)

EXAMPLES_PER_SET = 8  # `verify` repeats them for larger batches


def golden_files(cases: Mapping[GraphName, list[Case]]) -> dict[str, bytes]:
    """Returns the golden files by path. They hold the first examples of each case."""
    files = {}
    for graph, graph_cases in cases.items():
        for index, case in enumerate(graph_cases):
            tensors = [*case.inputs.items(), *case.outputs.items()]
            paths = golden_paths(graph, index, len(case.inputs), len(case.outputs))
            for path, (name, array) in zip(paths, tensors, strict=True):
                first = np.ascontiguousarray(array[:EXAMPLES_PER_SET])
                files[path] = numpy_helper.from_array(first, name).SerializeToString()
    return files


def golden_paths(graph: GraphName, index: int, inputs: int, outputs: int) -> list[str]:
    """Returns the paths of one case's files: the inputs, then the outputs."""
    folder = f"golden/{graph}/test_data_set_{index}"
    names = [*(f"input_{i}" for i in range(inputs)), *(f"output_{i}" for i in range(outputs))]
    return [f"{folder}/{name}.pb" for name in names]


def count_sets(manifest: Manifest, graph: GraphName) -> int:
    """Returns the number of golden sets of a graph, at least 1."""
    first_files = (f"golden/{graph}/test_data_set_{i}/input_0.pb" for i in range(len(manifest["files"])))
    return max(1, sum(1 for _ in takewhile(manifest["files"].__contains__, first_files)))


def read_cases(folder: Path, manifest: Manifest, graph: GraphName) -> list[Case]:
    """Reads the golden data of one graph.

    Raises:
        InputError: If a file is missing or damaged, or does not fit the graph's signature.
    """
    signature = manifest["graphs"][graph]
    cases = []
    for index in range(count_sets(manifest, graph)):
        paths = golden_paths(graph, index, len(signature["inputs"]), len(signature["outputs"]))
        files = [read_file(folder, manifest, path) for path in paths]
        cases.append(read_case(graph, f"golden set {index}", files, signature))
    return cases


def read_case(graph: GraphName, name: str, files: list[bytes], signature: GraphSignature) -> Case:
    """Reads one case from the bytes of its files; see `read_cases`."""
    arrays = {}
    for data, tensor in zip(files, [*signature["inputs"], *signature["outputs"]], strict=True):
        try:
            proto = TensorProto.FromString(data)
            if proto.data_location == TensorProto.EXTERNAL or proto.external_data:
                raise ValueError("the values are in another file")
            array = numpy_helper.to_array(proto)
        except (DecodeError, ValueError, TypeError, KeyError) as e:
            raise InputError(f"the golden data of {graph}.onnx are damaged: {e}", EXPORT_AGAIN) from e
        fits = has_shape(array.shape[1:], example_shape(tensor)) and array.dtype == tensor["dtype"]
        if not fits or array.ndim < 1 or not array.size:
            raise InputError(f"the golden data of {graph}.onnx do not fit '{tensor['name']}'", EXPORT_AGAIN)
        arrays[tensor["name"]] = array
    if len({len(array) for array in arrays.values()}) != 1:
        raise InputError(f"the golden data of {graph}.onnx differ in length", EXPORT_AGAIN)
    inputs, outputs = ([t["name"] for t in signature[key]] for key in ("inputs", "outputs"))
    return Case(name, {n: arrays[n] for n in inputs}, {n: arrays[n] for n in outputs})
