"""Checks of a graph's structure: self-contained, deterministic, a dynamic batch size, the declared signature."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from vaezoo.errors import InputError, ParityError, first_line, safe_repr
from vaezoo.runtime.manifest import (
    EXPORT_AGAIN,
    GraphName,
    GraphSignature,
    TensorSignature,
    example_shape,
)

RANDOM_OPS = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}


def parse(graph: GraphName, data: bytes) -> ModelProto:
    """Parses a graph's file.

    Raises:
        InputError: If it is not an ONNX model, or keeps weights in other files.
    """
    try:
        model: ModelProto = ModelProto.FromString(data)
    except DecodeError as e:
        raise InputError(f"{graph}.onnx is not an ONNX model", EXPORT_AGAIN) from e
    for tensor in tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")
            raise InputError(
                f"{graph}.onnx keeps the weights '{safe_repr(tensor.name)}' in another file ({safe_repr(location)})",
                EXPORT_AGAIN,
            )
    return model


def check_structure(graph: GraphName, model: ModelProto, signature: GraphSignature, opset: int | None) -> None:
    """Checks a parsed graph.

    Args:
        graph: Its name, for the messages.
        model: The parsed graph.
        signature: Name, dtype and shape of each input and output, as in the manifest.
        opset: The expected version of the operator set. None: any.

    Raises:
        ParityError: If the graph has another operator set, contains a random operator, or differs from the signature.
        InputError: If it is not valid ONNX.
    """
    actual_opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None)
    if opset is not None and actual_opset != opset:
        raise ParityError(
            f"{graph}: opset {opset} was requested, the graph has {actual_opset}", f"use --opset {actual_opset}"
        )
    for node in nodes(model):
        # Dropout is random only in training mode, which is its third input.
        if node.op_type in RANDOM_OPS or (node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]):
            raise ParityError(
                f"{graph}: node '{safe_repr(node.name)}' ({safe_repr(node.op_type)}) draws at random",
                "make encode and decode deterministic: noise belongs to the posterior's rsample",
            )
    for values, declared in (
        (model.graph.input, signature["inputs"]),
        (model.graph.output, signature["outputs"]),
    ):
        if [value.name for value in values] != [tensor["name"] for tensor in declared]:
            # protobuf returns a name that is not UTF-8 as bytes, so join converts each name.
            names = safe_repr(", ".join(str(value.name) for value in values))
            raise ParityError(f"{graph}: the graph has {names}, its manifest has other names", EXPORT_AGAIN)
        for value, tensor in zip(values, declared, strict=True):
            _check_tensor(graph, value, tensor)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as e:  # the checker and the shape inference raise errors of their own
        raise InputError(f"{graph}.onnx is not valid ONNX: {safe_repr(first_line(e))}", EXPORT_AGAIN) from e


def nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Yields all nodes, including those of functions and of branches."""
    for function in model.functions:
        yield from function.node
    for graph in _graphs(model):
        yield from graph.node


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yields all constant tensors, including those in attributes and the parts of sparse tensors."""
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
    """Yields the main graph and all subgraphs, including those in functions."""
    yield model.graph
    for node in [*model.graph.node, *(node for function in model.functions for node in function.node)]:
        yield from _subgraphs(node)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yields the subgraphs of a node's attributes, such as the branches of an If, at any depth."""
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            yield graph
            for inner in graph.node:
                yield from _subgraphs(inner)


def _check_tensor(graph: GraphName, value: onnx.ValueInfoProto, declared: TensorSignature) -> None:
    """Compares shape and dtype of an input or output with the signature."""
    tensor = value.type.tensor_type
    shape: list[object] = [d.dim_param or d.dim_value for d in tensor.shape.dim]
    sizes = safe_repr(", ".join(map(str, shape)))
    declared_free = {size for size in declared["shape"] if isinstance(size, str)}
    if not shape or shape[0] != "batch" or any(isinstance(n, str) and n not in declared_free for n in shape[1:]):
        raise ParityError(
            f"{graph}: '{value.name}' has shape [{sizes}], not {declared['shape']}",
            "the model fixes its batch size somewhere: use x.shape[0] or -1",
        )
    if shape[1:] != list(example_shape(declared)):
        raise ParityError(f"{graph}: '{value.name}' has shape [{sizes}], not {declared['shape']}", EXPORT_AGAIN)
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except KeyError:
        dtype = np.dtype(object)
    if dtype != np.dtype(declared["dtype"]):
        raise ParityError(f"{graph}: '{value.name}' is {dtype}, not {declared['dtype']}", EXPORT_AGAIN)
