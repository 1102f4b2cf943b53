"""What a graph must be, whatever it computes: self-contained, deterministic, a free batch, the declared signature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from vaezoo.errors import InputError, ParityError, first_line, safe_repr
from vaezoo.runtime.manifest import GraphName

RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}


def parse(part: GraphName, data: bytes) -> ModelProto:
    """Parses a graph's file.

    Raises:
        InputError: If it is no ONNX model, or keeps weights in other files.
    """
    try:
        model: ModelProto = ModelProto.FromString(data)
    except DecodeError as e:
        raise InputError(f"{part}.onnx is no ONNX model", "export it again") from e
    for tensor in tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")
            raise InputError(
                f"{part}.onnx keeps the weights '{safe_repr(tensor.name)}' in another file ({safe_repr(place)})",
                "export it again",
            )
    return model


def check_structure(part: GraphName, model: ModelProto, signature: Mapping[str, Any], opset: int) -> None:
    """Checks a parsed graph.

    Args:
        part: Which graph it is.
        model: The graph.
        signature: `input` and `outputs`: name, dtype and shape of each, as in the manifest.
        opset: The version of the operator set that it should have.

    Raises:
        ParityError: If the operator set is another, a node draws at random, or a name, dtype or shape is not the
            declared one.
        InputError: If it is no valid ONNX.
    """
    produced = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None)
    if produced != opset:
        raise ParityError(f"{part}: asked for opset {opset}, the graph has {produced}", f"use --opset {produced}")
    for node in nodes(model):
        # In training mode, its third input, a Dropout draws.
        if node.op_type in RANDOM or (node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]):
            raise ParityError(
                f"{part}: node '{safe_repr(node.name)}' ({safe_repr(node.op_type)}) draws at random",
                "encode and decode must be deterministic: noise belongs to the posterior's rsample",
            )
    for declared, expected in (
        (model.graph.input, [signature["input"]]),
        (model.graph.output, signature["outputs"]),
    ):
        if [value.name for value in declared] != [value["name"] for value in expected]:
            # A name that is no UTF-8 comes as bytes.
            names = safe_repr(", ".join(str(value.name) for value in declared))
            raise ParityError(f"{part}: the graph has {names} where its manifest has others", "export it again")
        for value, described in zip(declared, expected, strict=True):
            _check_value(part, value, described)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as e:  # checker and shape inference have errors of their own
        raise InputError(f"{part}.onnx is no valid ONNX: {safe_repr(first_line(e))}", "export it again") from e


def nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Yields all nodes, those of functions and of branches included."""
    for function in model.functions:
        yield from function.node
    for graph in _graphs(model):
        yield from graph.node


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yields all constant tensors, those in attributes and of sparse tensors included."""
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes(model):
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _graphs(model: ModelProto) -> Iterator[GraphProto]:
    yield model.graph
    for node in [*model.graph.node, *(node for function in model.functions for node in function.node)]:
        yield from _branches(node)


def _branches(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            yield graph
            for inner in graph.node:
                yield from _branches(inner)


def _check_value(part: GraphName, value: onnx.ValueInfoProto, described: Mapping[str, Any]) -> None:
    tensor = value.type.tensor_type
    shape: list[object] = [d.dim_param or d.dim_value for d in tensor.shape.dim]
    sizes = safe_repr(", ".join(map(str, shape)))
    if not shape or shape[0] != "batch" or any(d.dim_param for d in tensor.shape.dim[1:]):
        raise ParityError(
            f"{part}: '{value.name}' has shape [{sizes}], its first dimension alone should be free",
            "the model fixes its batch size somewhere: use x.shape[0] or -1",
        )
    if shape[1:] != list(described["shape"][1:]):
        raise ParityError(f"{part}: '{value.name}' has shape [{sizes}], not {described['shape']}", "export it again")
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except KeyError:
        dtype = np.dtype(object)
    if dtype != np.dtype(described["dtype"]):
        raise ParityError(f"{part}: '{value.name}' is {dtype}, not {described['dtype']}", "export it again")
