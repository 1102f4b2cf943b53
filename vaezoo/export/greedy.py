"""The graph that gives the most probable ids of latents: the graph of a single step, repeated by ONNX's Scan.

PyTorch cannot trace a loop whose number of rows is free without unrolling it, so the loop is put around the step here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from vaezoo.priors.base import Autoregressive

INT64, FLOAT, BOOL = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL
PREFIX = "greedy_"  # of what this module adds, so that no name within the step is taken


def greedy_graph(step: ModelProto, loop: Autoregressive) -> ModelProto:
    """Returns a graph from latents, and labels if the step takes them, to the most probable ids, `(batch, length)`.

    Args:
        step: The graph of a single step: `id`, `state`, `z` and others to `logits` and `state_out`.
        loop: How ids are drawn. Behind its end id everything is padding.
    """
    given = [value for value in step.graph.input if value.name not in ("id", "state")]
    output = helper.make_tensor_value_info("x", INT64, ["batch", loop.length])
    graph = helper.make_graph(
        [*_first(loop), _scan(_body(step, loop))],
        "greedy",
        given,
        [output],
        [*step.graph.initializer, *_constants(loop)],
    )
    model = helper.make_model(graph, opset_imports=step.opset_import, producer_name=step.producer_name)
    model.functions.extend(step.functions)
    model.ir_version = step.ir_version
    return model


def _name(name: str) -> str:
    return PREFIX + name


def _node(operator: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs, [output], **attributes)


def _constants(loop: Autoregressive) -> list[TensorProto]:
    """Returns the numbers that the loop begins with. Scan takes one row of `positions` for each id."""
    assert loop.start_id is not None
    values = {
        "positions": np.zeros(loop.length, np.int64),
        "start": np.int64(loop.start_id),
        "padding": np.int64(0),
        "end": np.int64(-1 if loop.end_id is None else loop.end_id),  # no id is -1
        "no": np.bool_(False),
        "zero": np.float32(0),
        "size": np.array([loop.state_size], np.int64),
        "first": np.array([0], np.int64),
        "second": np.array([1], np.int64),
    }
    return [numpy_helper.from_array(np.asarray(value), _name(name)) for name, value in values.items()]


def _first(loop: Autoregressive) -> list[NodeProto]:
    """Returns the nodes that make the first id, state and flag of each row."""
    rows, shape = _name("rows"), _name("state_shape")
    return [
        _node("Shape", ["z"], _name("z_shape")),
        _node("Slice", [_name("z_shape"), _name("first"), _name("second")], rows),
        _node("Concat", [rows, _name("size")], shape, axis=0),
        _node("Expand", [_name("start"), rows], _name("first_id")),
        _node("Expand", [_name("zero"), shape], _name("first_state")),
        _node("Expand", [_name("no"), rows], _name("first_ended")),
    ]


def _body(step: ModelProto, loop: Autoregressive) -> GraphProto:
    """Returns the graph of one round: the step, then the choice of an id. Weights and latents come from outside."""
    ids, ended, chosen, is_end = (_name(name) for name in ("ids", "ended", "chosen", "is_end"))
    nodes = [
        *step.graph.node,
        _node("ArgMax", ["logits"], ids, axis=-1, keepdims=0),
        _node("Where", [ended, _name("padding"), ids], chosen),
        _node("Equal", [ids, _name("end")], is_end),
        _node("Or", [ended, is_end], _name("ended_out")),
    ]
    info = helper.make_tensor_value_info
    rows: Sequence[str | int] = ["batch"]
    state: Sequence[str | int] = ["batch", loop.state_size]
    scalar: Sequence[str | int] = []
    inputs = [("id", INT64, rows), ("state", FLOAT, state), (ended, BOOL, rows), (_name("position"), INT64, scalar)]
    outputs = [(ids, INT64, rows), ("state_out", FLOAT, state), (_name("ended_out"), BOOL, rows), (chosen, INT64, rows)]
    return helper.make_graph(nodes, "step", [info(*v) for v in inputs], [info(*v) for v in outputs])


def _scan(body: GraphProto) -> NodeProto:
    first = [_name(name) for name in ("first_id", "first_state", "first_ended", "positions")]
    last = [_name(name) for name in ("last_id", "last_state", "last_ended")]
    return helper.make_node("Scan", first, [*last, "x"], body=body, num_scan_inputs=1, scan_output_axes=[1])
