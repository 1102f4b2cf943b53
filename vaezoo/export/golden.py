"""Golden inputs and outputs in ONNX's own layout: what the model made of some inputs, so that nobody needs it again.

golden/encoder/test_data_set_0/input_0.pb, output_0.pb, output_1.pb     held-out examples
golden/encoder/test_data_set_1/...                                      uniform noise
golden/decoder/test_data_set_0/...                                      the codes of those examples
golden/decoder/test_data_set_1/...                                      latents three times as wide as the prior
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from vaezoo.errors import InputError
from vaezoo.export.tolerance import Case
from vaezoo.runtime.manifest import GraphName, read_file

SETS = 2  # a graph
EXAMPLES = 8  # a set; `verify` repeats them for larger batches


def golden_files(cases: Mapping[GraphName, list[Case]]) -> dict[str, bytes]:
    """Returns the files by path, from the first examples of each case."""
    files = {}
    for part, number, case in ((part, i, case) for part, listed in cases.items() for i, case in enumerate(listed)):
        tensors = [("", case.inputs), *case.outputs.items()]
        for file, (name, array) in zip(golden_names(part, number, len(case.outputs)), tensors, strict=True):
            files[file] = numpy_helper.from_array(np.ascontiguousarray(array[:EXAMPLES]), name).SerializeToString()
    return files


def golden_names(part: GraphName, number: int, outputs: int) -> list[str]:
    """Returns the paths of one case's files: the input, then the outputs."""
    folder = f"golden/{part}/test_data_set_{number}"
    return [f"{folder}/input_0.pb", *(f"{folder}/output_{i}.pb" for i in range(outputs))]


def read_cases(folder: Path, manifest: Mapping[str, Any], part: GraphName) -> list[Case]:
    """Reads the golden data of one graph.

    Raises:
        InputError: If a file is missing or damaged, or does not fit the graph's signature.
    """
    signature = manifest["graphs"][part]
    cases = []
    for number in range(SETS):
        names = golden_names(part, number, len(signature["outputs"]))
        files = [read_file(folder, manifest, name) for name in names]
        cases.append(read_case(part, f"golden set {number}", files, signature))
    return cases


def read_case(part: GraphName, name: str, files: list[bytes], signature: Mapping[str, Any]) -> Case:
    """Reads one case from its files' bytes; see `read_cases`."""
    arrays = []
    described = [signature["input"], *signature["outputs"]]
    for data, value in zip(files, described, strict=True):
        try:
            tensor = TensorProto.FromString(data)
            if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
                raise ValueError("kept in another file")
            array = numpy_helper.to_array(tensor)
        except (DecodeError, ValueError, TypeError, KeyError) as e:
            raise InputError(f"the golden data of {part}.onnx are damaged: {e}", "export it again") from e
        if array.shape[1:] != tuple(value["shape"][1:]) or array.dtype != value["dtype"] or not len(array):
            raise InputError(f"the golden data of {part}.onnx do not fit '{value['name']}'", "export it again")
        arrays.append(array)
    if len({len(array) for array in arrays}) != 1:
        raise InputError(f"the golden data of {part}.onnx differ in length", "export it again")
    names = [value["name"] for value in signature["outputs"]]
    return Case(name, arrays[0], dict(zip(names, arrays[1:], strict=True)))
