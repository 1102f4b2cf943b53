"""Float16 graphs that do not overflow: layers whose values come near the largest float16 number stay float32.

The float32 graph runs on calibration inputs, and the largest absolute value of each tensor in it is measured. Nodes
that make or take a tensor above `LARGEST` stay float32, with casts around them. The autoencoder of Stable Diffusion is
the known case: its activations exceed 65,504 in float16, and the image is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx_ir.passes.common import RemoveUnusedNodesPass, TopologicalSortPass

from vaezoo.errors import UnsupportedDataError
from vaezoo.export.cases import rows_at_once
from vaezoo.runtime.manifest import Array, Float32Node
from vaezoo.runtime.ort_session import open_session

# A quarter of the largest float16 number. Other inputs than those of the calibration may give larger values.
LARGEST = 65504.0 / 4
RECURRENT = {"GRU", "LSTM"}  # which ONNX Runtime has in float32 alone on the CPU
ROWS = 4  # of a calibration input at a time, so that memory stays bounded
SUFFIX = "__largest"  # of the names of what is added to measure values


def to_float16(proto: ModelProto, feeds: Sequence[Mapping[str, Array]] = ()) -> tuple[ModelProto, list[Float32Node]]:
    """Returns the graph with float16 weights and arithmetic. Inputs and outputs keep their types.

    Args:
        proto: The graph in float32.
        feeds: Calibration inputs by name, `(N, ...)` each.

    Returns:
        The graph, and the nodes that stay float32 because of their values.

    Raises:
        UnsupportedDataError: If the graph has a recurrent layer.
    """
    if recurrent := RECURRENT & {node.op_type for node in proto.graph.node}:
        what = f"a float16 graph cannot hold the operator {recurrent.pop()}, which ONNX Runtime has in float32 alone"
        raise UnsupportedDataError(what, "export in fp32")
    from onnxruntime.transformers.float16 import convert_float_to_float16

    # The converter takes an initializer for float16 if it has a value_info, even one that must stay float32.
    initializers = {tensor.name for tensor in proto.graph.initializer}
    values = [value for value in proto.graph.value_info if value.name not in initializers]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(values)
    kept = wide_nodes(proto, feeds)
    names = [entry["node"] for entry in kept]
    mixed = convert_float_to_float16(proto, keep_io_types=True, node_block_list=names or None)
    _drop_repeated_casts(mixed)
    model = ir.from_proto(mixed)
    TopologicalSortPass()(model)  # the converter appends its casts at the end
    if kept:
        _join_casts(model)
    half: ModelProto = ir.to_proto(model)
    return half, kept


def wide_nodes(proto: ModelProto, feeds: Sequence[Mapping[str, Array]]) -> list[Float32Node]:
    """Returns the nodes that make or take a value above `LARGEST`, in the order of the graph. Gives all nodes names."""
    _name_nodes(proto.graph.node)
    largest = largest_values(proto, feeds)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    constants |= {n.output[0]: a.t for n in proto.graph.node if n.op_type == "Constant" for a in n.attribute}
    for name, tensor in constants.items():
        if tensor.data_type == TensorProto.FLOAT:
            values = np.abs(numpy_helper.to_array(tensor))
            largest[name] = float(values[np.isfinite(values)].max(initial=0))
    kept: list[Float32Node] = []
    for node in proto.graph.node:
        value = max((largest.get(name, 0.0) for name in (*node.input, *node.output)), default=0.0)
        if value > LARGEST:
            kept.append({"node": node.name, "operator": node.op_type, "largest": float(f"{value:.4g}")})
    return kept


def _name_nodes(nodes: Iterable[NodeProto]) -> None:
    """Gives nodes without a name, or with that of another node, a name of their own."""
    taken: set[str] = set()
    for number, node in enumerate(nodes):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)


def largest_values(proto: ModelProto, feeds: Sequence[Mapping[str, Array]]) -> dict[str, float]:
    """Returns the largest finite absolute value of each float32 tensor that is computed in a graph, over all inputs.

    Float16 has infinity too, so a mask of it stays what it is.
    """
    inferred = onnx.shape_inference.infer_shapes(proto)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    }
    computed = [node for node in proto.graph.node if node.op_type != "Constant"]
    made = [name for node in computed for name in node.output if types.get(name) == TensorProto.FLOAT]
    names = [*(value.name for value in proto.graph.input if types[value.name] == TensorProto.FLOAT), *made]
    if not feeds or not names:
        return {}
    watched = ModelProto()
    watched.CopyFrom(proto)
    del watched.graph.output[:]
    watched.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), f"zero{SUFFIX}"))
    for name in names:  # the tensors themselves would fill the memory
        size, infinite, finite, most = (f"{name}_{step}{SUFFIX}" for step in ("size", "infinite", "finite", "most"))
        watched.graph.node.append(helper.make_node("Abs", [name], [size]))
        watched.graph.node.append(helper.make_node("IsInf", [name], [infinite]))
        watched.graph.node.append(helper.make_node("Where", [infinite, f"zero{SUFFIX}", size], [finite]))
        watched.graph.node.append(helper.make_node("ReduceMax", [finite], [most], keepdims=0))
        watched.graph.output.append(helper.make_tensor_value_info(most, TensorProto.FLOAT, []))
    session = open_session(watched.SerializeToString())
    largest = np.zeros(len(names))
    for feed in feeds:
        count = len(next(iter(feed.values())))
        rows = min(ROWS, rows_at_once(feed))
        for start in range(0, count, rows):
            part = {name: array[start : start + rows] for name, array in feed.items()}
            largest = np.fmax(largest, np.array(session.run(None, part), np.float64))
    return dict(zip(names, largest.tolist(), strict=True))


def _drop_repeated_casts(proto: ModelProto) -> None:
    """Removes casts that the converter wrote twice, where two float32 nodes have one input."""
    seen: set[str] = set()
    nodes = []
    for node in proto.graph.node:
        if node.op_type != "Cast" or node.output[0] not in seen:
            nodes.append(node)
        seen.update(node.output)
    if len(nodes) < len(proto.graph.node):
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)


def _join_casts(model: ir.Model) -> None:
    """Connects float32 nodes with each other where the converter put a cast to float16 and one back between them."""
    for node in list(model.graph):
        before = node.inputs[0].producer() if _casts_to(node, ir.DataType.FLOAT) and node.inputs[0] else None
        if before is None or not _casts_to(before, ir.DataType.FLOAT16):
            continue
        source, (output,) = before.inputs[0], node.outputs
        if source is None or source.dtype != ir.DataType.FLOAT:
            continue
        if any(output is end for end in model.graph.outputs):
            node.replace_input_with(0, source)  # a cast to the type that it has gives the output its name
        else:
            ir.convenience.replace_all_uses_with(output, source)
    RemoveUnusedNodesPass()(model)


def _casts_to(node: ir.Node, dtype: ir.DataType) -> bool:
    return node.op_type == "Cast" and node.attributes["to"].as_int() == dtype
